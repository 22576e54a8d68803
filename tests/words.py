"""How well a text matches what was said."""

from __future__ import annotations

import warnings

import jiwer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Its source has invalid escape sequences.
    from whisper_normalizer.english import EnglishTextNormalizer

from wire import BEST_OF_TIMES

MAX_WER = 0.1


def word_error_rate(said: str, text: str) -> float:
    """Words that are wrong, missing or too many, as a share of those that were said, without case or punctuation."""
    normalized = EnglishTextNormalizer()
    return float(jiwer.wer(normalized(said), normalized(text)))


def said(text: str, words: str = BEST_OF_TIMES) -> bool:
    """Whether the text is what was said, but for a word or so."""
    return word_error_rate(words, text) <= MAX_WER

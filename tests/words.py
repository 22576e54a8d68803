"""How well a text matches what was said."""

from __future__ import annotations

import warnings

import jiwer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Its source has invalid escape sequences.
    from whisper_normalizer.english import EnglishTextNormalizer

from wire import BEST_OF_TIMES

MAX_WER = 0.1

TWO_CITIES = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season of "
    "darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to heaven, we were all going direct the other way. In short, the period was "
    "so far like the present period, that some of its noisiest authorities insisted on its being received, for good or "
    "for evil, in the superlative degree of comparison only."
)
"""What is said in `clips.two_cities()`."""


def word_error_rate(said: str, text: str) -> float:
    """Words that are wrong, missing or too many, as a share of those that were said, without case or punctuation."""
    normalized = EnglishTextNormalizer()
    return float(jiwer.wer(normalized(said), normalized(text)))


def said(text: str, words: str = BEST_OF_TIMES) -> bool:
    """Whether the text is what was said, but for a word or so."""
    return word_error_rate(words, text) <= MAX_WER

"""How well a text matches what was said."""

from __future__ import annotations

import warnings

import jiwer

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # Its source has invalid escape sequences, of which Python tells on the first import.
    from whisper_normalizer.english import EnglishTextNormalizer


def word_error_rate(said: str, text: str) -> float:
    """Words that are wrong, missing or too many, as a share of those that were said, without case or punctuation."""
    normalized = EnglishTextNormalizer()
    return float(jiwer.wer(normalized(said), normalized(text)))

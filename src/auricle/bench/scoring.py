"""Word error rates as the field counts them: Whisper's normaliser, then jiwer. Knows no sessions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jiwer

_DIGITS = {
    word: str(digit)
    for digit, words in enumerate(
        ("zero oh o", "one", "two to too", "three", "four for", "five", "six", "seven", "eight ate", "nine")
    )
    for word in words.split()
}
DIGIT_WORD = r"[^\W\d_]+|\d"
"""A word of a text in which digits count, spoken or written: each digit is a word."""


_WITHOUT_SPACES = ("ja", "lo", "my", "th", "yue", "zh")
"""Languages that are written without spaces: each letter counts as a word."""


@cache
def _normaliser(language: str | None) -> Callable[[str], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its source has invalid escape sequences.
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    is_english = language in (None, "en", "zxx")
    normaliser: Callable[[str], str] = (
        EnglishTextNormalizer() if is_english else BasicTextNormalizer(split_letters=language in _WITHOUT_SPACES)
    )
    return normaliser


def digit_of(word: str) -> str:
    """The digit that a word names; any other word stays."""
    return _DIGITS.get(word, word)


def normalised(text: str, scoring: str | None = None, language: str | None = "en") -> str:
    """The text as it is compared. With `digits` only digits count, spoken or written."""
    if scoring == "digits":
        return " ".join(map(digit_of, re.findall(DIGIT_WORD, text.lower())))
    return _normaliser(language)(text).strip()


@dataclass
class Score:
    """Errors over many clips; the rate is over all their words together."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0
    clips: int = 0

    def add(
        self, reference: str, hypothesis: str, scoring: str | None = None, language: str | None = "en"
    ) -> float | None:
        """Count a clip in. Returns its own rate in percent; None if nothing is said in it."""
        reference = normalised(reference, scoring, language)
        hypothesis = normalised(hypothesis, scoring, language)
        words = len(reference.split())
        self.words += words
        self.clips += 1
        if not words or not hypothesis:
            self.deletions += words
            self.insertions += len(hypothesis.split())
            return 100.0 if words else None
        output = jiwer.process_words(reference, hypothesis)
        self.substitutions += output.substitutions
        self.deletions += output.deletions
        self.insertions += output.insertions
        return 100 * (output.substitutions + output.deletions + output.insertions) / words

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def errors(self) -> int:
        """Words that are wrong, missing or too many."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def percent(self) -> float | None:
        """The word error rate; None if nothing was said."""
        return 100 * self.errors / self.words if self.words else None

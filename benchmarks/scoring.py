"""Word error rates as the field counts them: Whisper's English normaliser, then jiwer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

_DIGITS = {
    word: str(digit)
    for digit, words in enumerate(
        ("zero oh o", "one", "two to too", "three", "four for", "five", "six", "seven", "eight ate", "nine")
    )
    for word in words.split()
}


@cache
def _normaliser() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


def normalised(text: str, scoring: str | None) -> str:
    """The text as it is compared. With `digits` only digits count, spoken or written."""
    if scoring == "digits":
        words = re.findall(r"[a-z]+|\d", text.lower())
        return " ".join(_DIGITS.get(word, word) for word in words)
    return str(_normaliser()(text))


@dataclass
class Score:
    """Errors over many clips; the rate is over all their words together."""

    errors: int = 0
    words: int = 0
    clips: int = 0

    def add(self, reference: str, hypothesis: str, scoring: str | None = None) -> float:
        """Count a clip in. Returns its own rate in percent."""
        reference, hypothesis = normalised(reference, scoring), normalised(hypothesis, scoring)
        output = jiwer.process_words(reference, hypothesis)
        errors = output.substitutions + output.deletions + output.insertions
        words = len(reference.split())
        self.errors += errors
        self.words += words
        self.clips += 1
        return 100 * errors / words

    @property
    def percent(self) -> float:
        return 100 * self.errors / self.words

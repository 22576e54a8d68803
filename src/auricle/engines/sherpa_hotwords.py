"""Keywords in the form that sherpa-onnx takes: it spells them in the model's tokens by itself, and trusts its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


class Hotwords:
    """What of keywords a model can spell. Made once of its list of tokens."""

    def __init__(self, tokens: Path) -> None:
        """`tokens` is the model's `tokens.txt`: a token and its number a line. Raises OSError."""
        names = [line.rpartition(" ")[0] for line in tokens.read_text(encoding="utf-8").splitlines()]
        self._tokens = {name for name in names if name and not (name.startswith("<") and name.endswith(">"))}
        self._longest = max(map(len, self._tokens), default=0)
        cased = [letter for letter in set("".join(self._tokens)) if letter.upper() != letter.lower()]
        self._fold: Callable[[str], str] = str
        if all(letter.isupper() for letter in cased):
            self._fold = str.upper  # many models know only one case
        elif all(letter.islower() for letter in cased):
            self._fold = str.lower

    def of(self, keywords: Iterable[str]) -> str | None:
        """Those that can be spelled, as one string; None: there are none.

        What the model's tokens don't make up is left out: for one such keyword sherpa-onnx would heed none at all.
        """
        # A slash divides them, and a word that begins with a colon would be read as a number.
        spoken = (" ".join(word.lstrip(":#@") for word in keyword.replace("/", " ").split()) for keyword in keywords)
        folded = (self._fold(keyword) for keyword in spoken)
        return "/".join(keyword for keyword in folded if keyword and all(map(self._can_spell, keyword.split()))) or None

    def _can_spell(self, word: str) -> bool:
        """Whether tokens make up a word: after the sign for a space, but in scripts that have none between words."""
        return self._is_made_up(f"▁{word}") or (not word.isascii() and self._is_made_up(word))

    def _is_made_up(self, text: str) -> bool:
        reached = [True] + [False] * len(text)
        """Up to which letters it is."""
        for end in range(1, len(text) + 1):
            begins = range(max(end - self._longest, 0), end)
            reached[end] = any(reached[begin] and text[begin:end] in self._tokens for begin in begins)
        return reached[-1]

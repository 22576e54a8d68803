"""Keywords in the form that sherpa-onnx takes: it spells them in the model's tokens by itself, and trusts its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


class Hotwords:
    """What of keywords a model can spell. Made once of its list of tokens."""

    def __init__(self, tokens: Path) -> None:
        """`tokens` is the model's `tokens.txt`: a token and its number a line. Raises OSError."""
        names = [line.rpartition(" ")[0] for line in tokens.read_text(encoding="utf-8").splitlines()]
        self._letters = set("".join(name for name in names if not (name.startswith("<") and name.endswith(">"))))
        cased = [letter for letter in self._letters if letter.upper() != letter.lower()]
        self._fold: Callable[[str], str] = str
        if all(letter.isupper() for letter in cased):
            self._fold = str.upper  # many models know only one case
        elif all(letter.islower() for letter in cased):
            self._fold = str.lower

    def of(self, keywords: Iterable[str]) -> str | None:
        """Those that can be spelled, as one string; None: there are none.

        What has letters that the model doesn't know is left out: of such a one sherpa-onnx would take the rest for it.
        """
        # A slash divides them, and a word that begins with a colon would be read as a number.
        spoken = (" ".join(word.lstrip(":#@") for word in keyword.replace("/", " ").split()) for keyword in keywords)
        folded = (self._fold(keyword) for keyword in spoken)
        return "/".join(keyword for keyword in folded if keyword and set(keyword) - {" "} <= self._letters) or None

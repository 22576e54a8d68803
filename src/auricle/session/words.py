"""The words of a text, and when each was said. Knows tokens and positions, no engine and no client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from auricle.audio.formats import Samples
from auricle.protocol.config import Transcription
from auricle.session.jobs import Align, Alignment, Token


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a hypothesis."""

    key: str
    """What makes it the same word: its letters and digits."""
    end: int
    """How many tokens there are up to its end."""
    probability: float
    """That of its least likely token with a letter or digit in it."""


def words_of(tokens: Sequence[Token]) -> list[Word]:
    """The words of a text: each begins after a space, and has the punctuation that follows with it."""
    words: list[Word] = []
    key, least, gap = "", 0.0, None
    for index, token in enumerate(tokens):
        if gap is None and token.text[:1].isspace():
            gap = index  # the space belongs to what follows, also where it is a token of its own
        if letters := letters_of(token.text):
            if key and gap is not None:
                words.append(Word(key, gap, math.exp(least)))
                key, least = "", 0.0
            key += letters
            least, gap = min(least, token.logprob), None
    if key:
        words.append(Word(key, len(tokens), math.exp(least)))
    return words


def letters_of(text: str) -> str:
    """The letters and digits of a text, without case."""
    return "".join(character for character in text.casefold() if character.isalnum())


@dataclass(frozen=True, slots=True)
class SaidWord:
    """A word that was told, and where it was said."""

    text: str
    """With the punctuation that was told with it."""
    start: int
    """Position of its first sample since the session began."""
    end: int
    logprob: float
    """The natural logarithm of its probability: the sum of its tokens'."""


@dataclass(slots=True)
class _Stretch:
    """A stretch of speech whose text is complete. Positions are samples since the session began."""

    start: int
    end: int
    tokens: tuple[Token, ...]
    is_known: bool
    """Whether it is known when its words were said."""
    is_asked: bool = False


class ItemWords:
    """When the words of an item were said, stretch after stretch. Owned by the item's decoding.

    Where an engine tells that with the text, there is nothing to ask; else it is asked once a stretch is over.
    """

    def __init__(self, speech_within: Callable[[int, int], tuple[int, int]]) -> None:
        """`speech_within` takes the silence from the ends of a span of positions."""
        self._speech_within = speech_within
        self.is_wanted = False
        """Whether anybody wants to know. It may change at any time."""
        self._stretches: list[_Stretch] = []
        self._has_failed = False

    def add(self, start: int, end: int, tokens: Sequence[Token]) -> None:
        """The text of the next stretch is complete: it is `tokens`, as they were told."""
        self._stretches.append(_Stretch(start, end, tuple(tokens), all(token.span for token in tokens)))

    @property
    def is_waiting(self) -> bool:
        """Whether something is still to be found out."""
        return self.is_wanted and not self._has_failed and not all(stretch.is_known for stretch in self._stretches)

    def ask(self, item_id: str, options: Transcription, read: Callable[[int, int], Samples]) -> list[Align]:
        """The jobs that find out what is not known; each is asked for once. `read` gives the audio of positions."""
        if not self.is_waiting:
            return []
        jobs = []
        for number, stretch in enumerate(self._stretches):
            if not (stretch.is_known or stretch.is_asked):
                stretch.is_asked = True
                samples = read(stretch.start, stretch.end)
                jobs.append(Align(item_id, options, samples, stretch.tokens, number))
        return jobs

    def receive(self, piece: int, alignment: Alignment) -> None:
        """Take in the answer to a job."""
        stretch = self._stretches[piece]
        spans = zip(stretch.tokens, alignment.spans, strict=True)
        stretch.tokens = tuple(replace(token, span=span) for token, span in spans)
        stretch.is_known = True

    def receive_failure(self) -> None:
        """Take in that a job has failed: an item has times of all its words or of none."""
        self._has_failed = True

    @property
    def words(self) -> list[SaidWord] | None:
        """All words of the item in their order, none before the end of the one before; None: the times aren't known."""
        if not self.is_wanted or self._has_failed or self.is_waiting:
            return None
        return [word for stretch in self._stretches for word in self._said(stretch)]

    def _said(self, stretch: _Stretch) -> Iterator[SaidWord]:
        """The words of a stretch that is known. Joined, they are its text."""
        earliest = stretch.start
        for part in _parts(stretch.tokens):
            # Engines share out pauses among the words around them; speech detection knows better.
            start, end = self._speech_within(*(stretch.start + place for place in _span(part)))
            start = min(max(start, earliest), stretch.end)
            earliest = min(max(end, start), stretch.end)
            text = "".join(token.text for token in part).strip()
            yield SaidWord(text, start, earliest, sum(token.logprob for token in part))


def _parts(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The tokens of each word. What is no word at all counts as one."""
    ends = {word.end for word in words_of(tokens)} or {len(tokens)}
    begin = 0
    for index, token in enumerate(tokens):
        if index in ends or (index > begin and _WITHOUT_SPACES.match(token.text)):
            yield tokens[begin:index]
            begin = index
    if tokens:
        yield tokens[begin:]


_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of scripts without spaces between words (Thai, Lao, Burmese, Japanese, Chinese): there each token is one."""


def _span(tokens: Sequence[Token]) -> tuple[int, int]:
    """Where the letters of a word are."""
    spans = [token.span for token in tokens if token.span and letters_of(token.text)]
    spans = spans or [token.span for token in tokens if token.span]
    return min(span[0] for span in spans), max(span[1] for span in spans)

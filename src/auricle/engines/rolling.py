"""Streams from a model that only transcribes whole utterances. Knows neither the model nor the session.

The speech so far is transcribed again and again, with the last hypothesis as a draft. What of a hypothesis can be told
is decided by agreement: a word is settled once it has stood at its place for a while, the sooner the surer the model is
of it. (LocalAgreement, Liu et al. 2020, counts hypotheses; over time and probability the same accuracy comes sooner.)

Settled text is not forced on the model but searched for in each new hypothesis, and what follows it there is new: a
model that must continue its own early mistake makes more of them (1.6 points of word error rate on clean speech).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from auricle.audio.formats import SAMPLE_RATE
from auricle.engines.base import (
    Align,
    Alignment,
    Decode,
    EngineError,
    Hypothesis,
    OfflineModel,
    Token,
    Transcript,
    Transcription,
    Utterance,
    Word,
    aligned,
    letters_of,
    words_of,
)
from auricle.protocol.config import DEFAULT_DELAY

MAX_STREAMS = 256
"""How many streams are remembered, the newest. One that is forgotten only costs time."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is enough to settle a word of a hypothesis."""

    stood_s: float
    """For so long it has been at its place in all hypotheses."""
    probability: float
    followers: int
    """How many words come after it: speech that goes on is what changes a word, its last one above all."""


SettleRule = tuple[Evidence, ...]
"""A word is settled if one of these is there."""

SETTLE_RULES: Mapping[str, SettleRule] = {
    "minimal": (Evidence(0.0, 0.9, 1), Evidence(0.25, 0.7, 1), Evidence(1.0, 0.0, 1)),
    "low": (Evidence(0.0, 0.85, 1), Evidence(0.75, 0.5, 1), Evidence(1.5, 0.0, 1)),
    "medium": (Evidence(0.0, 0.9, 1), Evidence(1.0, 0.5, 1), Evidence(2.0, 0.0, 1)),
    "high": (Evidence(0.25, 0.95, 2), Evidence(1.0, 0.8, 1), Evidence(2.5, 0.0, 2)),
    "xhigh": (Evidence(1.0, 0.95, 4), Evidence(4.0, 0.0, 2)),
}
"""By the client's `delay`: points on the curve of accuracy against delay that `benchmarks/delay.py` draws."""


def keys_of(text: str) -> list[str]:
    """The keys of the words of a text."""
    return [letters for word in text.split() if (letters := letters_of(word))]


def boundary(settled: Sequence[str], words: Sequence[Word]) -> int:
    """How many of `words` say what the words of `settled`, given by their keys, have said.

    If they are not the same, as many as come nearest to it: the fewest letters to insert, delete or replace.
    """
    same = 0
    while same < min(len(settled), len(words)) and settled[same] == words[same].key:
        same += 1
    if same == len(settled):
        return same
    told = "".join(settled[same:])
    letters = "".join(word.key for word in words[same:])
    distances = prefix_distances(told, letters)
    best, nearest, end = same, distances[0], 0
    for index, word in enumerate(words[same:], same + 1):
        end += len(word.key)
        # Of equals the one with as many words.
        if (distances[end], abs(index - len(settled))) < (nearest, abs(best - len(settled))):
            best, nearest = index, distances[end]
    return best


def prefix_distances(text: str, other: str) -> list[int]:
    """The edit distances (Levenshtein) between `text` and all beginnings of `other`, the empty one first."""
    row = list(range(len(other) + 1))
    for index, letter in enumerate(text, 1):
        diagonal, row[0] = row[0], index
        for column, other_letter in enumerate(other, 1):
            change = diagonal + (letter != other_letter)
            diagonal = row[column]
            row[column] = min(change, diagonal + 1, row[column - 1] + 1)
    return row


@dataclass(slots=True)
class _Stream:
    """What is remembered of a stretch of speech that goes on."""

    options: Transcription
    size: int = -1
    """How many samples the last hypothesis was made of."""
    context_size: int = 0
    """How many samples of earlier speech were heard before them."""
    tokens: tuple[Token, ...] = ()
    language: str | None = None
    words: list[Word] = field(default_factory=list)
    since_s: list[float] = field(default_factory=list)
    """For each word, the length of speech in seconds from which on it and all unsettled words before it are there."""

    def take(self, found: Transcript, job: Decode, settled: Sequence[str]) -> None:
        """Remember a new hypothesis."""
        words, size = words_of(found.tokens), job.samples.size
        old, new = boundary(settled, self.words), boundary(settled, words)
        since_s = [size / SAMPLE_RATE] * len(words)
        while old < len(self.words) and new < len(words) and self.words[old].key == words[new].key:
            since_s[new] = self.since_s[old]
            old, new = old + 1, new + 1
        self.context_size = _context_size(job)
        self.tokens, self.language = found.tokens, found.language
        self.size, self.words, self.since_s = size, words, since_s

    def settle(self, begin: int, rule: SettleRule) -> int:
        """How many words are settled, if `begin` of them were before."""
        for index in range(begin, len(self.words)):
            stood_s = self.size / SAMPLE_RATE - self.since_s[index]
            probability, followers = self.words[index].probability, len(self.words) - 1 - index
            if not any(
                stood_s >= enough.stood_s and probability >= enough.probability and followers >= enough.followers
                for enough in rule
            ):
                return index
        return max(begin, len(self.words))


def _context_size(job: Decode) -> int:
    return job.context.samples.size if job.context else 0


class RollingEngine:
    """Transcribes the speech of each stream as far as it has come. Implements `Engine`.

    Owns the last hypothesis of each stream that goes on. Called by one thread only.
    """

    def __init__(self, model: OfflineModel, rules: Mapping[str, SettleRule] = SETTLE_RULES) -> None:
        self._model = model
        self._rules = rules
        self._streams: OrderedDict[tuple[str, int], _Stream] = OrderedDict()

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis | EngineError]:
        """See `Engine`. Raises EngineError if the model fails."""
        new = [job for job in jobs if not self._is_known(job)]
        utterances = [Utterance(job.samples, job.options, self._stream(job).tokens, job.context) for job in new]
        found = self._model.transcribe(utterances) if new else []
        failures: dict[str, EngineError] = {}
        for job, transcript in zip(new, found, strict=True):
            if isinstance(transcript, EngineError):
                failures[job.stream_id] = transcript
            else:
                self._stream(job).take(transcript, job, keys_of(job.settled))
        hypotheses = [failures.get(job.stream_id) or self._answer(job) for job in jobs]
        while len(self._streams) > MAX_STREAMS:
            self._streams.popitem(last=False)
        return hypotheses

    def align(self, jobs: Sequence[Align]) -> Sequence[Alignment | EngineError]:
        """See `Aligner`. Raises EngineError if the model is none, or fails."""
        return aligned(self._model, jobs)

    def _stream(self, job: Decode) -> _Stream:
        key = (job.stream_id, job.piece)
        stream = self._streams.get(key)
        if stream is None or stream.options != job.options:
            stream = self._streams[key] = _Stream(job.options)
        self._streams.move_to_end(key)
        return stream

    def _is_known(self, job: Decode) -> bool:
        """Whether just this audio was transcribed last, as when a pause turns out to be the end."""
        stream = self._stream(job)
        return (stream.size, stream.context_size) == (job.samples.size, _context_size(job))

    def _answer(self, job: Decode) -> Hypothesis:
        stream = self._stream(job)
        begin = boundary(keys_of(job.settled), stream.words)
        before = stream.words[begin - 1].end if begin else 0
        if job.is_final:
            del self._streams[job.stream_id, job.piece]
            return Hypothesis(stream.tokens[before:], language=stream.language)
        settled = stream.settle(begin, self._rules[job.options.delay or DEFAULT_DELAY])
        after = stream.words[settled - 1].end if settled else 0
        return Hypothesis(stream.tokens[before:after], stream.tokens[after:], stream.language)

"""How long after its audio was sent each thing was told. Reads a record; knows no server and no clock.

Each latency is seconds since the audio in question was given to the socket, not since it should have been.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from auricle.bench.corpus import Word
from auricle.bench.scoring import DIGIT_WORD, digit_of
from auricle.bench.session_run import COMMITTED, COMPLETED, DELTA, STOPPED, Record

Measure = Literal[
    "first_delta",
    "word",
    "last_word_to_completed",
    "stop_to_completed",
    "commit_to_completed",
    "committed_to_completed",
]

MEASURES: dict[Measure, str] = {
    "first_delta": "first delta after speech starts",
    "word": "word told after it is said",
    "last_word_to_completed": "last word said → completed",
    "stop_to_completed": "end of speech → completed",
    "commit_to_completed": "commit → completed",
    "committed_to_completed": "committed → completed",
}

_WORD = r"\w+(?:['’]\w+)*"


@dataclass(frozen=True)
class Latency:
    """One measurement."""

    measure: Measure
    at_s: float
    """When the audio was sent, on the record's clock."""
    value_s: float


@dataclass
class _Item:
    deltas: list[tuple[float, str]] = field(default_factory=list)
    stopped_at_audio_s: float | None = None
    committed_s: float | None = None
    completed_s: float | None = None
    transcript: str = ""


def items_of(record: Record) -> list[_Item]:
    """The committed items, in their order."""
    items: dict[str, _Item] = {}
    for now_s, event in record.events:
        item_id = event.get("item_id")
        if item_id is None:
            continue
        item = items.setdefault(item_id, _Item())
        kind = event["type"]
        if kind == STOPPED:
            item.stopped_at_audio_s = event["audio_end_ms"] / 1000
        elif kind == COMMITTED:
            item.committed_s = now_s
        elif kind == DELTA:
            item.deltas.append((now_s, event["delta"]))
        elif kind == COMPLETED and item.completed_s is None:
            item.completed_s, item.transcript = now_s, event["transcript"]
    committed = [item for item in items.values() if item.committed_s is not None]
    return sorted(committed, key=lambda item: item.committed_s or 0)


def transcript(record: Record) -> str:
    """All that was told of a session, as one text."""
    return " ".join(item.transcript for item in items_of(record) if item.transcript)


def latencies(record: Record) -> Iterator[Latency]:
    """All measurements of a session."""
    items = items_of(record)
    for item in items:
        yield from _of_item(record, item)
    if record.clip.speech_s is None or record.is_cut:
        return
    start_s, end_s = record.clip.speech_s
    first_s = min((now_s for item in items for now_s, _ in item.deltas), default=None)
    # A chunk is sent whole, so the one that the first sample of speech is in.
    started_s, ended_s = record.sent_at(start_s + 1e-6), record.sent_at(end_s)
    if first_s is not None and started_s is not None:
        yield Latency("first_delta", started_s, first_s - started_s)
    if items and items[-1].completed_s is not None and ended_s is not None and record.commit_s is None:
        spoken = [item.completed_s for item in items if item.transcript and item.completed_s is not None]
        if spoken:
            yield Latency("last_word_to_completed", ended_s, spoken[-1] - ended_s)
    told = [word for item in items for word in told_words(item, record.clip.scoring)]
    for said, told_s in matched_words(record.clip.words, told, record.clip.scoring):
        if (said_s := record.sent_at(said.end_s)) is not None:
            yield Latency("word", said_s, told_s - said_s)


def _of_item(record: Record, item: _Item) -> Iterator[Latency]:
    if item.completed_s is None or item.committed_s is None:
        return
    yield Latency("committed_to_completed", item.committed_s, item.completed_s - item.committed_s)
    if record.commit_s is not None and item.stopped_at_audio_s is None and item.committed_s >= record.commit_s:
        yield Latency("commit_to_completed", record.commit_s, item.completed_s - record.commit_s)
    if item.stopped_at_audio_s is not None:
        # The end of the silence that ended the turn: before that was sent, nobody could know of the end.
        sent_s = record.sent_at(item.stopped_at_audio_s)
        if sent_s is not None:
            yield Latency("stop_to_completed", sent_s, item.completed_s - sent_s)


def told_words(item: _Item, scoring: str | None = None) -> list[tuple[str, float]]:
    """The words of an item's transcript, each with the time of the delta that brought its last letter.

    What the deltas did not bring, or took back, is told when the item is completed.
    """
    if item.completed_s is None:
        return []
    joined = "".join(delta for _, delta in item.deltas)
    times_s = [now_s for now_s, delta in item.deltas for _ in delta]
    kept = next((i for i, (a, b) in enumerate(zip(joined, item.transcript, strict=False)) if a != b), len(joined))
    times_s = times_s[:kept] + [item.completed_s] * (len(item.transcript) - kept)
    return [(word, times_s[end - 1]) for word, end in _words(item.transcript, scoring)]


def matched_words(
    said: Sequence[Word], told: Sequence[tuple[str, float]], scoring: str | None = None
) -> list[tuple[Word, float]]:
    """The words of the reference that were told, each with its time: the longest match of both texts, in order."""
    spoken = [(text, word) for word in said for text, _ in _words(word.text, scoring)]
    pairs = align([text for text, _ in spoken], [text for text, _ in told])
    return [(spoken[i][1], told[j][1]) for i, j in pairs]


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """Places of equal words in an alignment with the fewest insertions, deletions and substitutions."""
    rows, columns = len(reference), len(hypothesis)
    cost = np.zeros((rows + 1, columns + 1), np.int32)
    cost[:, 0], cost[0] = np.arange(rows + 1), np.arange(columns + 1)
    words = np.array(hypothesis, dtype=object)
    steps = np.arange(columns + 1)
    for row in range(1, rows + 1):
        differs = (words != reference[row - 1]).astype(np.int32)
        best = cost[row].copy()
        best[1:] = np.minimum(cost[row - 1, :-1] + differs, cost[row - 1, 1:] + 1)
        # An insertion costs one more than the place to its left: a running minimum once the slope is taken off.
        cost[row] = np.minimum.accumulate(best - steps) + steps
    pairs = []
    row, column = rows, columns
    while row and column:
        is_equal = reference[row - 1] == hypothesis[column - 1]
        if cost[row, column] == cost[row - 1, column - 1] + (not is_equal):
            row, column = row - 1, column - 1
            if is_equal:
                pairs.append((row, column))
        elif cost[row, column] == cost[row - 1, column] + 1:
            row -= 1
        else:
            column -= 1
    return pairs[::-1]


def _words(text: str, scoring: str | None) -> Iterator[tuple[str, int]]:
    """Words as they are compared, and where each ends in the text."""
    for match in re.finditer(DIGIT_WORD if scoring == "digits" else _WORD, text):
        word = match[0].lower().replace("’", "'")
        yield (digit_of(word) if scoring == "digits" else word), match.end()

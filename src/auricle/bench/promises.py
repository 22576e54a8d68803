"""What in a session's events is against the protocol. Reads a record; knows no server and no clock.

The promises: docs/protocol.md, "Server events".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from auricle.bench.session_run import (
    ANNOUNCED,
    CLEARED,
    COMMITTED,
    COMPLETED,
    DELTA,
    ERROR,
    FAILED,
    STARTED,
    STOPPED,
    Event,
    Record,
)

Promise = Literal["taken_back", "wrong_order", "missing_item", "no_end"]

PROMISES: dict[Promise, str] = {
    "taken_back": "deltas taken back",
    "wrong_order": "events in a wrong order",
    "missing_item": "missing items",
    "no_end": "items without an end",
}


@dataclass(frozen=True)
class Violation:
    """A promise that was broken."""

    promise: Promise
    item_id: str
    detail: str


@dataclass
class _Item:
    """What was told of an item so far."""

    deltas: list[str] = field(default_factory=list)
    is_started: bool = False
    is_stopped: bool = False
    is_committed: bool = False
    is_announced: bool = False
    is_ended: bool = False
    is_out_of_turn: bool = False
    """Its text was told before that of an earlier item was complete, and this is noted."""


def violations(record: Record) -> list[Violation]:
    """All broken promises of a session, in the order in which they show."""
    judge = _Judge()
    found = [violation for _, event in record.events for violation in judge.take(event)]
    return found + list(judge.at_the_end(record))


class _Judge:
    """Follows the events of one session. Owns what is known of each item, and the items' order."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._committed_ids: list[str] = []
        self._is_cleared = False
        self._is_refused = False

    def take(self, event: Event) -> Iterator[Violation]:
        """Judge the next event."""
        kind = event.get("type")
        self._is_cleared |= kind == CLEARED
        self._is_refused |= kind == ERROR
        item_id = event["item"]["id"] if "item" in event else event.get("item_id")
        if item_id is None:
            return
        item = self._items.setdefault(item_id, _Item())
        for detail in self._disorder(kind, item_id, item, event):
            yield Violation("wrong_order", item_id, detail)
        if kind == COMPLETED and not item.is_ended and "".join(item.deltas) != event["transcript"]:
            yield Violation(
                "taken_back", item_id, f"deltas {''.join(item.deltas)!r}, transcript {event['transcript']!r}"
            )
        self._note(kind, item_id, item, event)

    def _disorder(self, kind: str | None, item_id: str, item: _Item, event: Event) -> Iterator[str]:
        if kind == STARTED and (item.is_started or item.is_committed):
            yield "speech_started came a second time or after committed"
        if kind == STOPPED and (not item.is_started or item.is_stopped or item.is_committed):
            yield "speech_stopped without speech_started, a second time, or after committed"
        if kind == COMMITTED:
            if item.is_committed:
                yield "committed a second time"
            last_id = self._committed_ids[-1] if self._committed_ids else None
            if "previous_item_id" in event and event["previous_item_id"] != last_id:
                yield f"previous_item_id is {event['previous_item_id']}, but {last_id} was committed before"
        if kind in (COMPLETED, FAILED) and not item.is_committed and not item.is_ended:
            yield f"{kind.rpartition('.')[2]} before committed"
        if kind in (DELTA, COMPLETED, FAILED):
            if item.is_ended:
                yield f"{kind.rpartition('.')[2]} after the item's end"
            waiting = [other for other in self._before(item_id) if not self._items[other].is_ended]
            if waiting and not item.is_out_of_turn:
                item.is_out_of_turn = True
                yield f"text before that of {waiting[0]}, which comes first, is complete"

    def _before(self, item_id: str) -> list[str]:
        """The items committed before another; all, if it isn't committed yet."""
        if not self._items[item_id].is_committed:
            return self._committed_ids
        return self._committed_ids[: self._committed_ids.index(item_id)]

    def _note(self, kind: str | None, item_id: str, item: _Item, event: Event) -> None:
        if kind == STARTED:
            item.is_started = True
        elif kind == STOPPED:
            item.is_stopped = True
        elif kind == COMMITTED and not item.is_committed:
            item.is_committed = True
            self._committed_ids.append(item_id)
        elif kind in ANNOUNCED:
            item.is_announced = True
        elif kind == DELTA:
            item.deltas.append(event["delta"])
        elif kind in (COMPLETED, FAILED):
            item.is_ended = True

    def at_the_end(self, record: Record) -> Iterator[Violation]:
        """Judge what never came. A session that was closed owes no item for an open turn."""
        for item_id, item in self._items.items():
            if item.is_committed:
                if not item.is_ended:
                    yield Violation("no_end", item_id, "committed, but neither completed nor failed")
                if not item.is_announced and record.problem is None:
                    yield Violation("missing_item", item_id, "committed, but no conversation.item.added or .created")
            elif item.is_ended:
                yield Violation("missing_item", item_id, "its text is complete, but it was never committed")
            elif item.is_stopped and record.problem is None:
                yield Violation("missing_item", item_id, "speech_stopped, but never committed")
            elif (item.is_started or item.deltas) and not self._is_cleared and record.problem is None:
                yield Violation("missing_item", item_id, "begun, but never committed")
        is_answered = bool(self._committed_ids) or self._is_refused
        if record.commit_s is not None and not is_answered and record.problem is None:
            yield Violation("missing_item", "", "the client's commit was not answered")

"""Plays one recording to a server in a session of its own, and records what is sent and told, and when.

Judges nothing: `promises.py`, `latency.py` and `scoring.py` read the record. All times are seconds of one clock,
`time.perf_counter`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from auricle.bench.corpus import Clip
from auricle.client import RealtimeClient, RemoteError

TRANSCRIPTION = "conversation.item.input_audio_transcription"
DELTA, COMPLETED, FAILED = f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed", f"{TRANSCRIPTION}.failed"
STARTED, STOPPED = "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"
COMMITTED, CLEARED = "input_audio_buffer.committed", "input_audio_buffer.cleared"
ANNOUNCED = ("conversation.item.added", "conversation.item.created")
UPDATED = "session.updated"
ERROR = "error"

_OPEN_TURN_S = 2.0
"""How long a turn may stay open after all audio before it is committed by hand."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """How recordings are played: the same for all sessions of a run."""

    base_url: str
    api_key: str | None
    audio_input: dict[str, Any]
    """`session.audio.input`."""
    chunk_bytes: int
    chunk_s: float
    speed: float
    """1: real time; 0: as fast as it goes."""
    timeout_s: float
    """Longest time without any event while something is still to come."""

    @property
    def is_by_hand(self) -> bool:
        """Whether the client ends the only turn itself."""
        return self.audio_input["turn_detection"] is None


@dataclass
class Record:
    """One session: what was sent and when, what was told and when."""

    clip: Clip
    chunk_s: float
    sent_s: list[float] = field(default_factory=list)
    """When each chunk was given to the socket."""
    late_s: list[float] = field(default_factory=list)
    """For each chunk, how much too late that was by the generator's own fault."""
    held_s: list[float] = field(default_factory=list)
    """For each chunk, how long the socket took it; long if the server doesn't read."""
    events: list[tuple[float, Event]] = field(default_factory=list)
    commit_s: float | None = None
    """When the client committed."""
    is_cut: bool = False
    """Its recording was not played to the end."""
    problem: str | None = None
    """Why the session ended early: not let in, closed, or no answer."""

    def sent_at(self, audio_s: float) -> float | None:
        """When the audio up to a position was sent, that is, the chunk with the last sample before it; or None."""
        # The first number is rounded, since 0.3 / 0.1 is more than 3.
        index = max(math.ceil(round(audio_s / self.chunk_s, 6)) - 1, 0)
        return self.sent_s[index] if index < len(self.sent_s) else None

    @property
    def has_turns(self) -> bool:
        """Whether the server found where speech begins."""
        return any(event.get("type") == STARTED for _, event in self.events)

    @property
    def audio_s(self) -> float:
        """Seconds of audio sent."""
        return len(self.sent_s) * self.chunk_s


class SessionRun:
    """One session on its way. Owns its record's events and what is still to come. `play` makes and uses it."""

    def __init__(self, client: RealtimeClient, setup: Setup, record: Record) -> None:
        self._client = client
        self._setup = setup
        self._record = record
        self._news = asyncio.Event()
        self._kinds: set[str] = set()
        self._open_turns: set[str] = set()
        self._open_items: set[str] = set()
        self._is_closed = False
        self._commit_is_refused = False

    async def read(self) -> None:
        """Record events until the server closes."""
        try:
            async for event in self._client.events():
                self._take(time.perf_counter(), event)
                self._news.set()
        except RemoteError as error:
            self._record.problem = str(error)
        finally:
            self._is_closed = True
            self._news.set()

    def _take(self, now_s: float, event: Event) -> None:
        self._record.events.append((now_s, event))
        kind, item_id = event.get("type", ""), event.get("item_id", "")
        self._kinds.add(kind)
        if kind == STARTED:
            self._open_turns.add(item_id)
        elif kind == STOPPED:
            self._open_turns.discard(item_id)
        elif kind == COMMITTED:
            self._open_turns.discard(item_id)
            self._open_items.add(item_id)
        elif kind in (COMPLETED, FAILED):
            self._open_items.discard(item_id)
        elif kind == ERROR and self._record.commit_s is not None:
            self._commit_is_refused = True

    async def configure(self) -> None:
        """Set the session up. Raises RemoteError: it is refused, or there is no answer."""
        await self._client.update(self._setup.audio_input)
        if not await self._until(lambda: bool({UPDATED, ERROR} & self._kinds)):
            raise RemoteError(self._record.problem or "The server does not answer a session.update.")
        for _, event in self._record.events:
            if event["type"] == ERROR:
                raise RemoteError(event["error"]["message"])

    async def send(self, data: bytes, until_s: float) -> None:
        """Send audio on its clock, chunk k at `start + k * chunk / speed`, but none after `until_s`."""
        record, setup = self._record, self._setup
        start_s = ready_s = time.perf_counter()
        for index, offset in enumerate(range(0, len(data), setup.chunk_bytes)):
            due_s = start_s + index * setup.chunk_s / setup.speed if setup.speed else ready_s
            wait_s = due_s - time.perf_counter()
            # Also where there is nothing to wait for, since a socket with room lets nobody else in.
            await asyncio.sleep(max(wait_s, 0))
            now_s = time.perf_counter()
            if self._is_closed or now_s > until_s:
                record.is_cut = True
                return
            record.sent_s.append(now_s)
            record.late_s.append(now_s - max(due_s, ready_s))
            await self._client.append_bytes(data[offset : offset + setup.chunk_bytes])
            ready_s = time.perf_counter()
            record.held_s.append(ready_s - now_s)

    async def finish(self) -> None:
        """Wait until all that was said is told. Notes a problem if the server falls silent before that."""
        if self._setup.is_by_hand:
            await self._commit()
            is_over = await self._until(lambda: self._commit_is_answered and not self._open_items)
        else:
            if self._setup.speed and not self._record.is_cut:
                await self._until(lambda: not self._open_turns, _OPEN_TURN_S)
                if self._open_turns:
                    await self._commit()
            await self._client.clear()
            is_over = await self._until(lambda: CLEARED in self._kinds and not self._open_items)
        if not is_over and self._record.problem is None:
            self._record.problem = f"Nothing was told for {self._setup.timeout_s:g} s although something was to come."

    async def _commit(self) -> None:
        self._record.commit_s = time.perf_counter()
        await self._client.commit()

    @property
    def _commit_is_answered(self) -> bool:
        return COMMITTED in self._kinds or self._commit_is_refused

    async def _until(self, is_so: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something is so. False: the server closed, or told nothing for too long."""
        while not is_so():
            if self._is_closed:
                return False
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s or self._setup.timeout_s)
            except TimeoutError:
                return is_so()
        return True


async def play(setup: Setup, data: bytes, record: Record, until_s: float = math.inf) -> None:
    """Play coded audio in a session of its own. Whatever goes wrong is in the record."""
    try:
        async with RealtimeClient.connect(setup.base_url, setup.api_key) as client:
            run = SessionRun(client, setup, record)
            reading = asyncio.create_task(run.read())
            try:
                await run.configure()
                await run.send(data, until_s)
                await run.finish()
            finally:
                reading.cancel()
    except RemoteError as error:
        record.problem = record.problem or str(error)
    record.is_cut = record.is_cut or record.problem is not None

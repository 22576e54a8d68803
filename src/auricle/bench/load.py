"""Many sessions at a time, and silent ones beside them. Judges nothing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from auricle.bench.corpus import Clip
from auricle.bench.session_run import Record, SessionRun, Setup, play
from auricle.client import RealtimeClient, RemoteError

_CONNECTING_AT_ONCE = 16
_NOTHING = Clip("silent", Path(), kind="silent", text="")


@dataclass
class Load:
    """What a run did: a record for each session, in the order in which they began."""

    records: list[Record] = field(default_factory=list)
    full_s: float = 0.0
    """When all sessions had begun."""
    end_s: float = math.inf
    """When no more audio was sent."""

    @property
    def audio_s(self) -> float:
        """Seconds of audio sent so far."""
        return sum(record.audio_s for record in self.records)


async def probe(setup: Setup) -> None:
    """Open a session and set it up. Raises RemoteError: nobody is there, or the settings are refused."""
    async with _opened(setup):
        pass


async def run_load(
    setup: Setup,
    clips: Iterator[Clip],
    audio: dict[Path, bytes],
    load: Load,
    sessions: int,
    ramp_s: float,
    step_s: float,
) -> None:
    """Play recordings in `sessions` sessions at a time, each recording in a new one, until they are used up.

    `audio` has the coded audio of each clip by its path. The first sessions begin evenly over `ramp_s`; `step_s` after
    that no more audio is sent. Records come into `load` as sessions begin.
    """
    start_s = time.perf_counter()
    load.full_s = start_s + ramp_s * (sessions - 1) / sessions
    load.end_s = load.full_s + step_s

    async def play_one_after_another(index: int) -> None:
        await asyncio.sleep(max(start_s + ramp_s * index / sessions - time.perf_counter(), 0))
        while time.perf_counter() < load.end_s:
            if (clip := next(clips, None)) is None:
                return
            record = Record(clip, setup.chunk_s)
            load.records.append(record)
            await play(setup, audio[clip.path], record, load.end_s)
            if record.problem and not record.sent_s:
                # Not let in. Without a pause this would become an attack.
                await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        for index in range(sessions):
            group.create_task(play_one_after_another(index))


@asynccontextmanager
async def idle_sessions(setup: Setup, count: int, on_lost: Callable[[str], None]) -> AsyncIterator[None]:
    """Hold `count` sessions open that send nothing. Raises RemoteError: one can't be opened."""
    async with AsyncExitStack() as stack:
        gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)

        async def open_one() -> None:
            async with gate:
                await stack.enter_async_context(_opened(setup, on_lost))

        for outcome in await asyncio.gather(*(open_one() for _ in range(count)), return_exceptions=True):
            if isinstance(outcome, RemoteError):
                raise RemoteError(f"Not all of {count} silent sessions could be opened: {outcome}")
            if outcome is not None:
                raise outcome
        yield


@asynccontextmanager
async def _opened(setup: Setup, on_lost: Callable[[str], None] | None = None) -> AsyncIterator[None]:
    """A session that is set up and says nothing. `on_lost` hears why the server closed it, if it did."""
    record = Record(_NOTHING, setup.chunk_s)
    async with RealtimeClient.connect(setup.base_url, setup.api_key) as client:
        run = SessionRun(client, setup, record)
        reading = asyncio.create_task(run.read())
        try:
            await run.configure()
            yield
        finally:
            if record.problem and on_lost:
                on_lost(record.problem)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

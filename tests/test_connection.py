"""What a connection does between a session and a transport, with fakes at both ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fakes import MODELS, append, session_with

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.connection import Connection, ConnectionLimits
from auricle.protocol.ga import GaDialect
from auricle.session.jobs import Decode, DetectSpeech, Hypothesis, Job
from auricle.session.session import Session
from auricle.transports.base import TransportClosed

LIMITS = ConnectionLimits(max_session_s=60, max_backlog_s=1, max_outbox_bytes=20_000)


class FakeTransport:
    """A client that says what is put into `incoming`; None there means that it leaves."""

    def __init__(self, *, reads: bool = True) -> None:
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.sent: list[dict] = []
        self.closed: tuple[int, str] | None = None
        self._reads = reads

    async def receive(self) -> str | bytes:
        message = await self.incoming.get()
        if message is None:
            raise TransportClosed(1000)
        return message

    async def send(self, message: str) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.sent.append(json.loads(message))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def say(self, **event: object) -> None:
        self.incoming.put_nowait(json.dumps(event))


class FakeScheduler:
    """Gives every window as speech, and text only when told to."""

    def __init__(self) -> None:
        self.may_decode = asyncio.Event()
        self.released: list[str] = []

    async def run(self, job: Job) -> list[float] | Hypothesis:
        if isinstance(job, DetectSpeech):
            return [0.9] * (job.samples.size // WINDOW_SAMPLES)
        assert isinstance(job, Decode)
        await self.may_decode.wait()
        return Hypothesis()

    def release(self, session_id: str) -> None:
        self.released.append(session_id)


@asynccontextmanager
async def connected(
    transport: FakeTransport, scheduler: FakeScheduler, session: Session, limits: ConnectionLimits = LIMITS
) -> AsyncIterator[asyncio.Task[None]]:
    ids = iter(range(1_000_000))
    connection = Connection(
        transport, session, GaDialect(MODELS), scheduler, limits, lambda kind: f"{kind}_{next(ids)}"
    )
    task = asyncio.get_running_loop().create_task(connection.run())
    try:
        yield task
    finally:
        transport.incoming.put_nowait(None)
        await asyncio.wait_for(task, 5)


def say_append(transport: FakeTransport, windows: int) -> None:
    """The client sends audio; `append` of the fakes has it as bytes."""
    transport.say(type="input_audio_buffer.append", audio=base64.b64encode(append(windows).audio).decode())


async def settle(until: Callable[[], object] | None = None, step_s: float = 0) -> None:
    """Let everything run that can; with `until` for as long as it takes."""
    for _ in range(100_000 if until else 50):
        if until and until():
            return
        await asyncio.sleep(step_s)
    assert until is None


async def test_a_client_far_ahead_of_its_text_is_not_read_until_the_text_is_there() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_append(transport, 40)  # 1.28 s, more than may wait
        transport.say(type="input_audio_buffer.commit")
        say_append(transport, 1)
        await settle()
        assert transport.incoming.qsize() == 1
        scheduler.may_decode.set()
        await settle()
        assert transport.incoming.qsize() == 0
        assert transport.sent[-1]["type"].endswith("transcription.completed")


async def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.connection.GOODBYE_S", 0.01)
    monkeypatch.setattr("auricle.connection.SLOW_READER_S", 0.01)
    transport, scheduler = FakeTransport(reads=False), FakeScheduler()
    async with connected(transport, scheduler, session_with()) as task:
        for _ in range(500):
            transport.say(type="input_audio_buffer.clear")
        await asyncio.wait_for(task, 5)
    assert scheduler.released == ["sess_1"]
    assert transport.closed is None  # it could not read a goodbye


async def test_a_client_that_reads_may_ask_for_more_than_the_outbox_holds() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with()):
        for _ in range(1_000):
            transport.say(type="input_audio_buffer.clear")
        transport.say(type="conversation.item.retrieve", item_id="none", event_id="last")
        await settle(lambda: transport.sent[-1:] and transport.sent[-1]["type"] == "error")
    assert len(transport.sent) == 1_002
    assert transport.closed == (1000, "The client closed the connection.")


async def test_a_client_is_read_again_after_a_while_even_if_its_text_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("auricle.connection.PAUSE_S", 0.05)
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_append(transport, 40)
        transport.say(type="input_audio_buffer.commit")
        say_append(transport, 1)
        await settle()
        assert transport.incoming.qsize() == 1
        await settle(lambda: not transport.incoming.qsize(), step_s=0.01)


async def test_a_bug_ends_its_connection_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()

    async def broken(job: Job) -> list[float]:
        raise ZeroDivisionError

    scheduler.run = broken  # type: ignore[method-assign]
    async with connected(transport, scheduler, session_with()) as task:
        say_append(transport, 2)
        await asyncio.wait_for(task, 5)
    assert transport.closed is not None
    assert transport.closed[0] == 1011
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]

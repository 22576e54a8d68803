"""What a connection does between a session and a transport, with fakes at both ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
from fakes import MODELS, append, session_with

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.connection import Connection, ConnectionLimits
from auricle.errors import EngineError
from auricle.http.state import Call, ServerState
from auricle.protocol.config import WORDS
from auricle.protocol.ga import GaDialect
from auricle.session.jobs import Align, Alignment, Decode, DetectSpeech, Hypothesis, Job, Speech, Token
from auricle.session.session import Session
from auricle.session.speech import SURE_WINDOWS
from auricle.transports.base import TransportClosed

LIMITS = ConnectionLimits(max_session_s=60, max_backlog_s=1, max_outbox_bytes=20_000, model_wait_s=60)


class FakeTransport:
    """A client that says what is put into `incoming`; None there means that it leaves."""

    has_track = False

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
        self.jobs: list[Decode] = []
        self.taken_back: list[Decode] = []
        self.answer: Callable[[Decode], Hypothesis] = lambda _: Hypothesis()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.problem: EngineError | None = None
        """Why models can't be loaded."""
        self.used: list[str | None] = []
        """What the session's settings have named."""

    async def run(self, job: Job) -> Speech | Hypothesis:
        if isinstance(job, DetectSpeech):
            return Speech([0.9] * (job.samples.size // WINDOW_SAMPLES))
        assert isinstance(job, Decode)
        self.jobs.append(job)
        try:
            await self.may_decode.wait()
        except asyncio.CancelledError:
            self.taken_back.append(job)
            raise
        return self.answer(job)

    async def load(self, model: str) -> None:
        await self.may_load.wait()
        if self.problem:
            raise self.problem

    def use(self, session_id: str, model: str | None) -> None:
        self.used.append(model)

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
    monkeypatch.setattr("auricle.transports.outbox.SLOW_READER_S", 0.01)
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


async def test_a_goodbye_that_fails_keeps_nobody_waiting() -> None:
    class Broken(FakeTransport):
        async def close(self, code: int, reason: str) -> None:
            raise ZeroDivisionError

    connection = Connection(Broken(), session_with(), GaDialect(MODELS), FakeScheduler(), LIMITS, lambda kind: kind)
    task = asyncio.get_running_loop().create_task(connection.run())
    await settle()
    await asyncio.wait_for(connection.drain(0.01), 5)
    with pytest.raises(ZeroDivisionError):
        await task


async def test_the_end_of_the_server_waits_for_calls_until_they_are_free_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("auricle.http.state.CLOSE_S", 0.1)
    state = ServerState(
        **dict.fromkeys(field.name for field in fields(ServerState) if field.default is field.default_factory)
    )
    loop = asyncio.get_running_loop()
    soon, never = loop.create_task(asyncio.sleep(0.01)), loop.create_task(asyncio.Event().wait())
    state.calls = {str(task): Call(None, None, task) for task in (soon, never)}
    await asyncio.wait_for(state.drain(0.01), 5)
    assert soon.done()
    assert never.cancel()


def say_speech(transport: FakeTransport) -> None:
    """As much speech as is decoded while it goes on."""
    say_append(transport, SURE_WINDOWS)


def kinds(transport: FakeTransport) -> list[str]:
    return [event["type"].rpartition(".")[2] for event in transport.sent]


async def test_text_is_sent_while_the_client_speaks() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    good, day = Token(" Good", -0.1), Token(" day", -0.1)
    scheduler.answer = lambda job: Hypothesis((day,)) if job.is_final else Hypothesis((good,), (day,))
    scheduler.may_decode.set()
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_speech(transport)
        await settle(lambda: "delta" in kinds(transport))
        assert transport.sent[-1]["delta"] == "Good"
        transport.say(type="input_audio_buffer.commit")
        await settle(lambda: "completed" in kinds(transport))
    assert transport.sent[-1]["transcript"] == "Good day"
    assert [job.settled for job in scheduler.jobs] == [""]  # all of the speech is decoded when it is committed


async def test_the_end_takes_back_the_decoding_of_what_went_on() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    scheduler.answer = lambda job: Hypothesis((Token(f" {job.stage.name}", -0.1),))
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_speech(transport)
        await settle(lambda: scheduler.jobs)
        say_append(transport, 3)
        transport.say(type="input_audio_buffer.commit")
        await settle(lambda: len(scheduler.jobs) == 2)
        await settle()
        assert scheduler.taken_back == scheduler.jobs[:1]
        assert [job.is_final for job in scheduler.jobs] == [False, True]
        scheduler.may_decode.set()
        await settle(lambda: "completed" in kinds(transport))
    assert transport.sent[-1]["transcript"] == "FINAL"
    assert kinds(transport).count("delta") == 1


async def test_an_answer_that_comes_with_the_end_is_not_told_twice() -> None:
    """The answer is there and not looked at yet when a newer job takes the place of the one it belongs to."""
    transport, scheduler = FakeTransport(), FakeScheduler()
    scheduler.answer = lambda job: Hypothesis((Token(f" {job.stage.name}", -0.1),))
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_speech(transport)
        await settle(lambda: scheduler.jobs)
        say_append(transport, 3)
        transport.say(type="input_audio_buffer.commit")
        scheduler.may_decode.set()
        await settle(lambda: "completed" in kinds(transport))
    deltas = [event["delta"] for event in transport.sent if event["type"].endswith(".delta")]
    assert transport.sent[-1]["transcript"] == "".join(deltas)


async def test_ended_items_are_decoded_one_by_one_and_hold_up_no_speech() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        for _ in range(2):
            say_append(transport, 5)
            transport.say(type="input_audio_buffer.commit")
        say_speech(transport)
        await settle(lambda: len(scheduler.jobs) == 2)
        await settle()
        assert [job.is_final for job in scheduler.jobs] == [True, False]
        assert scheduler.taken_back == []
        scheduler.may_decode.set()
        await settle(lambda: kinds(transport).count("completed") == 2)
    assert [job.is_final for job in scheduler.jobs] == [True, False, True]


async def test_a_failure_while_the_client_speaks_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()

    def answer(job: Decode) -> Hypothesis:
        if not job.is_final:
            raise EngineError("Broken.")
        return Hypothesis((Token(" Yes.", -0.1),))

    scheduler.answer = answer
    scheduler.may_decode.set()
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_speech(transport)
        await settle(lambda: scheduler.jobs)
        transport.say(type="input_audio_buffer.commit")
        await settle(lambda: "completed" in kinds(transport))
    assert transport.sent[-1]["transcript"] == "Yes."
    assert "failed" not in kinds(transport)
    assert "Yes" not in caplog.text


async def test_leaving_takes_back_what_is_decoded() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with(turn_detection=None)):
        say_speech(transport)
        await settle(lambda: scheduler.jobs)
    await settle()
    assert scheduler.taken_back == scheduler.jobs


async def test_deleting_takes_back_what_is_decoded_and_what_waits_for_that() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with(turn_detection=None), replace(LIMITS, max_backlog_s=60)):
        for number in range(1, 4):
            say_append(transport, 20)
            transport.say(type="input_audio_buffer.commit")
            if number < 3:
                transport.say(type="conversation.item.delete", item_id=f"item_{number}")
        await settle(lambda: kinds(transport).count("committed") == 3)
        scheduler.may_decode.set()
        await settle()
    assert kinds(transport).count("deleted") == 2
    assert kinds(transport)[-1] == "completed"
    assert [job.stream_id for job in scheduler.jobs if job not in scheduler.taken_back] == ["item_3"]


async def test_times_of_words_do_not_wait_for_the_text_of_later_items() -> None:
    """An item is told when its words are placed, and those after it wait for that."""

    class Engine(FakeScheduler):
        async def run(self, job: Job) -> Any:
            if not isinstance(job, Decode | Align):
                return await super().run(job)
            order.append((type(job), job.stream_id))
            await self.may_decode.wait()
            await asyncio.sleep(0)
            return Alignment(((0, 512),)) if isinstance(job, Align) else Hypothesis((Token(" yes", -0.1),))

    order: list[tuple[type, str]] = []
    transport, engine = FakeTransport(), Engine()
    session = session_with(turn_detection=None, include=[WORDS], is_live=False)
    async with connected(transport, engine, session, replace(LIMITS, max_backlog_s=60)):
        for _ in range(4):
            say_append(transport, 10)
            transport.say(type="input_audio_buffer.commit")
        await settle(lambda: kinds(transport).count("committed") == 4)
        engine.may_decode.set()
        await settle(lambda: kinds(transport).count("completed") == 4)
    for number in (1, 2):
        assert order.index((Align, f"item_{number}")) < order.index((Decode, f"item_{number + 2}"))


# Models


def say_model(transport: FakeTransport, model: str) -> None:
    audio = {"input": {"transcription": {"model": model}}}
    transport.say(type="session.update", event_id="mine", session={"type": "transcription", "audio": audio})


async def test_an_update_is_answered_when_its_model_is_there() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with()):
        await settle()
        scheduler.may_load.clear()
        say_model(transport, "fake/many")
        transport.say(type="input_audio_buffer.clear")
        await settle()
        assert kinds(transport) == ["created"]
        assert scheduler.used == ["fake/english"]
        scheduler.may_load.set()
        await settle()
        assert kinds(transport) == ["created", "updated", "cleared"]
        assert scheduler.used == ["fake/english", "fake/many"]


async def test_an_update_does_not_wait_longer_than_it_may() -> None:
    """The Agents SDK gives up after 10 s. Speech then waits for the model instead."""
    transport, scheduler = FakeTransport(), FakeScheduler()
    scheduler.may_load.clear()
    async with connected(transport, scheduler, session_with(), replace(LIMITS, model_wait_s=0.01)):
        say_model(transport, "fake/many")
        await settle(lambda: len(transport.sent) == 2, step_s=0.01)
    assert kinds(transport) == ["created", "updated"]
    assert scheduler.used[-1] == "fake/many"


async def test_a_model_that_cannot_be_loaded_refuses_the_update() -> None:
    transport, scheduler = FakeTransport(), FakeScheduler()
    async with connected(transport, scheduler, session_with()):
        await settle()
        scheduler.problem = EngineError("It is nowhere.")
        say_model(transport, "fake/many")
        await settle()
        say_model(transport, "fake/english")
        await settle()
    assert kinds(transport) == ["created", "error", "updated"]
    assert transport.sent[1]["error"] == {
        "type": "server_error",
        "code": "model_unavailable",
        "message": "It is nowhere.",
        "param": "session.audio.input.transcription.model",
        "event_id": "mine",
    }
    assert scheduler.used == ["fake/english", "fake/english"]

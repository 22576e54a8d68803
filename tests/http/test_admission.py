"""Who is let in while there is more speech than the server can transcribe. A whole server, but for its models.

Its worker decodes ended speech when a test lets it, and its scheduler's clock stands still until a test sets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import httpx
import numpy as np
import pytest
from clips import silence
from fakes import LengthEngine, LoudnessDetector
from pydantic import ValidationError
from websockets.exceptions import ConnectionClosed
from wire import COMMITTED, COMPLETED, CREATED, MODEL, VAD, DialectName, Wire, kinds, open_wire

from auricle.audio.formats import SAMPLE_RATE
from auricle.engines.base import Decode, Hypothesis, Stage
from auricle.http.app import create_app
from auricle.http.server import Server, bound_socket
from auricle.http.state import ServerState
from auricle.scheduler import BatchScheduler
from auricle.settings import Settings

MAX_SESSIONS = 5
MAX_LAG_S = 2.0
VOICE = np.full(SAMPLE_RATE, 0.9, np.float32)
"""A second of what the detector takes for speech."""


class HeldWorker:
    """Decodes speech that goes on at once, and ended speech when it may. Has the face of `Worker`."""

    works_since_s = 0.0

    def __init__(self) -> None:
        self.has_begun = threading.Semaphore(0)
        """Counts the decodings of ended speech."""
        self.may_decode = threading.Event()

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.may_decode.set()

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        if any(job.stage is Stage.FINAL for job in jobs):
            self.has_begun.release()
            self.may_decode.wait()
        return LengthEngine().decode(jobs)


class OverloadableServer:
    """A server in a thread, and what a test does to it."""

    def __init__(self) -> None:
        self.worker = HeldWorker()
        self.detector = LoudnessDetector()
        self.now_s = 100.0
        settings = Settings(port=0, max_sessions=MAX_SESSIONS, max_lag_s=MAX_LAG_S)
        app = create_app(settings)
        state: ServerState = app.state.server
        workers = {model.name: self.worker for model in state.models.models}
        state.scheduler = BatchScheduler(self.detector, state.models, workers, clock=lambda: self.now_s)
        self._is_ready = threading.Event()
        self._server = Server(settings, app, self._note_url)
        self._socket = bound_socket("127.0.0.1", 0)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([self._socket])))

    def _note_url(self, base_url: str) -> None:
        self.base_url = base_url
        self.socket_url = base_url.replace("http", "ws", 1) + "/realtime"
        self._is_ready.set()

    def start(self) -> None:
        self._thread.start()
        assert self._is_ready.wait(20)

    def stop(self) -> None:
        self.worker.may_decode.set()
        self._server.should_exit = True
        self._thread.join()

    def ask_for_key(self, kind: str = "client_secrets") -> httpx.Response:
        return httpx.post(f"{self.base_url}/realtime/{kind}", headers={"Authorization": "Bearer any-key"})

    def sessions(self) -> int:
        return httpx.get(self.base_url.removesuffix("/v1") + "/health").json()["sessions"]

    def let_time_pass_until(self, condition: Callable[[], bool]) -> None:
        """Seconds go by in no time: what has come in by then has waited for long."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            self.now_s += 2 * MAX_LAG_S
            time.sleep(0.01)

    def wait_for_sessions(self, count: int) -> None:
        """Sessions end a moment after their clients have left."""
        deadline = time.monotonic() + 20
        while self.sessions() != count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[OverloadableServer]:
    running = OverloadableServer()
    running.start()
    yield running
    running.stop()


def set_up(wire: Wire, turn_detection: object = None) -> Wire:
    wire.update(transcription=MODEL, turn_detection=turn_detection)
    return wire


def speak(wire: Wire) -> None:
    """A second of speech, committed."""
    wire.append(VOICE)
    wire.commit()
    wire.until(COMMITTED)


@contextlib.contextmanager
def two_speakers(server: OverloadableServer) -> Iterator[tuple[Wire, Wire]]:
    """Two who have spoken. The first one's text is being found, and the other's waits."""
    with open_wire(server.socket_url) as one, open_wire(server.socket_url) as two:
        speak(set_up(one))
        assert server.worker.has_begun.acquire(timeout=20)
        speak(set_up(two))
        yield one, two


def is_overloaded(server: OverloadableServer) -> bool:
    return server.ask_for_key().status_code == 503


def assert_text_is_whole(wire: Wire, items: int) -> None:
    wire.finish()
    assert kinds(wire.events).count(COMMITTED) == kinds(wire.events).count(COMPLETED) == items
    assert all(text.endswith(" samples") for text in wire.transcripts)


def test_no_session_is_opened_while_speech_waits_too_long(server: OverloadableServer) -> None:
    with two_speakers(server) as speakers:
        assert not is_overloaded(server)
        server.let_time_pass_until(lambda: is_overloaded(server))
        dialects: tuple[DialectName, ...] = ("ga", "beta")
        for dialect in dialects:
            with open_wire(server.socket_url, dialect) as refused:
                error = refused.receive()["error"]
                assert (error["type"], error["code"]) == ("server_error", "server_overloaded")
                assert refused.goodbye() == (1013, "server_error.server_overloaded")
        assert server.sessions() == 2
        server.worker.may_decode.set()
        for speaker in speakers:
            assert_text_is_whole(speaker, 1)
        server.let_time_pass_until(lambda: not is_overloaded(server))
        with open_wire(server.socket_url) as late:
            speak(set_up(late))
            assert_text_is_whole(late, 1)


@pytest.mark.parametrize("kind", ["client_secrets", "transcription_sessions"])
def test_a_key_that_would_open_no_session_is_refused_with_503(server: OverloadableServer, kind: str) -> None:
    with two_speakers(server):
        server.let_time_pass_until(lambda: is_overloaded(server))
        response = server.ask_for_key(kind)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["error"]["code"] == "server_overloaded"


def test_no_key_is_made_while_all_sessions_are_in_use(server: OverloadableServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_SESSIONS):
            stack.enter_context(open_wire(server.socket_url)).receive()
        response = server.ask_for_key()
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert "in use" in response.json()["error"]["message"]
    server.wait_for_sessions(0)
    assert server.ask_for_key().status_code == 200


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("turn_detection", [None, VAD])
def test_the_first_words_of_a_silent_session_are_refused_and_others_go_on(
    server: OverloadableServer, dialect: DialectName, turn_detection: object
) -> None:
    with two_speakers(server) as (one, two), open_wire(server.socket_url, dialect) as silent:
        session_id = silent.until(CREATED[dialect])[-1]["session"]["id"]
        set_up(silent, turn_detection)
        silent.append(silence(1))
        server.let_time_pass_until(lambda: is_overloaded(server))
        silent.update()  # silence costs nothing, and is not refused
        with contextlib.suppress(ConnectionClosed):
            silent.append(VOICE)
            silent.append(silence(1))
            silent.commit()
        assert silent.goodbye() == (1013, "server_error.server_overloaded")
        assert silent.events[-1]["type"] == "error"
        assert silent.events[-1]["error"]["code"] == "server_overloaded"
        assert kinds(silent.events).count("error") == 1
        server.wait_for_sessions(2)
        assert server.detector.released == [session_id]

        speak(two)
        server.worker.may_decode.set()
        assert_text_is_whole(one, 1)
        assert_text_is_whole(two, 2)
    server.wait_for_sessions(0)


def test_one_client_far_ahead_of_its_text_is_no_overload(server: OverloadableServer) -> None:
    """Whoever comes next is decoded after the one item that is being decoded now."""
    with open_wire(server.socket_url) as hasty, open_wire(server.socket_url) as other:
        set_up(hasty)
        for _ in range(5):
            speak(hasty)
        assert server.worker.has_begun.acquire(timeout=20)
        server.now_s += 10 * MAX_LAG_S
        speak(set_up(other))
        server.worker.may_decode.set()
        assert_text_is_whole(hasty, 5)
        assert_text_is_whole(other, 1)


def test_a_limit_of_no_lag_at_all_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(max_lag_s=0)

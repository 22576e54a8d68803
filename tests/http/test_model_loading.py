"""When a model is in memory: loaded with the server or when it is named, unloaded when nobody needs it any more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import tiny_whisper
from clips import ULAW
from conftest import RunningServer, start_server
from tiny_whisper import QUIET
from wire import COMPLETED, DELTA, FAILED, UPDATED, DialectName, best_of_times, kinds, open_wire

from auricle.engines.moonshine import embedded_folder

COPY, LOST, UNFETCHED = "moonshine/copy", "moonshine/lost", "whisper/small"
MINI, FIRST = "whisper/mini", "whisper/first"
EMBEDDED = "moonshine/tiny-en"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_whisper.build(folder / "mini")
    return folder


def models(folder: Path, **first: object) -> str:
    mini = {"path": str(folder / "mini"), "device": "cpu"}
    copy = {"path": str(embedded_folder())}
    return json.dumps({COPY: copy, LOST: {"path": str(folder / "lost")}, MINI: mini, FIRST: mini | first})


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    """A server that keeps models for a second."""
    running = start_server(
        AURICLE_MODELS=models(folder, load="start"),
        AURICLE_ALIASES=json.dumps({"whisper-1": UNFETCHED}),
        AURICLE_MODEL_IDLE_S="1",
        AURICLE_MODEL_WAIT_S="60",  # however busy the machine is
        HF_HOME=str(folder),
    )
    yield running
    running.stop()


def processes(server: RunningServer) -> int:
    """How many models are in memory: each has a process."""
    count = 0
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.Error):  # it has just ended
            count += "spawn_main" in " ".join(child.cmdline())
    return count


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_models_are_there_from_the_start_or_as_long_as_a_session_names_them(server: RunningServer) -> None:
    until(lambda: processes(server) == 2)  # the default one, and one whose `load` says so
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": COPY}, turn_detection=None)
        assert processes(server) == 3
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]
        time.sleep(2)  # longer than an unused model is kept
        assert processes(server) == 3
        wire.update(transcription={"model": FIRST})
        until(lambda: processes(server) == 2)
        wire.update(transcription={"model": COPY})
        assert processes(server) == 3
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]
    until(lambda: processes(server) == 2)
    assert any(f"The model {COPY} was not needed for 1 s" in line for line in server.output)


@pytest.mark.parametrize("route", ["client_secrets", "transcription_sessions"])
def test_an_ephemeral_key_begins_to_load_its_model(server: RunningServer, route: str) -> None:
    until(lambda: processes(server) == 2)
    transcription = {"model": COPY}
    body = (
        {"session": {"type": "transcription", "audio": {"input": {"transcription": transcription}}}}
        if route == "client_secrets"
        else {"input_audio_transcription": transcription}
    )
    assert httpx.post(f"{server.base_url}/realtime/{route}", json=body).status_code == 200
    until(lambda: processes(server) == 3)
    until(lambda: processes(server) == 2)  # nobody has come to use it


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_what_is_sent_while_a_model_is_loaded_is_taken_in_its_order(
    server: RunningServer, dialect: DialectName
) -> None:
    until(lambda: processes(server) == 2)
    with open_wire(server.socket_url, dialect) as wire:
        wire.send_update(transcription={"model": MINI}, turn_detection=None, format={"type": "audio/pcmu"})
        wire.append(best_of_times(), ULAW)
        wire.commit()
        wire.send_update(transcription={"model": EMBEDDED}, format={"type": "audio/pcm", "rate": 24_000})
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
        wire.until(COMPLETED)
        told = kinds(wire.events)
        assert told.index(UPDATED[dialect]) < told.index(DELTA)
        assert wire.transcripts[0] == QUIET.strip()
        assert "best of times" in wire.transcripts[1]


@pytest.mark.parametrize(
    ("dialect", "param"),
    [("ga", "session.audio.input.transcription.model"), ("beta", "session.input_audio_transcription.model")],
)
@pytest.mark.parametrize(
    ("model", "told"),
    [(LOST, "moonshine/lost can't be loaded: there is no folder"), ("whisper-1", "auricle models pull whisper/small")],
)
def test_weights_that_are_not_there_refuse_the_update(
    server: RunningServer, dialect: DialectName, param: str, model: str, told: str
) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        before = wire.update(transcription={"model": EMBEDDED}, turn_detection=None)
        wire.send_update("mine", transcription={"model": model}, turn_detection={"type": "server_vad"})
        error = wire.until("error")[-1]["error"]
        assert told in error.pop("message")
        assert error == {"type": "server_error", "code": "model_unavailable", "param": param, "event_id": "mine"}
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]
        assert wire.update() == before


def test_weights_that_are_not_there_are_told_to_a_session_that_opens_with_them(server: RunningServer) -> None:
    with open_wire(server.socket_url, query=f"model={LOST}") as wire:
        assert wire.receive()["type"] == "session.created"
        error = wire.until("error")[-1]["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("model_unavailable", None, None)
        assert str(LOST) in error["message"]
        wire.update(turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        failed = wire.until(FAILED)[-1]["error"]
        assert (failed["type"], failed["code"]) == ("server_error", "transcription_error")
        assert error["message"] in failed["message"]
        wire.update(transcription={"model": EMBEDDED})
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]


def test_a_change_of_the_model_holds_for_the_next_item(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": EMBEDDED}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        wire.send_update(transcription={"model": MINI})
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
        wire.until(COMPLETED)
        assert "best of times" in wire.transcripts[0]
        assert wire.transcripts[1] == QUIET.strip()


def test_an_update_waits_no_longer_than_it_may_and_speech_then_waits_for_the_model(
    server_with: Callable[..., RunningServer], folder: Path
) -> None:
    server = server_with(AURICLE_MODELS=models(folder), AURICLE_MODEL_WAIT_S="0")
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": COPY}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]


def test_a_model_that_cannot_be_loaded_at_the_start_leaves_the_server_up(
    server_with: Callable[..., RunningServer], folder: Path
) -> None:
    lost = json.dumps({LOST: {"path": str(folder / "lost"), "load": "start"}})
    server = server_with(AURICLE_MODELS=lost)
    assert any("moonshine/lost can't be loaded: " in line for line in server.output)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": EMBEDDED})

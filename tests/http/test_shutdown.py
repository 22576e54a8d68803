"""How the server ends: with open items brought to an end, a goodbye to every client, and nothing left behind.

Also its log, since the line about a session is written when the session ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import psutil
import pytest
from clips import silence
from conftest import RunningServer
from wire import BEST_OF_TIMES, COMMITTED, COMPLETED, DONE, FAILED, STARTED, STOPPED, best_of_times, open_wire, spoken
from words import word_error_rate

END_TIMEOUT_S = 5
"""How long the server may take to end: a promise of the command line."""
MODEL = "moonshine/tiny-en"
VAD = {"type": "server_vad", "silence_duration_ms": 500}


def processes_of(server: RunningServer) -> list[psutil.Process]:
    """The server's process and those below it."""
    process = psutil.Process(server.process.pid)
    return [process, *process.children(recursive=True)]


def worker_of(server: RunningServer) -> psutil.Process:
    """The process that decodes. Suspended, it stands for one that is busy or hangs."""
    [worker] = [process for process in processes_of(server)[1:] if "spawn_main" in " ".join(process.cmdline())]
    return worker


def assert_ended(server: RunningServer, processes: list[psutil.Process]) -> None:
    """Fail unless the server ended in time and well, and its worker too."""
    assert server.process.wait(END_TIMEOUT_S) == 0, "\n".join(server.output)
    assert len(processes) > 1, "there was no worker"
    _, left = psutil.wait_procs(processes, timeout=1)
    # Whose parent is gone waits to be reaped by the init process, which not every container has.
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    assert "Traceback" not in "\n".join(server.output)


def test_a_signal_ends_an_idle_server(server_with):
    server = server_with()
    processes = processes_of(server)
    with open_wire(server.socket_url) as wire:
        wire.until("session.created")
        server.process.send_signal(signal.SIGTERM)
        code, reason = wire.goodbye()
    assert code == 1001
    assert reason
    assert_ended(server, processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_the_whole_process_group_still_finishes_an_open_item(server_with, number: signal.Signals):
    """A terminal's Ctrl-C and a service manager's stop reach the worker too, which must not leave before its work."""
    server = server_with()
    processes = processes_of(server)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMMITTED)
        os.killpg(server.process.pid, number)
        assert wire.goodbye()[0] == 1001
    assert word_error_rate(BEST_OF_TIMES, wire.text) < 0.2
    assert_ended(server, processes)
    assert not any("started again" in line for line in server.output)


def test_an_open_turn_is_ended_and_completed(server_with):
    server = server_with()
    processes = processes_of(server)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=VAD)
        # No silence follows, so the turn would go on.
        wire.append(best_of_times()[: 4 * 16_000])
        wire.until(STARTED)
        server.process.send_signal(signal.SIGTERM)
        assert wire.goodbye()[0] == 1001
    kinds = [event["type"] for event in wire.events]
    assert kinds.count(STARTED) == kinds.count(STOPPED) == kinds.count(COMPLETED)
    assert wire.text
    assert_ended(server, processes)


def test_a_worker_that_hangs_fails_its_items_and_does_not_keep_the_server_from_ending(server_with):
    server = server_with()
    processes = processes_of(server)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=None)
        worker_of(server).suspend()
        for _ in range(2):
            wire.append(best_of_times())
            wire.commit()
            wire.until(COMMITTED)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(END_TIMEOUT_S) == 0
        assert wire.goodbye()[0] == 1001
    committed = [event["item_id"] for event in wire.events if event["type"] == COMMITTED]
    failed = [event for event in wire.events if event["type"] == FAILED]
    assert [event["item_id"] for event in failed] == committed
    assert all(event["error"]["type"] == "server_error" for event in failed)
    assert_ended(server, processes)


def test_a_second_signal_does_no_harm(server_with):
    server = server_with()
    processes = processes_of(server)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=None)
        worker = worker_of(server)
        worker.suspend()
        wire.append(best_of_times())
        wire.commit()
        wire.until(DONE)
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGINT)
        worker.resume()
        wire.goodbye()
    assert_ended(server, processes)


def test_no_session_is_taken_while_the_server_ends(server_with):
    """The port is closed, or the socket is told so: never a session that ends in the middle."""
    server = server_with()
    processes = processes_of(server)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=None)
        worker = worker_of(server)
        worker.suspend()
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMMITTED)
        server.process.send_signal(signal.SIGTERM)
        outcome = _try_until_refused(server)
        worker.resume()
        wire.goodbye()
    assert outcome in (None, 1013)
    assert_ended(server, processes)


def _try_until_refused(server: RunningServer) -> int | None:
    """Open sessions until one isn't taken. Returns the code it is closed with, or None where nobody listens."""
    while True:
        try:
            with open_wire(server.socket_url) as late:
                if late.receive()["type"] == "error":
                    return late.goodbye()[0]
        except OSError:
            return None


# The log


def _log_of(server: RunningServer) -> str:
    """All that the server wrote after it was ready."""
    server.stop()
    return "\n".join(server.output)


def _logged_sessions(server: RunningServer) -> list[dict[str, Any]]:
    """The lines about sessions of a server that logs JSON. Fails if any line of its log is something else."""
    lines = [json.loads(line) for line in _log_of(server).splitlines() if line.startswith("{")]
    assert not [line for line in server.output if re.match(r"\d{4}-", line)], "a line of the log is no JSON"
    assert all({"level", "message"} <= set(line) for line in lines)
    return [line for line in lines if line["message"] == "session ended"]


def test_each_session_is_one_line_that_tells_how_it_was(server_with):
    server = server_with("--log-json")
    with open_wire(server.socket_url) as wire:
        session_id = wire.until("session.created")[-1]["session"]["id"]
        wire.update(transcription={"model": "whisper-1"}, turn_detection=None)
        for _ in range(2):
            wire.append(silence(1.0))
            wire.commit()
        wire.finish()
    with open_wire(server.socket_url, "beta") as wire:
        beta_id = wire.until("transcription_session.created")[-1]["session"]["id"]
        server.process.send_signal(signal.SIGTERM)
        wire.goodbye()
    server.process.wait(END_TIMEOUT_S)
    first, second = _logged_sessions(server)
    assert (first["session"], first["dialect"], first["model"]) == (session_id, "ga", "whisper-1")
    assert (first["items"], first["code"]) == (2, 1000)
    assert first["audio_s"] == pytest.approx(2.0, abs=0.05)
    assert first["reason"]
    assert (second["session"], second["dialect"], second["model"]) == (beta_id, "beta", None)
    assert (second["items"], second["code"], second["audio_s"]) == (0, 1001, 0)
    assert second["reason"] != first["reason"]


@pytest.mark.parametrize("flags", [[], ["--log-json"]], ids=["people", "json"])
def test_the_log_has_no_key_no_audio_and_no_text_even_at_its_most_talkative(server_with, flags: list[str]):
    server = server_with("--log-level", "debug", "--api-keys", "secret-key-of-the-test", *flags)
    prompt = "Dickens-and-his-tale"
    with open_wire(server.socket_url, key="secret-key-of-the-test") as wire:
        wire.update(transcription={"model": MODEL, "prompt": prompt}, turn_detection=VAD)
        wire.append(spoken(best_of_times()))
        wire.until(COMPLETED)
        wire.append_bytes(b"")  # refused, with a message about it
        wire.until("error")
    with open_wire(server.socket_url, key="wrong-key-of-the-test") as wire:
        wire.goodbye()
    log = _log_of(server)
    [line] = [line for line in log.splitlines() if "session ended" in line]
    for field in ("session", "dialect", "model", "audio_s", "items", "code", "reason"):
        assert f'"{field}": ' in line if flags else f" {field}=" in line
    assert "key-of-the-test" not in log
    assert prompt not in log
    assert not re.search(r"\b(best|worst) of\b", log, re.IGNORECASE)
    assert not re.search(r"[A-Za-z0-9+/=]{120,}", log), "that looks like audio"

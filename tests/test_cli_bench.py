"""`auricle bench` as a process of its own, against a real server and against ones that misbehave."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import RunningServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

NOBODY = "http://127.0.0.1:9/v1"


def bench(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
    return subprocess.run(
        [sys.executable, "-m", "auricle", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"COLUMNS": "200"} | variables,
    )


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    assert result.stdout == ""
    [line] = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    return line


@contextmanager
def fake_server(answer: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> Iterator[str]:
    """A server that says what it likes to each event, and then nothing. Yields its base URL."""

    def talk(connection: ServerConnection) -> None:
        try:
            for message in connection:
                for event in answer(json.loads(message)):
                    connection.send(json.dumps(event))
        except ConnectionClosed:
            pass

    with serve(talk, "127.0.0.1", 0, close_timeout=1) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.socket.getsockname()[1]}/v1"
        running.shutdown()
        thread.join()


# Against a real server


@pytest.fixture(scope="module")
def result(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """What two sessions with the embedded clip print, write and draw."""
    folder = tmp_path_factory.mktemp("bench")
    process = bench(
        *("--url", server.base_url, "--pid", server.process.pid, "--speed", 12, "--ramp-s", 1),
        *("--sessions", 2, "--idle", 3, "--json", folder / "bench.json", "--chart", folder / "bench.png"),
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout, json.loads((folder / "bench.json").read_text()), folder / "bench.png"


def test_accuracy_and_latency_are_written(result: tuple[str, dict[str, Any], Path]):
    [run] = result[1]["runs"]
    assert (run["clips"], run["sessions"], run["idle_sessions"], run["speed"]) == (2, 2, 3, 12)
    assert run["audio_s"] == pytest.approx(2 * 45.6, abs=0.5)
    accuracy = run["accuracy"]["clean"]
    assert accuracy["clips"] == 2
    assert accuracy["words"] == 238
    assert 0 < accuracy["wer_percent"] < 10
    measured = run["latency_ms"]
    assert {"first_delta", "last_word_to_completed", "stop_to_completed", "committed_to_completed"} == set(measured)
    assert measured["first_delta"]["count"] == 2
    assert measured["stop_to_completed"]["count"] >= 8
    for values in measured.values():
        assert 0 < values["p50"] <= values["p95"] <= values["p99"] <= values["max"]


def test_nothing_is_amiss_with_our_server(result: tuple[str, dict[str, Any], Path]):
    [run] = result[1]["runs"]
    assert run["violations"] == {"taken_back": 0, "wrong_order": 0, "missing_item": 0, "no_end": 0}
    assert run["errors"] == {}
    assert run["generator"]["late_ms"]["count"] == run["generator"]["held_ms"]["count"] == 2 * 456


def test_the_servers_cost_is_written(result: tuple[str, dict[str, Any], Path]):
    usage = result[1]["runs"][0]["server"]
    assert usage["cpu_s"] > 0
    assert usage["cpu_percent_per_stream"] == pytest.approx(100 * usage["cpu_s"] / (2 * 45.6), rel=0.05)
    assert 50 < usage["memory_mib"] <= usage["peak_memory_mib"] < 5000


def test_each_recordings_text_is_written_and_no_key(result: tuple[str, dict[str, Any], Path]):
    first = result[1]["runs"][0]["results"][0]
    assert first["transcript"].startswith("It was the best of times")
    assert "superlative degree of comparison" in first["reference"]
    assert result[1]["options"]["turn_detection"] == "server_vad:500"
    assert "api_key" not in result[1]["options"]


def test_tables_are_printed_and_a_picture_drawn(result: tuple[str, dict[str, Any], Path]):
    text, _, chart = result
    for told in ("WER %", "p99", "end of speech → completed", "Promises", "Generator", "% of a core", "3 silent"):
        assert told in text
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_search_for_the_capacity_says_how_far_it_came(server: RunningServer, tmp_path: Path):
    process = bench(
        *("--url", server.base_url, "--find-capacity", "--max-sessions", 1, "--step-s", 5),
        *(
            "--p95-ms",
            20_000,
            "--turn-detection",
            "server_vad:200",
            "--json",
            tmp_path / "bench.json",
            "--chart",
            tmp_path / "bench.svg",
        ),
    )
    assert process.returncode == 0, process.stdout + process.stderr
    capacity = json.loads((tmp_path / "bench.json").read_text())["capacity"]
    assert [(step["sessions"], step["is_passed"]) for step in capacity["steps"]] == [(1, True)]
    assert capacity["sessions"] == 1
    assert "1 session or more (--max-sessions) at a time" in process.stdout
    assert (tmp_path / "bench.svg").read_text().startswith("<?xml")


# Against servers that misbehave


def promise_breaker(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Takes a delta back, and leaves an item open."""
    prefix = "conversation.item.input_audio_transcription"
    answers: dict[str, list[dict[str, Any]]] = {
        "session.update": [{"type": "session.updated"}],
        "input_audio_buffer.commit": [
            {"type": "input_audio_buffer.committed", "item_id": "a", "previous_item_id": None},
            {"type": "conversation.item.added", "item": {"id": "a"}},
            {"type": f"{prefix}.delta", "item_id": "a", "delta": "It is"},
            {"type": f"{prefix}.completed", "item_id": "a", "transcript": "It was"},
            {"type": "input_audio_buffer.committed", "item_id": "b", "previous_item_id": "a"},
            {"type": "conversation.item.added", "item": {"id": "b"}},
        ],
    }
    return answers.get(event["type"], [])


def test_broken_promises_are_printed_and_make_the_command_fail(tmp_path: Path):
    with fake_server(promise_breaker) as url:
        flags = ["--url", url, "--speed", 0, "--turn-detection", "none", "--timeout-s", 1]
        process = bench(*flags, "--json", tmp_path / "bench.json")
    assert process.returncode == 1
    [run] = json.loads((tmp_path / "bench.json").read_text())["runs"]
    assert run["violations"] == {"taken_back": 1, "wrong_order": 0, "missing_item": 0, "no_end": 1}
    assert run["errors"]["connection"]["count"] == 1
    assert re.search(r"deltas taken back: 1", process.stdout)
    assert "'It is'" in process.stdout
    assert "Nothing was told for 1 s" in process.stdout


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--url", NOBODY], "No connection to ws://127.0.0.1:9/"),
        (["--audio", "nowhere"], "nowhere/manifest.jsonl"),
        (["--kind", "loud"], "'loud'"),
        (["--format", "mp3"], "--format: 'mp3'"),
        (["--pid", "999999999", "--url", NOBODY], "999999999"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_measured_is_told_in_one_line(flags: list[str], told: str):
    assert told in error_line(bench(*flags))


def test_a_server_that_refuses_the_settings_is_told(server: RunningServer):
    assert "'nope'" in error_line(bench("--url", server.base_url, "--model", "nope"))


def test_a_server_that_does_not_start_is_told():
    assert "did not start" in error_line(bench(AURICLE_MODEL="nope"))


def test_packages_that_are_missing_are_told_with_the_command_that_installs_them():
    program = "import sys; sys.modules['matplotlib'] = None; from auricle.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", program, "bench"], capture_output=True, text=True, timeout=30)
    assert "(matplotlib)" in error_line(result)
    assert "pip install 'auricle[bench]'" in error_line(result)

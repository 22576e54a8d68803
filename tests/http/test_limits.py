"""Every limit of a server, hit from outside."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from clips import wire_bytes
from conftest import RunningServer, start_server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wire import (
    CLEARED,
    COMMITTED,
    COMPLETED,
    FIRST_WORDS,
    MODEL,
    STARTED,
    STOPPED,
    VAD,
    DialectName,
    best_of_times,
    kinds,
    open_wire,
    opening,
    spoken,
)
from words import word_error_rate

MAX_ITEM_S = 2
MAX_SESSIONS = 2
MAX_EVENT_BYTES = 512 * 1024


@pytest.fixture(scope="module")
def small() -> Iterator[RunningServer]:
    """A server on which everything but a session's length is limited to little."""
    running = start_server(
        AURICLE_MAX_ITEM_S=str(MAX_ITEM_S),
        AURICLE_MAX_SESSIONS=str(MAX_SESSIONS),
        AURICLE_MAX_EVENT_BYTES=str(MAX_EVENT_BYTES),
        AURICLE_MAX_OUTBOX_BYTES=str(1024 * 1024),
        AURICLE_MAX_BACKLOG_S="1",
        AURICLE_KEPT_AUDIO_S="3",
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def brief() -> Iterator[RunningServer]:
    """A server whose sessions take a second and a half."""
    running = start_server(AURICLE_MAX_SESSION_S="1.5")
    yield running
    running.stop()


def wait_for_sessions(server: RunningServer, count: int) -> None:
    """Wait until as many sessions are open: a session ends a moment after its client has left."""
    deadline = time.monotonic() + 20
    while (sessions := httpx.get(f"{server.root_url}/health").json()["sessions"]) != count:
        assert time.monotonic() < deadline, f"{sessions} sessions are open"
        time.sleep(0.02)


# Length of a session


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_session_ends_with_an_error_and_1001_when_its_time_is_up(brief: RunningServer, dialect: DialectName) -> None:
    with open_wire(brief.socket_url, dialect) as wire:
        expires_at = wire.receive()["session"]["expires_at"]
        assert abs(expires_at - time.time()) < 3
        error = wire.receive()["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "session_expired", None)
        assert error["message"].startswith("Your session hit the maximum duration of ")
        # The service gives the error's message as the reason, and so does LiveKit's user see it.
        assert wire.goodbye() == (1001, error["message"])


def test_session_that_is_in_use_ends_all_the_same(brief: RunningServer) -> None:
    with open_wire(brief.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(best_of_times())
        assert wire.goodbye()[0] == 1001
    assert [event["error"]["code"] for event in wire.events if event["type"] == "error"] == ["session_expired"]
    wait_for_sessions(brief, 0)


# Audio of an item


def test_audio_over_an_items_length_is_refused_until_it_is_committed(small: RunningServer) -> None:
    second = wire_bytes(best_of_times()[16_000:32_000])
    with open_wire(small.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        for _ in range(MAX_ITEM_S):
            wire.append_bytes(second)
        wire.send("input_audio_buffer.append", audio=base64.b64encode(second).decode(), event_id="mine")
        error = wire.until("error")[-1]["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_full", "mine")
        wire.commit()
        item_id = wire.until(COMPLETED)[-1]["item_id"]
        audio = base64.b64decode(wire.retrieve(item_id)["content"][0]["audio"])
        assert len(audio) == pytest.approx(MAX_ITEM_S * 48_000, abs=48)
        wire.append_bytes(second)
        wire.commit()
        wire.until(COMPLETED)


def test_full_buffer_can_be_cleared(small: RunningServer) -> None:
    with open_wire(small.socket_url) as wire:
        wire.update(turn_detection=None)
        for _ in range(2):
            wire.append_bytes(bytes(MAX_ITEM_S * 48_000))
            wire.clear()
            wire.until(CLEARED)


def test_detected_turn_is_cut_at_an_items_length_and_no_audio_is_lost(small: RunningServer) -> None:
    with open_wire(small.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(spoken(opening()))
        wire.finish()
    starts = [event["audio_start_ms"] for event in wire.events if event["type"] == STARTED]
    ends = [event["audio_end_ms"] for event in wire.events if event["type"] == STOPPED]
    assert len(starts) == len(ends) > 5
    assert all(end - start <= MAX_ITEM_S * 1000 + 32 for start, end in zip(starts, ends, strict=True))
    gaps = [start - end for start, end in zip(starts[1:], ends, strict=False)]
    assert all(0 <= gap < 500 for gap in gaps)
    assert gaps.count(0) > 3  # where the speaker had not paused, the next goes on where the last ended
    assert word_error_rate(FIRST_WORDS, wire.text) < 0.6  # words are cut in two


def test_only_the_newest_audio_stays_retrievable(small: RunningServer) -> None:
    """3 s are kept, an item has 2 s: so of two items the older has none left."""
    with open_wire(small.socket_url) as wire:
        wire.update(turn_detection=None)
        ids = []
        for _ in range(2):
            wire.append_bytes(bytes(MAX_ITEM_S * 48_000))
            wire.commit()
            ids.append(wire.until(COMMITTED)[-1]["item_id"])
        wire.update()
        old, new = [wire.retrieve(item_id)["content"][0] for item_id in ids]
    assert "audio" not in old
    assert new["audio"]


# Size of an event


def test_event_over_the_limit_closes_with_1009(small: RunningServer) -> None:
    with open_wire(small.socket_url) as wire:
        wire.receive()
        wire.socket.send(json.dumps({"type": "nonsense", "padding": "x" * MAX_EVENT_BYTES}))
        assert wire.goodbye()[0] == 1009
    wait_for_sessions(small, 0)


def test_event_just_under_the_limit_is_taken(small: RunningServer) -> None:
    with open_wire(small.socket_url) as wire:
        wire.receive()
        event = json.dumps({"type": "input_audio_buffer.clear", "padding": ""})
        wire.socket.send(event.replace('""', '"' + "x" * (MAX_EVENT_BYTES - len(event)) + '"'))
        wire.until(CLEARED)


# Number of sessions


def test_session_too_many_is_told_to_come_back_and_closed_with_1013(small: RunningServer) -> None:
    wait_for_sessions(small, 0)
    with open_wire(small.socket_url) as one:
        one.receive()
        with open_wire(small.socket_url) as two:
            two.receive()
            for dialect in ("ga", "beta"):
                with open_wire(small.socket_url, dialect) as third:
                    error = third.receive()["error"]
                    assert error["type"] == "server_error"
                    assert "in use" in error["message"]
                    assert third.goodbye() == (1013, f"server_error.{error['code']}")
            one.update()
            two.update()
        wait_for_sessions(small, 1)
        with open_wire(small.socket_url) as next_one:
            assert next_one.receive()["type"] == "session.created"
            next_one.update()


def test_refused_clients_take_no_place(small: RunningServer) -> None:
    wait_for_sessions(small, 0)
    for _ in range(MAX_SESSIONS + 1):
        with open_wire(small.socket_url, query="") as wire:
            assert wire.goodbye()[0] == 4000
    with open_wire(small.socket_url) as wire:
        wire.receive()
        wire.update()


# Audio that waits


def test_more_audio_than_may_wait_is_read_later_and_transcribed(small: RunningServer) -> None:
    """13 s in one go, where only 1 s may wait: nothing is dropped."""
    data = wire_bytes(spoken(opening()))
    with open_wire(small.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        step = MAX_ITEM_S * 48_000
        for start in range(0, len(data), step):
            wire.append_bytes(data[start : start + step])
            wire.commit()
        wire.finish()
    assert kinds(wire.events).count(COMMITTED) == kinds(wire.events).count(COMPLETED) == -(-len(data) // step)
    assert word_error_rate(FIRST_WORDS, wire.text) < 0.6  # words are cut in two


# Events that wait


def test_client_that_reads_nothing_is_disconnected(small: RunningServer) -> None:
    """It asks for far more than the server keeps for it. Others are served meanwhile."""
    wait_for_sessions(small, 0)
    address = urlsplit(small.base_url)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # before the connection, or it is too late
    slow.connect((address.hostname, address.port))
    with connect(
        f"{small.socket_url}?intent=transcription", sock=slow, max_queue=1, close_timeout=0, compression=None
    ) as client:
        session_id = json.loads(client.recv(10))["session"]["id"]
        client.send(json.dumps({"type": "session.update", "session": _manual()}))
        client.recv(10)
        client.send(json.dumps({"type": "input_audio_buffer.append", "audio": _sound()}))
        client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        item_id = json.loads(client.recv(10))["item_id"]
        retrieve = json.dumps({"type": "conversation.item.retrieve", "item_id": item_id})
        with contextlib.suppress(OSError, ConnectionClosed):
            for _ in range(200):  # 128 KB each
                client.send(retrieve)
        with open_wire(small.socket_url) as wire:
            wire.update(transcription=MODEL, turn_detection=VAD)
        wait_for_sessions(small, 0)
    [line] = [line for line in small.output if session_id in line]
    assert "code=1008" in line


def _manual() -> dict[str, object]:
    return {"type": "transcription", "audio": {"input": {"turn_detection": None}}}


def _sound() -> str:
    return base64.b64encode(wire_bytes(best_of_times())[: MAX_ITEM_S * 48_000]).decode()

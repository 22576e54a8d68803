"""The socket as raw clients see it: the handshake, what is refused at the door, how a connection ends."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from conftest import RunningServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wire import (
    COMPLETED,
    CREATED,
    LIVE_VAD,
    MODEL,
    DialectName,
    best_of_times,
    check_event,
    open_wire,
    settings_of,
)

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])


# Opening


@both_dialects
def test_first_event_tells_the_defaults_unasked(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        created = wire.receive()
    assert created["type"] == CREATED[dialect]
    assert settings_of(created["session"], dialect) == {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": LIVE_VAD,
        "include": None,
    }
    assert 3590 < created["session"]["expires_at"] - time.time() <= 3600


def test_session_keeps_its_id_and_end_through_updates(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        created = wire.receive()["session"]
        updated = wire.update(transcription=MODEL)
    assert (created["id"], created["expires_at"]) == (updated["id"], updated["expires_at"])


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (["realtime", "openai-insecure-api-key.secret-key"], "realtime"),
        (["openai-insecure-api-key.secret-key", "realtime"], "realtime"),
        (["realtime", "openai-insecure-api-key.secret-key", "openai-beta.realtime-v1"], "realtime"),
        (["realtime"], "realtime"),
        (["openai-insecure-api-key.secret-key"], None),
        (None, None),
    ],
    ids=str,
)
def test_subprotocol_in_the_answer_is_realtime_and_never_the_key(
    server: RunningServer, offered: list[str] | None, selected: str | None
) -> None:
    dialect: DialectName = "beta" if offered and "openai-beta.realtime-v1" in offered else "ga"
    with open_wire(server.socket_url, dialect, key=None, subprotocols=offered, expects_beta_by_header=False) as wire:
        assert wire.socket.subprotocol == selected
        assert wire.socket.response is not None
        assert "secret-key" not in str(wire.socket.response.headers)
        assert wire.receive()["type"] == CREATED[dialect]


@pytest.mark.parametrize(
    "headers",
    [{"OpenAI-Beta": "realtime=v1"}, {"OpenAI-Beta": "assistants=v2, realtime=v1"}, {"openai-beta": "realtime=v1"}],
    ids=str,
)
def test_header_makes_the_session_beta(server: RunningServer, headers: dict[str, str]) -> None:
    with open_wire(server.socket_url, "beta", headers=headers, expects_beta_by_header=False) as wire:
        assert wire.receive()["type"] == "transcription_session.created"


def test_other_beta_headers_leave_the_session_ga(server: RunningServer) -> None:
    """The SDKs send this one to the beta REST endpoint for no reason, so it can mean nothing."""
    with open_wire(server.socket_url, headers={"OpenAI-Beta": "assistants=v2"}) as wire:
        assert wire.receive()["type"] == "session.created"


def test_headers_of_clients_that_mean_nothing_are_ignored(server: RunningServer) -> None:
    headers = {
        "OpenAI-Log-Session": "1",
        "OpenAI-Safety-Identifier": "x",
        "OpenAI-Organization": "org",
        "X-Stainless-Lang": "python",
        "User-Agent": "LiveKit Agents",
    }
    with open_wire(server.socket_url, headers=headers) as wire:
        assert wire.receive()["type"] == "session.created"


@pytest.mark.parametrize("query", ["intent=transcription", "model=gpt-4o-transcribe"])
def test_azure_path_and_key_header_open_a_session(server: RunningServer, query: str) -> None:
    url = server.socket_url.replace("/v1/realtime", "/openai/v1/realtime")
    with open_wire(url, query=query, key=None, headers={"api-key": "any-key"}) as wire:
        assert wire.receive()["type"] == "session.created"


@both_dialects
@pytest.mark.parametrize("query", ["intent=transcription&model={}", "model={}&intent=transcription", "model={}"])
def test_model_of_the_query_is_the_transcription_model(server: RunningServer, dialect: DialectName, query: str) -> None:
    with open_wire(server.socket_url, dialect, query=query.format("gpt-4o-mini-transcribe")) as wire:
        settings = settings_of(wire.receive()["session"], dialect)
    assert settings["transcription"] == {"model": "gpt-4o-mini-transcribe", "language": None, "prompt": None}
    assert settings["turn_detection"] == LIVE_VAD


def test_compression_that_a_client_offers_does_no_harm(server: RunningServer) -> None:
    with connect(f"{server.socket_url}?intent=transcription", compression="deflate") as socket:
        check_event(json.loads(socket.recv(10)), "ga")


def test_plain_get_of_the_socket_is_an_error_in_the_envelope(server: RunningServer) -> None:
    answer = httpx.get(f"{server.base_url}/realtime", params={"intent": "transcription"})
    assert answer.status_code in (404, 405, 426)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


# Refused at the door


@both_dialects
@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("", "missing_model", "invalid_request_error.missing_model"),
        ("foo=bar", "missing_model", "invalid_request_error.missing_model"),
        ("intent=transcription&model=nobody", "invalid_model", "invalid_request_error.invalid_model"),
        ("model=gpt-realtime", "invalid_model", "invalid_request_error.invalid_model"),
        ("intent=conversation", "invalid_value", "invalid_request_error.invalid_value"),
    ],
)
def test_faulty_query_is_told_after_the_upgrade_and_closed_with_4000(
    server: RunningServer, dialect: DialectName, query: str, code: str, reason: str
) -> None:
    with open_wire(server.socket_url, dialect, query=query) as wire:
        error = wire.receive()
        assert error["type"] == "error"
        assert (error["error"]["type"], error["error"]["code"]) == ("invalid_request_error", code)
        assert error["error"]["event_id"] is None
        assert wire.goodbye() == (4000, reason)
        assert len(wire.events) == 1


def _secret(server: RunningServer, dialect: DialectName) -> str:
    if dialect == "ga":
        return httpx.post(f"{server.base_url}/realtime/client_secrets", json={}).json()["value"]
    return httpx.post(f"{server.base_url}/realtime/transcription_sessions", json={}).json()["client_secret"]["value"]


@pytest.mark.parametrize("means", ["header", "subprotocol"])
def test_beta_session_with_a_ga_secret_is_refused(server: RunningServer, means: str) -> None:
    key = _secret(server, "ga")
    in_header = means == "header"
    subprotocols = None if in_header else ["realtime", f"openai-insecure-api-key.{key}", "openai-beta.realtime-v1"]
    with open_wire(
        server.socket_url,
        "beta",
        key=key if in_header else None,
        subprotocols=subprotocols,
        expects_beta_by_header=in_header,
    ) as wire:
        error = wire.receive()["error"]
        assert error["code"] == "api_version_mismatch"
        assert "beta session with a GA client secret" in error["message"]
        assert wire.goodbye() == (4000, "invalid_request_error.api_version_mismatch")


@pytest.mark.parametrize("query", ["", "intent=transcription", "intent=transcription&model=gpt-4o-transcribe"])
@pytest.mark.parametrize("means", ["header", "subprotocol"])
@both_dialects
def test_ephemeral_key_says_the_dialect_with_or_without_a_query(
    server: RunningServer, dialect: DialectName, means: str, query: str
) -> None:
    key = _secret(server, dialect)
    subprotocols = ["realtime", f"openai-insecure-api-key.{key}"] if means == "subprotocol" else None
    with open_wire(
        server.socket_url,
        dialect,
        query=query,
        key=None if subprotocols else key,
        subprotocols=subprotocols,
        expects_beta_by_header=False,
    ) as wire:
        assert wire.socket.subprotocol == ("realtime" if subprotocols else None)
        assert wire.receive()["type"] == CREATED[dialect]


# Leaving


def test_client_may_leave_without_a_goodbye(server: RunningServer) -> None:
    """LiveKit does. Its session ends and frees its place."""
    with connect(f"{server.socket_url}?intent=transcription", close_timeout=0) as socket:
        session_id = json.loads(socket.recv(10))["session"]["id"]
        socket.socket.close()
    line = _log_line(server, session_id)
    assert "code=1006" in line or "code=1005" in line


def test_goodbye_of_the_client_is_echoed_and_logged(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        session_id = wire.receive()["session"]["id"]
        wire.socket.close(1000, "OK")
        with pytest.raises(ConnectionClosed) as closed:
            wire.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    assert "code=1000" in _log_line(server, session_id)


# The log


def test_nothing_that_was_said_is_in_the_log(server: RunningServer) -> None:
    with open_wire(server.socket_url, key="sk-never-to-be-logged") as wire:
        session_id = wire.receive()["session"]["id"]
        wire.update(transcription=MODEL | {"prompt": "a-prompt-for-nobody"}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
    line = _log_line(server, session_id)
    assert "dialect='ga'" in line
    assert "model='gpt-4o-transcribe'" in line
    assert "items=1" in line
    assert "audio_s=4.8" in line
    log = "\n".join(server.output)
    for secret in ("sk-never", "any-key", "a-prompt-for-nobody", "best of times"):
        assert secret not in log


def _log_line(server: RunningServer, session_id: str) -> str:
    """The one line that the log has about a session once it has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if lines := [line for line in server.output if session_id in line]:
            assert len(lines) == 1
            return lines[0]
        time.sleep(0.02)
    raise AssertionError(f"nothing in the log about {session_id}")

"""Who may connect: API keys, and ephemeral keys of this server and of its replicas."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from conftest import RunningServer, start_server
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from wire import CREATED, DialectName, open_wire

SECRET = "a-signing-secret-that-both-replicas-know"
OTHER_SECRET = "a-signing-secret-that-no-replica-of-us-knows"
GOOD_KEYS = ["sk-from-the-variable-1", "sk-from-the-variable-2", "sk-from-the-file-1", "sk-from-the-file-2"]
AUDIENCE = "auricle/realtime"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that knows four keys, from both places."""
    file: Path = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text("# keys\n\nsk-from-the-file-1\n  sk-from-the-file-2  \n#sk-not-a-key\n")
    running = start_server(
        AURICLE_API_KEYS="sk-from-the-variable-1, sk-from-the-variable-2",
        AURICLE_API_KEYS_FILE=str(file),
        AURICLE_SIGNING_SECRET=SECRET,
        AURICLE_LOG_LEVEL="debug",
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def replica() -> Iterator[RunningServer]:
    """Another server with the same signing secret, and a key of its own."""
    running = start_server(AURICLE_API_KEYS="sk-of-the-replica", AURICLE_SIGNING_SECRET=SECRET)
    yield running
    running.stop()


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def minted(server: RunningServer, dialect: DialectName = "ga", key: str = GOOD_KEYS[0], **body: Any) -> str:
    """An ephemeral key."""
    if dialect == "ga":
        answer = httpx.post(f"{server.base_url}/realtime/client_secrets", json=body, headers=bearer(key))
        return answer.raise_for_status().json()["value"]
    answer = httpx.post(f"{server.base_url}/realtime/transcription_sessions", json=body, headers=bearer(key))
    return answer.raise_for_status().json()["client_secret"]["value"]


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    """An ephemeral key made outside of the server, from the claims that a real one has."""
    claims: dict[str, Any] = {
        "aud": AUDIENCE,
        "exp": int(time.time()) + 60,
        "dialect": "ga",
        "session": {"type": "transcription"},
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return "ek_" + jwt.encode(claims, None if algorithm == "none" else secret, algorithm)


# API keys


@pytest.mark.parametrize("key", GOOD_KEYS)
def test_every_configured_key_opens_a_session_and_mints(keyed: RunningServer, key: str) -> None:
    with open_wire(keyed.socket_url, key=key) as wire:
        assert wire.receive()["type"] == "session.created"
    assert minted(keyed, key=key).startswith("ek_")


@pytest.mark.parametrize("means", ["authorization", "lower case", "api-key", "subprotocol"])
def test_key_may_come_by_each_of_its_ways(keyed: RunningServer, means: str) -> None:
    key = GOOD_KEYS[0]
    headers = {
        "authorization": {"Authorization": f"Bearer {key}"},
        "lower case": {"authorization": f"bearer {key}"},
        "api-key": {"api-key": key},
        "subprotocol": {},
    }[means]
    subprotocols = ["realtime", f"openai-insecure-api-key.{key}"] if means == "subprotocol" else None
    with open_wire(keyed.socket_url, key=None, headers=headers, subprotocols=subprotocols) as wire:
        assert wire.receive()["type"] == "session.created"


WRONG_KEYS = ["sk-wrong", "sk-from-the-variable-", "sk-from-the-variable-11", "#sk-not-a-key", "# keys", "sk-not-a-key"]


@pytest.mark.parametrize("key", [*WRONG_KEYS, "sk-from-the-variable-1, sk-from-the-variable-2"])
def test_wrong_key_is_told_after_the_upgrade_and_closed_with_3000(keyed: RunningServer, key: str) -> None:
    with open_wire(keyed.socket_url, key=key) as wire:
        error = wire.receive()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert (error["param"], error["event_id"]) == (None, None)
        assert error["message"].startswith("Incorrect API key provided: ")
        assert key not in error["message"]
        assert wire.goodbye() == (3000, "invalid_request_error.invalid_api_key")


def test_wrong_key_in_a_subprotocol_is_refused_too(keyed: RunningServer) -> None:
    with open_wire(keyed.socket_url, key=None, subprotocols=["realtime", "openai-insecure-api-key.sk-wrong"]) as wire:
        assert wire.socket.subprotocol == "realtime"
        assert wire.goodbye() == (3000, "invalid_request_error.invalid_api_key")


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic c2s6"}, {"Authorization": "Bearer "}, {"api-key": ""}], ids=str
)
def test_missing_key_is_told_and_closed_with_3000(keyed: RunningServer, headers: dict[str, str]) -> None:
    with open_wire(keyed.socket_url, key=None, headers=headers) as wire:
        error = wire.receive()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", None)
        assert error["message"] == "Missing bearer or basic authentication in header"
        assert wire.goodbye() == (3000, "invalid_request_error")


def test_beta_client_with_a_wrong_key_is_told_the_same(keyed: RunningServer) -> None:
    with open_wire(keyed.socket_url, "beta", key="sk-wrong") as wire:
        assert wire.receive()["error"]["code"] == "invalid_api_key"
        assert wire.goodbye()[0] == 3000


@pytest.mark.parametrize("query", ["", "intent=nonsense"])
def test_faulty_query_with_a_wrong_key_tells_of_the_key(keyed: RunningServer, query: str) -> None:
    """Strangers learn nothing else."""
    with open_wire(keyed.socket_url, query=query, key="sk-wrong") as wire:
        assert wire.goodbye()[0] == 3000


@pytest.mark.parametrize("path", ["client_secrets", "transcription_sessions"])
@pytest.mark.parametrize(("key", "code"), [("sk-wrong", "invalid_api_key"), (None, None)])
def test_rest_without_a_good_key_is_401(keyed: RunningServer, path: str, key: str | None, code: str | None) -> None:
    answer = httpx.post(f"{keyed.base_url}/realtime/{path}", json={}, headers=bearer(key))
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, None)
    assert "sk-wrong" not in error["message"]


def test_server_without_keys_takes_any_key_and_none(server: RunningServer) -> None:
    for key in ("whatever", None):
        with open_wire(server.socket_url, key=key) as wire:
            assert wire.receive()["type"] == "session.created"


# Ephemeral keys


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_ephemeral_key_opens_several_sessions_of_a_replica(
    keyed: RunningServer, replica: RunningServer, dialect: DialectName
) -> None:
    here, there = minted(keyed, dialect), minted(replica, dialect, key="sk-of-the-replica")
    for server, key in ((keyed, here), (keyed, there), (replica, here), (replica, there), (replica, here)):
        with open_wire(server.socket_url, dialect, query="", key=key, expects_beta_by_header=False) as wire:
            assert wire.receive()["type"] == CREATED[dialect]


def test_key_signed_as_the_server_does_is_taken(keyed: RunningServer) -> None:
    """What makes the tests of faulty keys below mean something."""
    with open_wire(keyed.socket_url, query="", key=signed()) as wire:
        assert wire.receive()["type"] == "session.created"


def faulty_keys() -> dict[str, str]:
    good = signed()
    header, claims, signature = good.removeprefix("ek_").split(".")
    return {
        "expired": signed(exp=int(time.time()) - 60),
        "without an end": signed(exp=None),
        "for another audience": signed(aud="elsewhere"),
        "without an audience": signed(aud=None),
        "signed by others": signed(OTHER_SECRET),
        "unsigned": signed(algorithm="none"),
        "another algorithm": signed(SECRET * 2, "HS512"),
        "signature cut": f"ek_{header}.{claims}.{signature[:-4]}",
        "signature gone": f"ek_{header}.{claims}.",
        "claims changed": f"ek_{header}.{claims[:-4]}AAAA.{signature}",
        "nonsense": "ek_0123456789abcdef0123456789abcdef",
        "nothing": "ek_",
        "without prefix": good.removeprefix("ek_"),
        "too large": signed(session={"type": "transcription", "include": ["x" * 4_600]}),
    }


@pytest.mark.parametrize("name", faulty_keys())
def test_faulty_ephemeral_key_is_closed_with_3000(keyed: RunningServer, name: str) -> None:
    key = faulty_keys()[name]
    with open_wire(keyed.socket_url, query="", key=key) as wire:
        error = wire.receive()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert key not in error["message"] or name == "nothing"
        if name == "expired":
            assert "expired" in error["message"]
        if name == "too large":
            assert "too long" in error["message"]
        assert wire.goodbye() == (3000, "invalid_request_error.invalid_api_key")


@pytest.mark.xfail(
    reason="uvicorn's websockets-sansio protocol gives no answer where `websockets` refuses the handshake itself",
    raises=TimeoutError,
)
def test_key_that_is_too_long_for_a_header_line_is_refused(keyed: RunningServer) -> None:
    """Over 8 KiB, which `websockets` allows a line of a header."""
    with pytest.raises((InvalidHandshake, ConnectionClosed)):
        connect_and_close(keyed.socket_url, "ek_" + "x" * 9_000)


def connect_and_close(url: str, key: str) -> None:
    with connect(url, additional_headers=bearer(key), open_timeout=2) as socket:
        socket.recv(2)
        socket.recv(2)


@pytest.mark.parametrize("name", ["expired", "signed by others", "unsigned"])
def test_faulty_ephemeral_key_is_refused_where_any_api_key_is_taken(server: RunningServer, name: str) -> None:
    """Without API keys anything opens a session, but not a key that says it is one of ours and is not."""
    with open_wire(server.socket_url, key=faulty_keys()[name]) as wire:
        assert wire.goodbye() == (3000, "invalid_request_error.invalid_api_key")


def test_key_of_a_server_with_another_secret_is_refused(keyed: RunningServer, server: RunningServer) -> None:
    with open_wire(server.socket_url, query="", key=minted(keyed)) as wire:
        assert wire.goodbye()[0] == 3000
    with open_wire(keyed.socket_url, query="", key=minted(server)) as wire:
        assert wire.goodbye()[0] == 3000


@pytest.mark.parametrize("path", ["client_secrets", "transcription_sessions"])
@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_ephemeral_key_makes_no_others(keyed: RunningServer, dialect: DialectName, path: str) -> None:
    answer = httpx.post(f"{keyed.base_url}/realtime/{path}", json={}, headers=bearer(minted(keyed, dialect)))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_ephemeral_key_makes_no_others_where_any_api_key_is_taken(server: RunningServer) -> None:
    answer = httpx.post(f"{server.base_url}/realtime/client_secrets", json={}, headers=bearer(minted(server)))
    assert answer.status_code == 401


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_session_too_large_for_a_key_is_refused_when_it_is_made(keyed: RunningServer, dialect: DialectName) -> None:
    transcription = {"model": "gpt-4o-transcribe", "prompt": "x" * 6_000}
    body: dict[str, Any] = {"input_audio_transcription": transcription}
    if dialect == "ga":
        body = {"session": {"type": "transcription", "audio": {"input": {"transcription": transcription}}}}
    path = "client_secrets" if dialect == "ga" else "transcription_sessions"
    answer = httpx.post(f"{keyed.base_url}/realtime/{path}", json=body, headers=bearer(GOOD_KEYS[0]))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "string_above_max_length"


def test_running_session_outlives_its_key(keyed: RunningServer) -> None:
    with open_wire(keyed.socket_url, query="", key=signed(exp=int(time.time()) + 2)) as wire:
        wire.receive()
        time.sleep(2.1)
        wire.update()


def test_key_with_a_session_that_this_server_cannot_run_is_closed_with_4000(keyed: RunningServer) -> None:
    """Made by a replica that has other models."""
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "only/elsewhere"}}}}
    with open_wire(keyed.socket_url, query="", key=signed(session=session)) as wire:
        assert wire.receive()["error"]["code"] == "invalid_value"
        assert wire.goodbye()[0] == 4000


# The log


def test_log_has_no_key(keyed: RunningServer) -> None:
    ephemeral = minted(keyed)
    for key in (GOOD_KEYS[0], "sk-wrong-and-secret", ephemeral, signed(OTHER_SECRET)):
        with open_wire(keyed.socket_url, key=key) as wire:
            wire.receive()
    with open_wire(
        keyed.socket_url, key=None, subprotocols=["realtime", f"openai-insecure-api-key.{GOOD_KEYS[1]}"]
    ) as wire:
        session_id = wire.receive()["session"]["id"]
    deadline = time.monotonic() + 20
    while not any(session_id in line for line in keyed.output):
        assert time.monotonic() < deadline, "the session is not in the log"
        time.sleep(0.02)
    log = "\n".join(keyed.output)
    for secret in (*GOOD_KEYS, SECRET, "sk-wrong-and-secret", ephemeral, "ek_ey"):
        assert secret not in log, json.dumps([line for line in keyed.output if secret in line])

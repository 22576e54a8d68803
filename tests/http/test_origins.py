"""Which web pages may talk to the server: the policy, and what a browser meets over HTTP and a WebSocket."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
from conftest import RunningServer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from auricle.http.origins import OriginPolicy, own_names

ELSEWHERE = "https://elsewhere.example"
APP = "http://localhost:3000"
KEY = "sk-test-origins"


# The policy


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://auricle.localhost:8000", "auricle.localhost:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://192.0.2.7", "192.0.2.7"),
        ("https://speech.lan", "speech.lan"),
        ("https://Speech.lan", "speech.LAN"),
        (APP, "127.0.0.1:8000"),
        ("HTTP://LOCALHOST:3000", "127.0.0.1:8000"),
    ],
)
def test_pages_of_the_server_and_allowed_ones_are_let_in(origin: str | None, host: str) -> None:
    assert OriginPolicy([APP], ["speech.lan"], wants_key=False).allows(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (ELSEWHERE, "127.0.0.1:8000"),
        ("null", "127.0.0.1:8000"),
        ("", "127.0.0.1:8000"),
        ("http://[::1", "127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "[::1"),
        ("http://localhost:3001", "localhost:8000"),
        ("http://localhost", "localhost:8000"),
        ("http://127.0.0.1:8000.elsewhere.example", "127.0.0.1:8000"),
        # A name that its owner lets point to this machine: the page and the request agree, and are not ours.
        ("http://rebound.example:8000", "rebound.example:8000"),
        ("http://localhost.elsewhere.example", "localhost.elsewhere.example"),
    ],
)
def test_other_pages_are_not(origin: str, host: str) -> None:
    assert not OriginPolicy([APP], ["speech.lan"], wants_key=False).allows(origin, host)


def test_a_server_that_wants_keys_takes_all_pages_until_some_are_named() -> None:
    assert OriginPolicy([], [], wants_key=True).allows(ELSEWHERE, "api.example.com")
    named = OriginPolicy([APP], [], wants_key=True)
    assert named.allows(APP, "api.example.com")
    assert not named.allows(ELSEWHERE, "api.example.com")
    assert OriginPolicy(["*"], [], wants_key=False).allows(ELSEWHERE, "127.0.0.1:8000")


def test_the_address_and_the_machines_name_are_the_servers_own() -> None:
    assert "speech.lan" in own_names("speech.lan")
    assert any(name.endswith(".local") for name in own_names("0.0.0.0"))


# Over the wire


def _open(server: RunningServer, origin: str) -> str:
    with connect(f"{server.socket_url}?intent=transcription", origin=Origin(origin)) as socket:
        return str(json.loads(socket.recv(10))["type"])


def test_a_page_elsewhere_reaches_nothing_of_a_server_without_keys(server: RunningServer) -> None:
    for path in ("/health", "/v1/models", "/v1/nothing"):
        refused = httpx.get(server.root_url + path, headers={"Origin": ELSEWHERE})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "origin_not_allowed"
        assert "allowed_origins" in refused.json()["error"]["message"]
        assert "access-control-allow-origin" not in refused.headers
    minted = httpx.post(f"{server.base_url}/realtime/client_secrets", headers={"Origin": ELSEWHERE})
    assert minted.status_code == 403
    preflight = httpx.options(
        f"{server.base_url}/models", headers={"Origin": ELSEWHERE, "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status_code == 403
    with pytest.raises(InvalidStatus) as caught:
        _open(server, ELSEWHERE)
    assert caught.value.response.status_code == 403
    assert b"origin_not_allowed" in (caught.value.response.body or b"")


def test_the_servers_own_pages_and_programs_reach_all(server: RunningServer) -> None:
    assert _open(server, server.root_url) == "session.created"
    own = httpx.post(f"{server.base_url}/realtime/client_secrets", headers={"Origin": server.root_url})
    assert own.status_code == 200
    assert httpx.post(f"{server.base_url}/realtime/client_secrets").status_code == 200


def test_allowed_pages_reach_a_server_without_keys(server_with: Callable[..., RunningServer]) -> None:
    server = server_with("--allowed-origins", f"{APP}, https://captions.example")
    assert _open(server, APP) == "session.created"
    answer = httpx.get(f"{server.base_url}/models", headers={"Origin": APP})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert {"Location", "Retry-After"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    assert httpx.get(f"{server.base_url}/models", headers={"Origin": ELSEWHERE}).status_code == 403


def test_with_keys_any_page_that_has_one_is_let_in(server_with: Callable[..., RunningServer]) -> None:
    server = server_with("--api-keys", KEY)
    preflight = httpx.options(
        f"{server.base_url}/realtime/client_secrets",
        headers={
            "Origin": ELSEWHERE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    unkeyed = httpx.post(f"{server.base_url}/realtime/client_secrets", headers={"Origin": ELSEWHERE})
    assert (unkeyed.status_code, unkeyed.headers["access-control-allow-origin"]) == (401, "*")
    keyed = httpx.post(
        f"{server.base_url}/realtime/client_secrets",
        headers={"Origin": ELSEWHERE, "Authorization": f"Bearer {KEY}"},
    )
    assert (keyed.status_code, keyed.headers["access-control-allow-origin"]) == (200, "*")
    with connect(
        f"{server.socket_url}?intent=transcription",
        origin=Origin(ELSEWHERE),
        subprotocols=["realtime", f"openai-insecure-api-key.{keyed.json()['value']}"],  # type: ignore[list-item]
    ) as socket:
        assert json.loads(socket.recv(10))["type"] == "session.created"

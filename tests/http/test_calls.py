"""What is wrong with a call is told by HTTP, in the envelope, before anything is set up for it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from calling import Caller, client_of, post_offer, sessions
from conftest import RunningServer

CALLS = "/v1/realtime/calls"
SDP = {"Content-Type": "application/sdp"}
GA = {"type": "transcription"}


@pytest.fixture(scope="module")
def root(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.root_url, headers={"Authorization": "Bearer any-key"}) as client:
        yield client


def fault_of(answer: httpx.Response, status: int = 400) -> tuple[str | None, str | None]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"], error["param"]


async def offer(**options: Any) -> str:
    """A proper offer, of which nothing will come."""
    caller = Caller(**options)
    try:
        return await caller.offer()
    finally:
        await caller.peer.close()


async def ask(server: RunningServer, sdp: str, settings: Any = None, path: str = CALLS, **options: Any):
    async with client_of(server, **options) as client:
        return await post_offer(client, sdp, settings, path)


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "v=0",
        "hello",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
        "m=audio",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
        "\0",
        "ä€",
    ],
)
@pytest.mark.parametrize("path", [CALLS, "/openai/v1/realtime/calls", "/v1/realtime?intent=transcription"])
def test_what_is_no_offer_is_refused(root: httpx.Client, sdp: str, path: str):
    assert fault_of(root.post(path, content=sdp, headers=SDP)) == ("invalid_offer", None)


def _mutation(chance: random.Random, offer: str) -> str:
    """An offer with a few lines dropped, repeated, moved, cut short or changed."""
    lines = offer.splitlines()
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(lines))
        line = lines[place]
        match chance.randrange(7):
            case 0 | 1:
                del lines[place]
            case 2:
                lines.insert(chance.randrange(len(lines)), line)
            case 3:
                lines[place] = line[: chance.randrange(len(line) + 1)]
            case 4:
                lines[place] = line.replace("0", "-1", 1)
            case 5:
                at = chance.randrange(len(line) + 1)
                lines[place] = line[:at] + chance.choice(" A0-:=/é") + line[at + 1 :]
            case 6:
                lines[place] = line.upper()
    return "\r\n".join(lines) + "\r\n"


async def test_a_mangled_offer_is_answered_or_refused_and_leaves_nothing(server_with):
    server = server_with()
    process = psutil.Process(server.process.pid)
    chance, whole = random.Random(4), await offer()
    async with client_of(server) as client:
        counts: Counter[int] = Counter()
        for _ in range(6):
            offers = [_mutation(chance, whole) for _ in range(50)]
            answers = await asyncio.gather(*(post_offer(client, sdp, None, CALLS) for sdp in offers))
            for answer in answers:
                if answer.status_code != 201:
                    assert fault_of(answer) == ("invalid_offer", None)
            counts.update(answer.status_code for answer in answers)
            calls = [answer.headers["location"] for answer in answers if answer.status_code == 201]
            ends = await asyncio.gather(*(client.post(call + "/hangup") for call in calls))
            assert {end.status_code for end in ends} <= {200}
        assert await sessions(server) == 0
        assert process.net_connections("udp") == []
    assert min(counts[201], counts[400]) > 80
    assert "Traceback" not in "\n".join(server.output)


async def test_an_offer_without_audio_or_without_a_channel_is_refused(server: RunningServer):
    whole = await offer()
    start, audio, channel = _sections(whole)
    assert fault_of(await ask(server, start.replace("BUNDLE 0 1", "BUNDLE 1") + channel)) == ("invalid_offer", None)
    answer = await ask(server, start.replace("BUNDLE 0 1", "BUNDLE 0") + audio)
    assert fault_of(answer) == ("invalid_offer", None)
    assert "data channel" in answer.json()["error"]["message"]


async def test_an_offer_without_a_codec_of_ours_is_refused(server: RunningServer):
    answer = await ask(server, await offer(codec="G722"))
    assert fault_of(answer) == ("invalid_offer", None)
    assert "opus, pcmu, pcma" in answer.json()["error"]["message"]


async def test_an_answer_takes_audio_and_the_channel_and_nothing_else(server: RunningServer):
    caller = Caller()
    caller.peer.addTransceiver("video")
    caller.peer.addTransceiver("audio")
    answer = await ask(server, await caller.offer(), GA)
    await caller.peer.close()
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/sdp"
    assert answer.headers["location"].startswith("/v1/realtime/calls/rtc_")
    _, *sections = _sections(answer.text)
    assert [section.split()[0] for section in sections] == ["m=audio", "m=video", "m=audio", "m=application"]
    directions = [next((line for line in section.splitlines() if line in _DIRECTIONS), "") for section in sections]
    assert directions == ["a=recvonly", "a=inactive", "a=inactive", ""]
    assert "G722" not in answer.text
    assert "srflx" not in answer.text


_DIRECTIONS = ("a=recvonly", "a=inactive", "a=sendonly", "a=sendrecv")


def _sections(sdp: str) -> list[str]:
    start, *sections = sdp.split("m=")
    return [start, *("m=" + section for section in sections)]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ("{", ("invalid_json", "session")),
        ("[]", ("invalid_type", "session")),
        ("{}", ("missing_required_parameter", "session.type")),
        ('{"type": "realtime"}', ("invalid_parameter", "session")),
        ('{"type": "transcription", "foo": 1}', ("unknown_parameter", "session.foo")),
        (
            '{"type": "transcription", "audio": {"input": {"transcription": {"model": "nobody"}}}}',
            ("invalid_value", "session.audio.input.transcription.model"),
        ),
    ],
)
async def test_wrong_settings_are_refused_with_their_path(server: RunningServer, settings: str, fault: tuple):
    async with client_of(server) as client:
        files = {"sdp": (None, await offer()), "session": (None, settings)}
        code, param = fault_of(await client.post(CALLS, files=files))
    assert param == fault[1] or fault[0] == "invalid_parameter"
    assert code == fault[0] or "model" in (param or "")


async def test_a_form_has_an_offer_and_nothing_unknown(server: RunningServer):
    async with client_of(server) as client:
        assert fault_of(await client.post(CALLS, files={"session": (None, "{}")})) == (
            "missing_required_parameter",
            "sdp",
        )
        assert fault_of(await client.post(CALLS, files={"sdp": (None, ""), "foo": (None, "")})) == (
            "unknown_parameter",
            "foo",
        )
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        assert fault_of(await client.post(CALLS, content=b"--x\r\nfoo", headers=broken))[0] in (
            "invalid_form",
            "missing_required_parameter",
        )
        no_boundary = {"Content-Type": "multipart/form-data"}
        assert fault_of(await client.post(CALLS, content=b"", headers=no_boundary))[0] == "invalid_form"


@pytest.mark.parametrize("names", [("offer.sdp", "session.json"), (None, None)])
async def test_a_part_may_be_named_as_a_file(server: RunningServer, names: tuple):
    files = {
        "sdp": (names[0], await offer(), "application/sdp"),
        "session": (names[1], json.dumps(GA), "application/json"),
    }
    async with client_of(server) as client:
        answer = await client.post(CALLS, files=files)
        assert answer.status_code == 201
        assert (await client.post(answer.headers["location"] + "/hangup")).status_code == 200


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_another_type_of_body_is_refused(root: httpx.Client, content_type: str):
    answer = root.post(CALLS, content="{}", headers={"Content-Type": content_type})
    assert fault_of(answer) == ("invalid_content_type", None)


def test_a_body_that_is_no_text_is_refused(root: httpx.Client):
    assert fault_of(root.post(CALLS, content=b"\xff\xfe", headers=SDP)) == ("invalid_value", "sdp")


def test_a_body_that_never_comes_whole_is_no_bug(server_with):
    server = server_with()
    address = urlsplit(server.root_url)
    for content_type in ("application/sdp", "multipart/form-data; boundary=x"):
        with socket.create_connection((address.hostname, address.port)) as client:
            head = f"POST {CALLS} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: 99\r\n\r\nv=0"
            client.sendall(head.encode())
    server.stop()  # when all requests have come to their end
    assert "Traceback" not in "\n".join(server.output)


def test_a_body_that_is_too_large_is_refused(root: httpx.Client):
    assert fault_of(root.post(CALLS, content=b" " * (1024**2 + 1), headers=SDP), 413)[0] is None


async def test_the_query_is_that_of_the_socket(server: RunningServer):
    sdp = await offer()
    assert fault_of(await ask(server, sdp, path="/v1/realtime"))[0] == "missing_model"
    assert fault_of(await ask(server, sdp, path="/v1/realtime?model=nobody")) == ("invalid_model", "model")
    assert fault_of(await ask(server, sdp, path=CALLS + "?intent=talk")) == ("invalid_value", "intent")


async def test_a_key_of_the_other_dialect_is_refused(server: RunningServer):
    async with client_of(server) as client:
        ga = (await client.post("/v1/realtime/client_secrets")).json()["value"]
        beta = (await client.post("/v1/realtime/transcription_sessions")).json()["client_secret"]["value"]
    sdp = await offer()
    for key, path, message in (
        (ga, "/v1/realtime", "a Realtime beta session with a GA client secret"),
        (beta, CALLS, "a Realtime GA session with a beta client secret"),
    ):
        answer = await ask(server, sdp, path=path, key=key)
        assert fault_of(answer) == ("api_version_mismatch", None)
        assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [CALLS, "/v1/realtime", "/v1/realtime/calls/rtc_1/hangup"])
def test_a_call_needs_a_key(server_with, path: str):
    server = server_with("--api-keys", "sk-right")
    with httpx.Client(base_url=server.root_url) as client:
        assert fault_of(client.post(path, content="v=0", headers=SDP), 401) == (None, None)
        wrong = {"Authorization": "Bearer sk-wrong"}
        assert fault_of(client.post(path, content="v=0", headers=SDP | wrong), 401)[0] == "invalid_api_key"


def test_an_unknown_call_can_not_be_hung_up(root: httpx.Client):
    assert fault_of(root.post(CALLS + "/rtc_nobody/hangup"), 404) == ("call_not_found", "call_id")


async def test_refused_calls_leave_no_session(server: RunningServer):
    before = await sessions(server)
    await ask(server, "v=0")
    await ask(server, await offer(), {"type": "realtime"})
    assert await sessions(server) == before

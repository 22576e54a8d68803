"""Calls by a real peer over real UDP, with the real model: text, events, packet loss, sidebands and every end."""

from __future__ import annotations

import asyncio
import json
import signal

import numpy as np
import psutil
import pytest
from calling import Caller, call, client_of, hang_up, post_offer, sessions, until_sessions
from clips import silence
from conftest import RunningServer
from test_dialogues import DIALOGUES, Names, read_dialogue, turns
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wire import BEST_OF_TIMES, CLEARED, COMPLETED, FIRST_WORDS, STARTED, STOPPED, best_of_times, opening, parsed
from words import said, word_error_rate

MODEL = "moonshine/tiny-en"
VAD = {"type": "server_vad", "silence_duration_ms": 500}
SETTINGS = {
    "type": "transcription",
    "audio": {"input": {"transcription": {"model": MODEL}, "turn_detection": VAD}},
}
BY_HAND = {
    "type": "transcription",
    "audio": {"input": {"transcription": {"model": MODEL}, "turn_detection": None}},
}


def sideband(server: RunningServer, location: str, key: str = "any-key") -> connect:
    """A backend's socket beside a call."""
    url = f"{server.socket_url}?call_id={location.rsplit('/', 1)[-1]}"
    return connect(url, additional_headers={"Authorization": f"Bearer {key}"})


CLICK_SAMPLES = 16_000
"""In the recording's first second there is a click, which may begin a turn of its own."""
OPENING = np.concatenate([silence(1.5), opening()[CLICK_SAMPLES:], silence(1)])


# Text


@pytest.mark.parametrize("codec", ["opus", "PCMU", "PCMA"])
async def test_speech_on_a_track_becomes_text_on_the_channel(server: RunningServer, codec: str):
    async with call(server, settings=SETTINGS, codec=codec) as caller:
        await caller.speak(OPENING)
        assert word_error_rate(FIRST_WORDS, await caller.finish()) <= 0.1
        assert caller.of(STARTED, "item_id") == caller.of(COMPLETED, "item_id")


async def test_the_settings_come_from_an_ephemeral_key(server: RunningServer):
    async with client_of(server) as client:
        secret = (await client.post("/v1/realtime/client_secrets", json={"session": SETTINGS})).json()["value"]
    async with call(server, key=secret) as caller:
        assert caller.events[0]["session"]["audio"]["input"]["transcription"]["model"] == MODEL
        await caller.speak(np.concatenate([best_of_times(), silence(1)]))
        assert said(await caller.finish())


async def test_a_raw_offer_with_an_api_key_is_configured_over_the_channel(server: RunningServer):
    async with call(server) as caller:
        assert caller.events[0]["session"]["audio"]["input"]["transcription"] is None
        session = await caller.update(transcription={"model": MODEL}, turn_detection=VAD, format={"type": "audio/pcmu"})
        # It is told as it was set. What comes on the track is decoded by its own codec.
        assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
        await caller.speak(np.concatenate([best_of_times(), silence(1)]))
        assert said(await caller.finish())


@pytest.mark.parametrize("query", ["intent=transcription", f"model={MODEL}"])
async def test_the_beta_form_speaks_beta(server: RunningServer, query: str):
    async with call(server, "beta", path=f"/v1/realtime?{query}") as caller:
        await caller.update(transcription={"model": MODEL}, turn_detection=VAD)
        await caller.speak(np.concatenate([best_of_times(), silence(1)]))
        assert said(await caller.finish())


async def test_what_is_committed_by_hand_becomes_an_item(server: RunningServer):
    async with call(server, settings=BY_HAND) as caller:
        await caller.speak(best_of_times())
        await asyncio.sleep(0.3)  # the last packets are on their way, and come beside the channel
        caller.send("input_audio_buffer.commit")
        assert said((await caller.until(COMPLETED))[-1]["transcript"])
        assert caller.of(STARTED, "item_id") == []


async def test_audio_in_events_is_refused_and_the_call_goes_on(server: RunningServer):
    async with call(server, settings=SETTINGS) as caller:
        caller.send("input_audio_buffer.append", audio="AAAA", event_id="mine")
        error = (await caller.until("error"))[-1]["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("invalid_parameter", "type", "mine")
        assert "track" in error["message"]
        caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")


@pytest.mark.parametrize("name", ["ga_errors", "beta_errors"])
async def test_errors_are_those_of_the_socket(server: RunningServer, name: str):
    """The part of the recorded dialogue that needs no audio."""
    [path] = [path for path in DIALOGUES if path.stem == name]
    names, dialect = Names(), "ga" if name.startswith("ga") else "beta"
    where = "/v1/realtime/calls" if dialect == "ga" else "/v1/realtime?intent=transcription"
    replayed = 0
    async with call(server, dialect, path=where) as caller:
        for line, expected in turns(read_dialogue(path)):
            if "client" not in line:
                if replayed:
                    break
                continue
            if "noise_reduction" in json.dumps(line):  # not every server is installed with it
                continue
            caller.channel.send(json.dumps(names.filled(line["client"])))
            for event in expected:
                told = {key: value for key, value in (await caller.receive()).items() if key != "event_id"}
                assert told["type"] == event["type"]
                if event["type"] == "error":
                    assert told["error"]["code"] == event["error"]["code"]
                    assert told["error"]["event_id"] == event["error"]["event_id"]
            replayed += 1
    assert replayed > 5


# The network


@pytest.mark.parametrize("codec", ["opus", "PCMU"])
@pytest.mark.parametrize(("loss", "most_errors"), [(0.05, 0.1), (0.2, 0.25)])
async def test_lost_packets_are_concealed_and_the_clock_stays_true(
    server: RunningServer, codec: str, loss: float, most_errors: float
):
    async with call(server, settings=SETTINGS, codec=codec, loss=loss) as caller:
        await caller.speak(OPENING)
        text = await caller.finish()
        assert word_error_rate(FIRST_WORDS, text) <= most_errors
        # The speech begins at 1.7 s and pauses from 5.3 s on; the prefix is 300 ms, the silence 500 ms.
        assert abs(caller.of(STARTED, "audio_start_ms")[0] - 1400) <= 100
        assert caller.of(STOPPED, "audio_end_ms")[-1] <= 14_700 + 100


async def test_a_turn_ends_although_the_sender_stops_in_the_middle(server: RunningServer):
    async with call(server, settings=SETTINGS) as caller:
        await caller.speak(best_of_times()[CLICK_SAMPLES:])
        caller.microphone.is_on.clear()
        await caller.until(COMPLETED)
        assert said(caller.of(COMPLETED, "transcript")[-1])
        caller.microphone.is_on.set()  # its clock has stood still meanwhile
        await caller.speak(np.concatenate([best_of_times()[CLICK_SAMPLES:], silence(1)]))
        assert said(await caller.finish(), f"{BEST_OF_TIMES} {BEST_OF_TIMES}")
        assert caller.of(STARTED, "audio_start_ms")[1] > 4_000


# Sidebands


async def test_a_sideband_sees_and_steers_the_same_session(server: RunningServer):
    async with call(server, settings=SETTINGS) as caller:
        await caller.update(turn_detection=None)
        async with sideband(server, caller.location) as socket:
            first = parsed(await socket.recv(), "ga")
            assert first["type"] == "session.created"
            assert first["session"]["id"] == caller.events[0]["session"]["id"]
            assert first["session"]["audio"]["input"]["turn_detection"] is None
            await socket.send(
                '{"type": "session.update", "session": {"type": "transcription", "audio": {"input": '
                '{"turn_detection": {"type": "server_vad", "silence_duration_ms": 500}}}}}'
            )
            assert parsed(await socket.recv(), "ga")["session"]["audio"]["input"]["turn_detection"] is not None
            await caller.until("session.updated")
            await socket.send('{"type": "input_audio_buffer.append", "audio": "AAAA", "event_id": "backend"}')
            assert parsed(await socket.recv(), "ga")["error"]["event_id"] == "backend"
            await caller.until("error")
            await caller.speak(np.concatenate([best_of_times(), silence(1)]))
            assert said(await caller.finish())
            seen = []
            while not seen or seen[-1]["type"] != CLEARED:
                seen.append(parsed(await socket.recv(), "ga"))
            told = caller.events[-len(seen) :]
            assert [event["event_id"] for event in seen] == [event["event_id"] for event in told]
        # The socket is gone, and the call goes on.
        caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")


async def test_a_sideband_ends_with_its_call(server: RunningServer):
    async with call(server, settings=SETTINGS) as caller, sideband(server, caller.location) as socket:
        await socket.recv()
        await caller.peer.close()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 1000


async def test_a_sideband_needs_a_call(server: RunningServer):
    async with sideband(server, "rtc_nobody") as socket:
        assert parsed(await socket.recv(), "ga")["error"]["code"] == "call_not_found"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "invalid_request_error.call_not_found")


async def test_a_sideband_needs_an_api_key(server: RunningServer):
    async with client_of(server) as client:
        secret = (await client.post("/v1/realtime/client_secrets")).json()["value"]
    async with call(server, settings=SETTINGS) as caller, sideband(server, caller.location, secret) as socket:
        assert parsed(await socket.recv(), "ga")["error"]["code"] == "invalid_api_key"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 3000


# The end


async def test_hanging_up_ends_the_call(server: RunningServer):
    async with call(server, settings=SETTINGS) as caller:
        answer = await hang_up(server, caller.location)
        assert (answer.status_code, answer.content) == (200, b"")
        await caller.until_closed()
        assert (await hang_up(server, caller.location)).status_code == 404


async def test_the_server_finishes_what_was_said_when_it_stops(server_with):
    server = server_with()
    async with call(server, settings=SETTINGS) as caller:
        await caller.speak(best_of_times())
        await caller.until(STARTED)
        server.process.send_signal(signal.SIGTERM)
        await caller.until_closed()
        assert said(" ".join(caller.of(COMPLETED, "transcript")))
    assert await asyncio.to_thread(server.process.wait, 10) == 0
    assert "Traceback" not in "\n".join(server.output)


async def test_a_call_that_never_connects_does_not_keep_the_server_from_ending(server_with):
    server = server_with()
    caller = Caller()
    async with client_of(server) as client:
        assert (await post_offer(client, await caller.offer(), SETTINGS, "/v1/realtime/calls")).status_code == 201
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, 10) == 0
    assert "Traceback" not in "\n".join(server.output)
    await caller.peer.close()


async def test_a_session_that_is_too_old_says_so_and_ends(server_with):
    async with call(server_with(AURICLE_MAX_SESSION_S="1"), settings=SETTINGS) as caller:
        assert (await caller.until("error"))[-1]["error"]["code"] == "session_expired"
        await caller.until_closed()


@pytest.mark.parametrize("how", ["hang up", "close", "close the channel"])
async def test_the_end_of_a_call_frees_everything(server_with, how: str):
    server = server_with()
    process = psutil.Process(server.process.pid)

    async def end_one() -> None:
        async with call(server, settings=SETTINGS) as caller:
            await caller.speak(best_of_times()[:16_000])
            if how == "hang up":
                await hang_up(server, caller.location)
            elif how == "close the channel":
                caller.channel.close()
            else:
                await caller.peer.close()
            await until_sessions(server, 0)

    await end_one()  # loads what is loaded once
    await end_one()
    threads, files = process.num_threads(), process.num_fds()
    for _ in range(3):
        await end_one()
    await asyncio.sleep(0.5)
    assert process.num_threads() <= threads
    assert process.num_fds() <= files


# Settings


async def test_calls_use_the_ports_and_tell_the_address_that_are_set(server_with):
    server = server_with(AURICLE_WEBRTC_PORTS="18290-18291", AURICLE_WEBRTC_HOST="192.0.2.7, 192.0.2.8")
    async with client_of(server) as client:
        callers = [Caller() for _ in range(3)]
        answers = [await post_offer(client, await one.offer(), None, "/v1/realtime/calls") for one in callers]
        for caller in callers:
            await caller.peer.close()
        assert [answer.status_code for answer in answers] == [201, 201, 503]
        assert answers[2].headers["retry-after"]
        ports = set()
        for answer in answers[:2]:
            lines = {line for line in answer.text.splitlines() if line.startswith("a=candidate")}
            assert lines
            assert {line.split()[4] for line in lines} == {"192.0.2.7", "192.0.2.8"}
            for line in lines:
                ports.add(int(line.split()[5]))
        assert ports == {18290, 18291}
        assert await sessions(server) == 2


async def test_a_server_that_listens_at_a_name_takes_calls(server_with):
    async with call(server_with("--host", "localhost"), settings=SETTINGS) as caller:
        caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")


async def test_a_full_server_takes_no_call(server_with):
    server = server_with(AURICLE_MAX_SESSIONS="1")
    async with call(server, settings=SETTINGS), client_of(server) as client:
        other = Caller()
        answer = await post_offer(client, await other.offer(), None, "/v1/realtime/calls")
        await other.peer.close()
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == "server_overloaded"


async def test_calls_can_be_turned_off(server_with):
    async with client_of(server_with(AURICLE_WEBRTC="false")) as client:
        caller = Caller()
        answer = await post_offer(client, await caller.offer(), None, "/v1/realtime/calls")
        await caller.peer.close()
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "webrtc_disabled")

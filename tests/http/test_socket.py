"""The socket as raw clients see it: handshakes, the order of events, and the flows of the clients that are out there."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from clips import ALAW, PCM_24K, ULAW, silence, wire_bytes
from conftest import RunningServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wire import (
    ADDED,
    BEST_OF_TIMES,
    CLEARED,
    COMMITTED,
    COMPLETED,
    CREATED,
    DELETED,
    DELTA,
    DONE,
    FIRST_WORDS,
    ITEM_EVENTS,
    STARTED,
    STOPPED,
    UPDATED,
    DialectName,
    Wire,
    best_of_times,
    check_event,
    kinds,
    open_wire,
    opening,
    settings_of,
    spoken,
)
from words import word_error_rate

from auricle.audio.formats import AudioFormat, SampleDecoder

LOGPROBS = "item.input_audio_transcription.logprobs"
MAX_WER = 0.1
MODEL = {"model": "gpt-4o-transcribe"}
VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
LIVE_VAD = VAD | {"silence_duration_ms": 200}
"""What the live service sets where nothing was asked for."""

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])


def said(text: str, words: str = BEST_OF_TIMES) -> bool:
    return word_error_rate(words, text) <= MAX_WER


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


# Order


@both_dialects
def test_manual_turn_has_its_events_in_order(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
        wire.finish()
    turn = [COMMITTED, *ITEM_EVENTS[dialect], DELTA, COMPLETED]
    told = _with_one_delta(kinds(wire.events))
    assert told == [CREATED[dialect], UPDATED[dialect], *turn, *turn, CLEARED]
    assert all(said(text) for text in wire.transcripts)
    first, second = [event for event in wire.events if event["type"] == COMMITTED]
    assert first["previous_item_id"] is None
    assert second["previous_item_id"] == first["item_id"]
    for event in wire.events:
        if event["type"] in ITEM_EVENTS[dialect]:
            assert event["item"]["content"][0]["transcript"] is None
            assert event["previous_item_id"] in (None, first["item_id"])


@both_dialects
def test_detected_turns_have_their_events_in_order(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(spoken(best_of_times()))
        wire.until(COMPLETED)
        wire.append(spoken(best_of_times()))
        wire.until(COMPLETED)
    turn = [STARTED, STOPPED, COMMITTED, *ITEM_EVENTS[dialect], DELTA, COMPLETED]
    assert _with_one_delta(kinds(wire.events)) == [CREATED[dialect], UPDATED[dialect], *turn, *turn]
    assert all(said(text) for text in wire.transcripts)
    assert len({event.get("item_id") or event["item"]["id"] for event in wire.events[2:]}) == 2


def _with_one_delta(told: list[str]) -> list[str]:
    """The kinds without a delta that follows another: how many a text comes in is the engine's business."""
    return [kind for index, kind in enumerate(told) if not (kind == DELTA and told[index - 1] == DELTA)]


def test_clock_counts_the_audio_of_the_whole_session_in_steps_of_32_ms(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        for _ in range(2):
            wire.append(spoken(best_of_times()))  # 5.8 s
        wire.finish()
    [first, second] = [event["audio_start_ms"] for event in wire.events if event["type"] == STARTED]
    [first_end, second_end] = [event["audio_end_ms"] for event in wire.events if event["type"] == STOPPED]
    assert (first + 300) % 32 == (second + 300) % 32 == first_end % 32 == second_end % 32 == 0
    assert 0 < first < first_end <= 5800 <= second < second_end <= 11600
    assert second - first == pytest.approx(5800, abs=64)
    # The end holds the 500 ms of silence that closed the turn, rounded up to windows; the voice ends near 4550 ms.
    assert 4550 + 300 < first_end < 4800 + 700


def test_prefix_before_the_session_begins_is_cut_off(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(turn_detection=VAD | {"prefix_padding_ms": 5_000})
        wire.append(spoken(best_of_times()))
        assert wire.until(STARTED)[-1]["audio_start_ms"] == 0


def test_events_sent_before_the_first_is_read_are_taken_in_order(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.send_update(transcription=MODEL, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
    assert kinds(wire.events)[:5] == ["session.created", "session.updated", COMMITTED, ADDED, DONE]
    assert said(wire.text)


def test_three_sessions_at_once_do_not_mix(server: RunningServer) -> None:
    with open_wire(server.socket_url) as one, open_wire(server.socket_url, "beta") as two:
        with open_wire(server.socket_url) as three:
            for wire in (one, two, three):
                wire.send_update(transcription=MODEL, turn_detection=VAD)
            for second in range(14):
                for wire, samples in ((one, opening()), (two, best_of_times()), (three, silence(9))):
                    if part := samples[second * 16_000 : (second + 1) * 16_000].size:
                        wire.append(samples[second * 16_000 : second * 16_000 + part])
            for wire in (one, two):
                wire.append(silence(1))
            for wire in (one, two, three):
                wire.finish()
    assert said(one.text, FIRST_WORDS)
    assert said(two.text)
    assert three.transcripts == []


# Flows of known clients


@both_dialects
def test_agents_flow_ends_with_commit_and_clear(server: RunningServer, dialect: DialectName) -> None:
    """openai-agents: update with a bare semantic_vad, audio, and at the end `commit` with an id and `clear`."""
    with open_wire(server.socket_url, dialect) as wire:
        wire.until(CREATED[dialect])
        session = wire.update(
            format={"type": "audio/pcm", "rate": 24_000},
            transcription=MODEL,
            turn_detection={"type": "semantic_vad"},
        )
        assert settings_of(session, dialect)["turn_detection"] == {"type": "semantic_vad", "eagerness": "auto"}
        wire.append(best_of_times())  # the end comes before the turn's
        wire.commit(event_id="final_commit")
        wire.finish()
    assert said(wire.text)


@both_dialects
def test_commit_after_the_last_turn_names_its_event_in_the_error(server: RunningServer, dialect: DialectName) -> None:
    """openai-agents forgives an empty commit only with its own event id in the error."""
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(spoken(best_of_times(), 0.7))
        wire.until(COMMITTED)
        wire.clear()
        wire.until(CLEARED)
        wire.commit(event_id="final_commit")
        error = wire.until("error")[-1]["error"]
        wire.finish()
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "final_commit")
    assert said(wire.text)


@pytest.mark.parametrize("model", ["gpt-realtime-whisper", "gpt-live-transcribe"])
@both_dialects
def test_self_committing_model_means_no_turn_detection_where_none_was_given(
    server: RunningServer, dialect: DialectName, model: str
) -> None:
    """LiveKit leaves `turn_detection` out for these two models and commits by itself."""
    with open_wire(server.socket_url, dialect, query=f"intent=transcription&model={model}") as wire:
        assert settings_of(wire.receive()["session"], dialect)["turn_detection"] is None
    with open_wire(server.socket_url, dialect) as wire:
        assert settings_of(wire.receive()["session"], dialect)["turn_detection"] == LIVE_VAD
        assert settings_of(wire.update(transcription={"model": model}), dialect)["turn_detection"] is None
        wire.append(spoken(best_of_times()))
        wire.commit()
        wire.until(COMPLETED)
    assert STARTED not in kinds(wire.events)
    assert said(wire.text)


@pytest.mark.parametrize("model", ["gpt-realtime-whisper", "gpt-live-transcribe"])
@both_dialects
def test_self_committing_model_keeps_turn_detection_that_was_given(
    server: RunningServer, dialect: DialectName, model: str
) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        together = wire.update(transcription={"model": model}, turn_detection={"type": "server_vad"})
        assert settings_of(together, dialect)["turn_detection"] == LIVE_VAD
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(turn_detection=VAD)
        assert settings_of(wire.update(transcription={"model": model}), dialect)["turn_detection"] == VAD
    with open_wire(server.socket_url, dialect, query=f"intent=transcription&model={model}") as wire:
        assert settings_of(wire.update(turn_detection=VAD), dialect)["turn_detection"] == VAD


def test_livekit_flow_updates_keywords_in_mid_speech(server: RunningServer) -> None:
    audio = best_of_times()
    hints = {"model": "gpt-transcribe", "languages": ["en"], "keywords": ["Dickens"], "prompt": "A novel."}
    vad = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 600, "silence_duration_ms": 350}
    with open_wire(server.socket_url, query="intent=transcription&model=gpt-transcribe") as wire:
        wire.send_update(transcription=hints, turn_detection=vad)
        wire.append(audio[:32_000], chunk_bytes=2400)
        wire.send_update(transcription=hints | {"keywords": []})
        wire.append(spoken(audio[32_000:]), chunk_bytes=2400)
        told = wire.until(COMPLETED)
    first, second = [event["session"]["audio"]["input"] for event in told if event["type"] == "session.updated"]
    assert first["transcription"] == {**hints, "language": None}
    assert second["transcription"] == {**hints, "language": None, "keywords": []}
    assert second["turn_detection"] == vad
    assert told[-1]["usage"]["type"] == "duration"
    assert said(wire.text)


def test_livekit_reuses_a_socket_for_the_next_stream(server: RunningServer) -> None:
    with open_wire(server.socket_url, query="intent=transcription&model=gpt-4o-transcribe") as wire:
        for _ in range(2):
            wire.send_update(transcription=MODEL | {"language": "en"}, turn_detection=VAD)
            wire.append(spoken(best_of_times()))
            wire.until(COMPLETED)
    assert len(wire.transcripts) == 2
    assert all(said(text) for text in wire.transcripts)


def test_pipecat_flow_sends_audio_before_its_settings(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.append(silence(0.5), chunk_bytes=960)
        wire.until("session.created")
        session = wire.update(
            transcription={"model": "gpt-transcribe", "language": "en"},
            turn_detection={"type": "server_vad"},
            noise_reduction={"type": "near_field"},
        )
        wire.append(spoken(best_of_times()), chunk_bytes=960)
        wire.finish()
    assert session["audio"]["input"]["turn_detection"] == LIVE_VAD
    assert session["audio"]["input"]["noise_reduction"]["type"] == "near_field"
    assert said(wire.text)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_vercel_flow_makes_one_item_of_everything(server: RunningServer, rate: int) -> None:
    """@ai-sdk/openai waits for nothing: update, all audio, one commit; the first `completed` ends it."""
    subprotocols = ["realtime", "openai-insecure-api-key.any-key"]
    with open_wire(server.socket_url, key=None, subprotocols=subprotocols) as wire:
        wire.send_update(
            format={"type": "audio/pcm", "rate": rate},
            transcription={"model": "gpt-realtime-whisper", "language": "en", "delay": "low"},
            turn_detection=None,
            include=[LOGPROBS],
        )
        wire.append(spoken(opening()), AudioFormat("audio/pcm", rate))
        wire.commit()
        told = wire.until(COMPLETED)
    assert kinds(told).count(COMMITTED) == 1
    updated = next(event["session"] for event in told if event["type"] == "session.updated")
    assert updated["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": rate}
    assert updated["audio"]["input"]["transcription"]["delay"] == "low"
    assert said(wire.text, FIRST_WORDS)


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


def _log_line(server: RunningServer, session_id: str) -> str:
    """The one line that the log has about a session once it has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if lines := [line for line in server.output if session_id in line]:
            assert len(lines) == 1
            return lines[0]
        time.sleep(0.02)
    raise AssertionError(f"nothing in the log about {session_id}")


# Committing


@pytest.mark.parametrize(
    ("audio_format", "on_wire", "size"),
    [
        (PCM_24K, {"type": "audio/pcm", "rate": 24_000}, 4_800),
        (AudioFormat("audio/pcm", 16_000), {"type": "audio/pcm", "rate": 16_000}, 3_200),
        (AudioFormat("audio/pcm", 48_000), {"type": "audio/pcm", "rate": 48_000}, 9_600),
        (ULAW, {"type": "audio/pcmu"}, 800),
        (ALAW, {"type": "audio/pcma"}, 800),
    ],
    ids=str,
)
def test_commit_needs_100_ms_of_audio(
    server: RunningServer, audio_format: AudioFormat, on_wire: dict[str, Any], size: int
) -> None:
    sound = wire_bytes(best_of_times(), audio_format)
    with open_wire(server.socket_url) as wire:
        wire.update(format=on_wire, turn_detection=None)
        wire.append_bytes(sound[: size * 99 // 100])
        wire.commit(event_id="early")
        error = wire.until("error")[-1]["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("input_audio_buffer_commit_empty", None, "early")
        assert "Expected at least 100ms of audio, but buffer only has 99.00ms of audio." in error["message"]
        wire.append_bytes(sound[size * 99 // 100 : size])
        wire.commit()
        wire.until(COMMITTED)
        wire.commit()
        assert "but buffer only has 0.00ms of audio." in wire.until("error")[-1]["error"]["message"]


@both_dialects
def test_commit_in_mid_speech_takes_the_open_item_and_tells_no_end(server: RunningServer, dialect: DialectName) -> None:
    audio = opening()
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(best_of_times())
        started = wire.until(STARTED)[-1]
        wire.commit()
        wire.append(spoken(audio[best_of_times().size :]))
        wire.finish()
    of_first = [event for event in wire.events if event.get("item_id") == started["item_id"]]
    assert [kind for kind in kinds(of_first) if kind != DELTA] == [STARTED, COMMITTED, COMPLETED]
    assert said(of_first[-1]["transcript"])
    assert len(wire.transcripts) > 1
    assert said(wire.text, FIRST_WORDS)


def test_silence_committed_by_hand_is_completed_with_no_words(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(silence(3))
        wire.commit()
        told = wire.until(COMPLETED)
    assert told[-1]["transcript"] == ""
    assert DELTA not in kinds(told)


def test_commit_by_hand_also_takes_silence_where_turns_are_detected(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(silence(1))
        wire.commit()
        told = wire.until(COMPLETED)
    assert kinds(told) == [COMMITTED, ADDED, DONE, COMPLETED]


def test_audio_in_pieces_of_odd_sizes_gives_the_same_text(server: RunningServer) -> None:
    data = wire_bytes(best_of_times())
    texts = []
    for sizes in ([len(data)], [1, 3, 999, 4801, 7]):
        with open_wire(server.socket_url) as wire:
            wire.update(transcription=MODEL, turn_detection=None)
            position = piece = 0
            while position < len(data):
                size = sizes[piece % len(sizes)]
                wire.append_bytes(data[position : position + size])
                position, piece = position + size, piece + 1
            wire.commit()
            wire.until(COMPLETED)
            texts.append(wire.text)
    assert said(texts[0])
    assert texts[0] == texts[1]


def test_append_of_15_mib_is_taken(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(format={"type": "audio/pcm", "rate": 48_000}, turn_detection=None)
        wire.append_bytes(bytes(15 * 1024 * 1024))
        wire.clear()
        wire.until(CLEARED)


# Clearing


def test_clear_of_an_empty_buffer_is_answered(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.clear()
        assert kinds(wire.until(CLEARED)) == ["session.created", CLEARED]


def test_clear_drops_what_is_not_committed(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(opening())
        wire.clear()
        wire.commit()
        assert wire.until(CLEARED, "error")[-1]["type"] == CLEARED
        assert wire.receive()["error"]["code"] == "input_audio_buffer_commit_empty"
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
    assert said(wire.text)


@both_dialects
def test_clear_in_mid_speech_abandons_the_turn(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(best_of_times())
        abandoned = wire.until(STARTED)[-1]["item_id"]
        wire.clear()
        wire.append(spoken(silence(1), 1))
        wire.append(spoken(best_of_times()))
        wire.finish()
    assert kinds([event for event in wire.events if event.get("item_id") == abandoned]) == [STARTED]
    assert len(wire.transcripts) == 1
    assert said(wire.text)
    [first, second] = [event["audio_start_ms"] for event in wire.events if event["type"] == STARTED]
    assert second > 4800 + 2000 > first  # the clock goes on


def test_clear_leaves_a_committed_item_alone(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        wire.finish()
    assert said(wire.text)


# Items


@both_dialects
@pytest.mark.parametrize(
    ("audio_format", "on_wire"),
    [(PCM_24K, {"type": "audio/pcm", "rate": 24_000}), (ULAW, {"type": "audio/pcmu"}), (ALAW, {"type": "audio/pcma"})],
    ids=["pcm", "ulaw", "alaw"],
)
def test_retrieved_item_has_its_text_and_its_audio(
    server: RunningServer, dialect: DialectName, audio_format: AudioFormat, on_wire: dict[str, Any]
) -> None:
    data = wire_bytes(best_of_times(), audio_format)
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(format=on_wire, transcription=MODEL, turn_detection=None)
        wire.append_bytes(data)
        wire.commit()
        item_id = wire.until(COMPLETED)[-1]["item_id"]
        item = wire.retrieve(item_id)
    assert item["id"] == item_id
    [part] = item["content"]
    assert part["transcript"] == wire.text
    given, kept = (SampleDecoder(audio_format).decode(sound) for sound in (data, base64.b64decode(part["audio"])))
    assert abs(given.size - kept.size) <= 2
    size = min(given.size, kept.size)
    assert np.corrcoef(given[:size], kept[:size])[0, 1] > 0.98  # it was resampled to 16 kHz and back


def test_retrieved_audio_of_a_turn_is_what_its_times_say(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(spoken(best_of_times()))
        told = wire.until(COMPLETED)
        audio = base64.b64decode(wire.retrieve(told[-1]["item_id"])["content"][0]["audio"])
    start_ms = next(event["audio_start_ms"] for event in told if event["type"] == STARTED)
    end_ms = next(event["audio_end_ms"] for event in told if event["type"] == STOPPED)
    assert len(audio) / 48 == pytest.approx(end_ms - start_ms, abs=1)


def test_item_without_transcription_is_retrieved_without_text(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        item = wire.retrieve(wire.until(COMMITTED)[-1]["item_id"])
    assert item["content"][0]["transcript"] is None
    assert item["content"][0]["audio"]


@both_dialects
def test_deleted_item_is_gone_and_the_next_follows_the_one_before(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        ids = []
        for _ in range(2):
            wire.append(best_of_times())
            wire.commit()
            ids.append(wire.until(COMPLETED)[-1]["item_id"])
        wire.send("conversation.item.delete", item_id=ids[1])
        assert wire.until(DELETED)[-1]["item_id"] == ids[1]
        wire.send("conversation.item.retrieve", item_id=ids[1], event_id="gone")
        assert wire.until("error")[-1]["error"]["event_id"] == "gone"
        wire.append(best_of_times())
        wire.commit()
        assert wire.until(COMMITTED)[-1]["previous_item_id"] == ids[0]
        wire.until(COMPLETED)


def test_item_deleted_before_its_text_gets_none_and_holds_up_nobody(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(opening())
        wire.commit()
        item_id = wire.until(COMMITTED)[-1]["item_id"]
        wire.send("conversation.item.delete", item_id=item_id)
        wire.append(best_of_times())
        wire.commit()
        told = wire.until(DELETED)
        completed = wire.until(COMPLETED)[-1] if COMPLETED not in kinds(told) else told[-1]
    assert completed["item_id"] != item_id or COMPLETED in kinds(told)
    assert said(wire.transcripts[-1])


# What a transcript comes with


@both_dialects
def test_logprobs_come_when_they_are_asked_for(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=None, include=[LOGPROBS])
        wire.append(best_of_times())
        wire.commit()
        told = wire.until(COMPLETED)
        wire.update(include=None)
        wire.append(best_of_times())
        wire.commit()
        without = wire.until(COMPLETED)
    completed = told[-1]
    entries = completed["logprobs"]
    assert len(entries) > 5
    assert "".join(entry["token"] for entry in entries) == completed["transcript"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries) == completed["transcript"].encode()
    assert all(entry["logprob"] <= 0 for entry in entries)
    deltas = [event for event in told if event["type"] == DELTA]
    assert [entry for event in deltas for entry in event["logprobs"]] == entries
    for event in without:
        assert "logprobs" not in event


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15"])
def test_usage_of_the_4o_family_is_in_tokens(server: RunningServer, model: str) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": model, "prompt": "three words here"}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        usage = wire.until(COMPLETED)[-1]["usage"]
    details = usage["input_token_details"]
    assert usage["type"] == "tokens"
    assert details["audio_tokens"] == pytest.approx(48, abs=1)  # 4.8 s, ten a second
    assert details["text_tokens"] > 0
    assert usage["input_tokens"] == details["audio_tokens"] + details["text_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] > 5


@pytest.mark.parametrize("model", ["whisper-1", "gpt-realtime-whisper", "gpt-transcribe", "gpt-live-transcribe"])
def test_usage_of_models_by_the_minute_is_a_duration(server: RunningServer, model: str) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": model}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        assert wire.until(COMPLETED)[-1]["usage"] == {"type": "duration", "seconds": 5}


def test_empty_transcript_has_usage_too(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": "whisper-1"}, turn_detection=None)
        wire.append(silence(2))
        wire.commit()
        assert wire.until(COMPLETED)[-1]["usage"] == {"type": "duration", "seconds": 2}


# Settings that change on the way


@both_dialects
@pytest.mark.parametrize("turn_detection", [VAD, None], ids=["server_vad", "manual"])
def test_no_text_is_told_without_transcription(
    server: RunningServer, dialect: DialectName, turn_detection: dict[str, Any] | None
) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(turn_detection=turn_detection)
        wire.append(spoken(best_of_times()))
        if turn_detection is None:
            wire.commit()
        wire.until(COMMITTED)
        wire.update(transcription=MODEL)  # answered after whatever may have been told of the item
        wire.append(spoken(best_of_times()))
        if turn_detection is None:
            wire.commit()
        wire.until(COMPLETED)
    first, second = [event["item_id"] for event in wire.events if event["type"] == COMMITTED]
    assert [event["item_id"] for event in wire.events if event["type"] in (DELTA, COMPLETED)] == [second] * 2
    assert first != second


def test_transcription_can_be_turned_off_again(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        assert wire.update(transcription=None)["audio"]["input"]["transcription"] is None
        wire.append(best_of_times())
        wire.commit()
        wire.until(DONE)
        wire.update()
        wire.append(best_of_times())
        wire.commit()
        wire.until(DONE)
    assert wire.transcripts == []


def test_update_in_mid_speech_is_for_items_committed_later(server: RunningServer) -> None:
    """The item that is open gets the settings at its commit."""
    with open_wire(server.socket_url) as wire:
        wire.update(turn_detection=VAD)
        wire.append(best_of_times())
        wire.until(STARTED)
        wire.update(transcription={"model": "whisper-1"})
        wire.append(silence(1))
        completed = wire.until(COMPLETED)[-1]
    assert completed["usage"]["type"] == "duration"
    assert said(wire.text)


def test_turn_detection_turned_off_in_mid_speech_keeps_the_buffer(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(best_of_times())
        started = wire.until(STARTED)[-1]
        wire.update(turn_detection=None)
        wire.append(silence(2))
        wire.commit()
        told = wire.until(COMPLETED)
    assert STOPPED not in kinds(told)
    assert {event["item_id"] for event in told if "item_id" in event} == {started["item_id"]}
    assert said(wire.text)


def test_turn_detection_turned_on_hears_the_audio_that_follows(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(silence(1))
        wire.update(turn_detection=VAD)
        wire.append(spoken(best_of_times()))
        wire.finish()
    assert kinds(wire.events).count(STARTED) == 1
    assert said(wire.text)


def test_silence_that_ends_a_turn_can_be_changed(server: RunningServer) -> None:
    """The pauses of the opening are shorter than a second, and the first is longer than 100 ms."""
    turns = {}
    for silence_ms in (100, 2000):
        with open_wire(server.socket_url) as wire:
            wire.update(turn_detection=VAD)
            wire.update(turn_detection={"type": "server_vad", "silence_duration_ms": silence_ms})
            wire.append(spoken(opening(), 2.5))
            wire.until(STARTED)
            wire.clear()
            turns[silence_ms] = kinds(wire.until(CLEARED)).count(STOPPED)
    assert turns[100] > 2
    assert turns[2000] == 1


def test_format_can_change_between_items(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        for audio_format, on_wire in (
            (PCM_24K, {"type": "audio/pcm", "rate": 24_000}),
            (ULAW, {"type": "audio/pcmu"}),
            (AudioFormat("audio/pcm", 8_000), {"type": "audio/pcm", "rate": 8_000}),
            (ALAW, {"type": "audio/pcma"}),
        ):
            assert wire.update(format=on_wire)["audio"]["input"]["format"] == on_wire
            wire.append(best_of_times(), audio_format)
            wire.commit()
            wire.until(COMPLETED)
    assert all(word_error_rate(BEST_OF_TIMES, text) <= 0.2 for text in wire.transcripts)
    assert len(wire.transcripts) == 4


def test_format_can_change_within_an_item(server: RunningServer) -> None:
    """Whether the audio before is kept or dropped is not known of OpenAI's service; we convert and keep it."""
    audio = best_of_times()
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(audio[:40_000])
        wire.update(format={"type": "audio/pcmu"})
        wire.append(audio[40_000:], ULAW)
        wire.commit()
        wire.until(COMPLETED)
    assert word_error_rate(BEST_OF_TIMES, wire.text) <= 0.2


# The end


@both_dialects
def test_server_that_is_told_to_stop_finishes_open_items_and_closes_with_1001(
    server_with: Callable[..., RunningServer], dialect: DialectName
) -> None:
    server = server_with()
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        wire.append(best_of_times())
        wire.until(STARTED)
        wire.update()  # answered once all audio before it is heard
        assert server.stop() == 0
        code, reason = wire.goodbye()
    assert (code, reason) == (1001, "The server is shutting down.")
    assert kinds(wire.events)[-1] == COMPLETED
    assert said(wire.text)


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


def test_wire_refuses_what_it_was_not_told_to_expect(server: RunningServer) -> None:
    """The helper of all these tests: an error nobody waits for fails the test."""
    with pytest.raises(AssertionError), open_wire(server.socket_url) as wire:
        wire.commit()
        Wire.until(wire, COMMITTED)

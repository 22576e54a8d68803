"""Whole sessions as the clients that are out there hold them, and the order of events in any session."""

from __future__ import annotations

import pytest
from clips import silence
from conftest import RunningServer
from wire import (
    ADDED,
    CLEARED,
    COMMITTED,
    COMPLETED,
    CREATED,
    DELTA,
    DONE,
    FIRST_WORDS,
    ITEM_EVENTS,
    LIVE_VAD,
    LOGPROBS,
    MODEL,
    STARTED,
    STOPPED,
    UPDATED,
    VAD,
    DialectName,
    Wire,
    best_of_times,
    kinds,
    open_wire,
    opening,
    settings_of,
    spoken,
)
from words import said

from auricle.audio.formats import AudioFormat

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])


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
    turn = [COMMITTED, *ITEM_EVENTS[dialect], COMPLETED]
    assert _without_deltas(wire) == [CREATED[dialect], UPDATED[dialect], *turn, *turn, CLEARED]
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
    turn = [STARTED, STOPPED, COMMITTED, *ITEM_EVENTS[dialect], COMPLETED]
    assert _without_deltas(wire) == [CREATED[dialect], UPDATED[dialect], *turn, *turn]
    assert all(said(text) for text in wire.transcripts)
    assert len({event.get("item_id") or event["item"]["id"] for event in wire.events[2:]}) == 2


def _without_deltas(wire: Wire) -> list[str]:
    """The kinds of all events but deltas: how many there are, and how soon, is the engine's business."""
    told = kinds(wire.events)
    assert DELTA in told
    return [kind for kind in told if kind != DELTA]


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
    url = server.socket_url
    with open_wire(url) as one, open_wire(url, "beta") as two, open_wire(url) as three:
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

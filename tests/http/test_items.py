"""From audio to items and their text: commits, clears, items, and what a transcript comes with."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from clips import ALAW, PCM_24K, ULAW, silence, wire_bytes
from conftest import RunningServer
from wire import (
    ADDED,
    CLEARED,
    COMMITTED,
    COMPLETED,
    DELETED,
    DELTA,
    DONE,
    FIRST_WORDS,
    LOGPROBS,
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
from words import said

from auricle.audio.formats import AudioFormat, SampleDecoder

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])


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
        wire.until(CLEARED)
        wire.append(spoken(silence(1), 1))
        wire.append(spoken(best_of_times()))
        wire.finish()
    told = kinds([event for event in wire.events if event.get("item_id") == abandoned])
    assert [kind for kind in told if kind != DELTA] == [STARTED]
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
        wire.until(DELETED)
        seen = len(wire.events)
        wire.until(COMPLETED)
        wire.update()
    assert item_id not in [event.get("item_id") for event in wire.events[seen:]]
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

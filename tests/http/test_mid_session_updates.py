"""Settings that change while a session runs."""

from __future__ import annotations

from typing import Any

import pytest
from clips import ALAW, PCM_24K, ULAW, silence
from conftest import RunningServer
from wire import (
    BEST_OF_TIMES,
    CLEARED,
    COMMITTED,
    COMPLETED,
    DELTA,
    DONE,
    LIVE_VAD,
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
    settings_of,
    spoken,
)
from words import said, word_error_rate

from auricle.audio.formats import AudioFormat

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])


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
    assert {event["item_id"] for event in wire.events if event["type"] in (DELTA, COMPLETED)} == {second}
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


# Merging

FULL: dict[str, Any] = {
    "format": {"type": "audio/pcmu"},
    "transcription": {
        "model": "gpt-transcribe",
        "language": "en",
        "prompt": "Dickens",
        "languages": ["en"],
        "keywords": ["Copperfield", "Twist"],
        "delay": "low",
    },
    "noise_reduction": {"type": "near_field", "strength": 0.5},
    "turn_detection": {
        "type": "server_vad",
        "threshold": 0.25,
        "prefix_padding_ms": 160,
        "silence_duration_ms": 640,
    },
    "include": [LOGPROBS],
}
"""Every field with a value that is not the default."""


@both_dialects
def test_every_setting_is_echoed_as_it_was_given(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        assert settings_of(wire.update(**FULL), dialect) == FULL
        assert settings_of(wire.update(), dialect) == FULL


MERGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # patch: what differs from FULL afterwards
    "nothing": ({}, {}),
    "model alone": (
        {"transcription": {"model": "whisper-1"}},
        {"transcription": FULL["transcription"] | {"model": "whisper-1"}},
    ),
    "prompt alone": (
        {"transcription": {"prompt": "Thackeray"}},
        {"transcription": FULL["transcription"] | {"prompt": "Thackeray"}},
    ),
    "language null": (
        {"transcription": {"language": None}},
        {"transcription": FULL["transcription"] | {"language": None}},
    ),
    "keywords replaced, not joined": (
        {"transcription": {"keywords": ["Drood"]}},
        {"transcription": FULL["transcription"] | {"keywords": ["Drood"]}},
    ),
    "keywords empty": (
        {"transcription": {"keywords": []}},
        {"transcription": FULL["transcription"] | {"keywords": []}},
    ),
    "transcription null": ({"transcription": None}, {"transcription": None}),
    "noise reduction null": ({"noise_reduction": None}, {"noise_reduction": None}),
    "noise reduction of another kind": (
        {"noise_reduction": {"type": "far_field"}},
        {"noise_reduction": {"type": "far_field", "strength": 0.5}},
    ),
    "turn detection null": ({"turn_detection": None}, {"turn_detection": None}),
    "one field of server_vad": (
        {"turn_detection": {"type": "server_vad", "threshold": 0.75}},
        {"turn_detection": FULL["turn_detection"] | {"threshold": 0.75}},
    ),
    "semantic_vad": (
        {"turn_detection": {"type": "semantic_vad"}},
        {"turn_detection": {"type": "semantic_vad", "eagerness": "auto"}},
    ),
    "include null": ({"include": None}, {"include": None}),
    "include empty": ({"include": []}, {"include": []}),
    "format": (
        {"format": {"type": "audio/pcm", "rate": 24_000}},
        {"format": {"type": "audio/pcm", "rate": 24_000}},
    ),
    "what only replies would use": (
        {
            "turn_detection": {
                "type": "server_vad",
                "create_response": True,
                "interrupt_response": False,
                "idle_timeout_ms": 6_000,
            }
        },
        {},
    ),
    "several": (
        {"transcription": {"delay": "high"}, "include": None, "turn_detection": {"type": "server_vad"}},
        {"transcription": FULL["transcription"] | {"delay": "high"}, "include": None},
    ),
}


@both_dialects
@pytest.mark.parametrize("name", MERGES)
def test_update_changes_what_it_names_and_nothing_else(server: RunningServer, dialect: DialectName, name: str) -> None:
    patch, changed = MERGES[name]
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(**FULL)
        assert settings_of(wire.update(**patch), dialect) == FULL | changed
        assert settings_of(wire.update(), dialect) == FULL | changed


@both_dialects
def test_what_was_null_begins_with_defaults(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(**FULL)
        wire.update(transcription=None, noise_reduction=None, turn_detection=None)
        session = wire.update(
            transcription={"model": "whisper-1"},
            noise_reduction={"type": "far_field"},
            turn_detection={"type": "server_vad"},
        )
    assert settings_of(session, dialect) == FULL | {
        "transcription": {"model": "whisper-1", "language": None, "prompt": None},
        "noise_reduction": {"type": "far_field", "strength": 1},
        "turn_detection": LIVE_VAD,
    }


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_other_rates_of_pcm_are_taken(server: RunningServer, rate: int) -> None:
    with open_wire(server.socket_url) as wire:
        on_wire = {"type": "audio/pcm", "rate": rate}
        assert wire.update(format=on_wire)["audio"]["input"]["format"] == on_wire


def test_beta_takes_the_fields_that_only_rest_answers(server: RunningServer) -> None:
    with open_wire(server.socket_url, "beta") as wire:
        session = {"modalities": ["text"], "input_audio_transcription": MODEL}
        wire.send("transcription_session.update", session=session)
        updated = wire.until("transcription_session.updated")[-1]["session"]
    assert "modalities" not in updated
    assert updated["input_audio_transcription"]["model"] == "gpt-4o-transcribe"

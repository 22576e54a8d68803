"""Text while the client speaks, through the outside door and with the real model.

Speech is sent in real time, as a microphone would, until there is some text. It has not ended then, however slow the
machine is.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from clips import silence
from conftest import RunningServer
from wire import (
    CLEARED,
    COMMITTED,
    COMPLETED,
    DELTA,
    ITEM_EVENTS,
    LOGPROBS,
    MODEL,
    STARTED,
    STOPPED,
    VAD,
    DialectName,
    Event,
    Wire,
    best_of_times,
    kinds,
    open_wire,
    opening,
    parsed,
    settings_of,
)
from words import said

from auricle.audio.formats import SAMPLE_RATE, Samples

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])
CHUNK_S = 0.1


def speak(wire: Wire, samples: Samples) -> tuple[Event, Samples]:
    """Speak until there is a delta. Returns it, and what is not said yet."""
    size = int(CHUNK_S * SAMPLE_RATE)
    for start in range(0, samples.size, size):
        wire.append(samples[start : start + size])
        with suppress(TimeoutError):
            wire.events.append(parsed(wire.socket.recv(CHUNK_S), wire.dialect))
            if wire.events[-1]["type"] == DELTA:
                return wire.events[-1], samples[start + size :]
    return wire.until(DELTA)[-1], samples[:0]


def without_deltas(told: list[str]) -> list[str]:
    return [kind for kind in told if kind != DELTA]


@both_dialects
def test_words_come_before_the_speech_has_ended(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        delta, rest = speak(wire, best_of_times())
        started = next(event for event in wire.events if event["type"] == STARTED)
        assert delta["item_id"] == started["item_id"]
        assert STOPPED not in kinds(wire.events)
        wire.append(rest)
        wire.append(silence(1))
        completed = wire.until(COMPLETED)[-1]
    assert completed["item_id"] == delta["item_id"]
    assert completed["transcript"].startswith(delta["delta"])
    assert said(completed["transcript"])
    told = without_deltas(kinds(wire.events))
    assert told[told.index(STARTED) :] == [STARTED, STOPPED, COMMITTED, *ITEM_EVENTS[dialect], COMPLETED]


@both_dialects
def test_words_before_a_commit_by_hand_have_the_id_of_the_commit(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        delta, rest = speak(wire, best_of_times())
        assert COMMITTED not in kinds(wire.events)
        wire.append(rest)
        wire.commit()
        completed = wire.until(COMPLETED)[-1]
        wire.append(best_of_times())
        wire.commit()
        wire.until(COMPLETED)
    first, second = [event for event in wire.events if event["type"] == COMMITTED]
    assert delta["item_id"] == first["item_id"] == completed["item_id"]
    assert second["item_id"] != second["previous_item_id"] == first["item_id"]
    assert all(said(text) for text in wire.transcripts)


def test_words_come_before_the_speech_has_ended_in_a_long_turn_too(server: RunningServer) -> None:
    """13 s with short pauses in one item: its stretches follow each other."""
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        _, rest = speak(wire, opening())
        wire.append(rest)
        wire.commit()
        completed = wire.until(COMPLETED)[-1]
    assert "age of wisdom" in completed["transcript"].lower()
    assert "age of foolishness" in completed["transcript"].lower()


def test_words_have_their_log_probabilities_when_they_come(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD, include=[LOGPROBS])
        first, rest = speak(wire, best_of_times())
        assert "".join(entry["token"] for entry in first["logprobs"]) == first["delta"]
        wire.append(rest)
        wire.append(silence(1))
        completed = wire.until(COMPLETED)[-1]
    deltas = [event for event in wire.events if event["type"] == DELTA]
    assert [entry for event in deltas for entry in event["logprobs"]] == completed["logprobs"]
    assert all(entry["logprob"] <= 0 for entry in completed["logprobs"])


@pytest.mark.parametrize(
    ("dialect", "delay"),
    [("ga", "minimal"), ("ga", "low"), ("ga", "medium"), ("ga", "high"), ("ga", "xhigh"), ("beta", "low")],
)
def test_every_delay_is_taken_and_gives_the_text(server: RunningServer, dialect: DialectName, delay: str) -> None:
    transcription: dict[str, Any] = MODEL | {"delay": delay}
    with open_wire(server.socket_url, dialect) as wire:
        session = wire.update(transcription=transcription, turn_detection=None)
        assert settings_of(session, dialect)["transcription"]["delay"] == delay
        for start in range(0, best_of_times().size, SAMPLE_RATE // 2):
            wire.append(best_of_times()[start : start + SAMPLE_RATE // 2])
        wire.commit()
        wire.until(COMPLETED)
    assert said(wire.text)


def test_words_of_a_turn_that_is_cleared_are_all_there_is_of_it(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        abandoned = speak(wire, best_of_times())[0]["item_id"]
        wire.clear()
        wire.until(CLEARED)
        seen = len(wire.events)
        wire.append(best_of_times())
        wire.commit()
        completed = wire.until(COMPLETED)[-1]
    assert abandoned not in [event.get("item_id") for event in wire.events[seen:]]
    assert said(completed["transcript"])


def test_an_item_with_words_cannot_be_retrieved_before_its_commit(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        item_id = speak(wire, best_of_times())[0]["item_id"]
        wire.send("conversation.item.retrieve", item_id=item_id, event_id="early")
        assert wire.until("error")[-1]["error"]["event_id"] == "early"
        wire.commit()
        wire.until(COMPLETED)
        assert wire.retrieve(item_id)["content"][0]["transcript"] == wire.text


def test_the_model_of_words_that_were_told_stays_that_of_their_item(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": "whisper-1"}, turn_detection=None)
        _, rest = speak(wire, best_of_times())
        wire.update(transcription={"model": "gpt-4o-transcribe"})
        wire.append(rest)
        wire.commit()
        first = wire.until(COMPLETED)[-1]
        wire.append(best_of_times())
        wire.commit()
        second = wire.until(COMPLETED)[-1]
    assert (first["usage"]["type"], second["usage"]["type"]) == ("duration", "tokens")
    assert all(said(text) for text in wire.transcripts)

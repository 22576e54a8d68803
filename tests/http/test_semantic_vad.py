"""Turns that a model judges, through the outside door and with the real models."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import RunningServer
from wire import MODEL, STOPPED, DialectName, kinds, open_wire, opening, settings_of, spoken
from words import said

OPENING = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity"
)
SEMANTIC: dict[str, Any] = {"type": "semantic_vad", "eagerness": "auto"}


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_turns_end_and_have_their_text(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        settings = settings_of(wire.update(transcription=MODEL, turn_detection=SEMANTIC), dialect)
        assert settings["turn_detection"]["type"] == "semantic_vad"
        wire.append(spoken(opening(), 5.0))
        wire.finish()
        assert STOPPED in kinds(wire.events)
        assert said(" ".join(wire.transcripts), OPENING)


def test_a_pause_of_half_a_second_need_not_end_a_turn(server: RunningServer) -> None:
    """The reader stops for 0.2 to 0.6 s at every comma."""
    counts = {}
    for turn_detection in (SEMANTIC, {"type": "server_vad", "silence_duration_ms": 200}):
        with open_wire(server.socket_url) as wire:
            wire.update(transcription=MODEL, turn_detection=turn_detection)
            wire.append(spoken(opening(), 5.0))
            wire.finish()
            counts[turn_detection["type"]] = kinds(wire.events).count(STOPPED)
    assert 1 <= counts["semantic_vad"] < counts["server_vad"]

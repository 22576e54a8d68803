"""Noise reduction through the outside door and with the real models."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from clips import shared_audio, shared_clips, silence
from conftest import RunningServer
from wire import MODEL, STARTED, VAD, DialectName, kinds, open_wire, opening, settings_of, spoken
from words import said, word_error_rate

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines import deepfilter
from auricle.engines.base import EngineError
from auricle.http.app import create_app
from auricle.settings import Settings

try:
    deepfilter.embedded_file()
except EngineError as error:
    REASON = error.message
else:
    REASON = ""
needs_model = pytest.mark.skipif(bool(REASON), reason=REASON)

OPENING = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity"
)
KINDS = ("near_field", "far_field")
NOISE = shared_clips("noise")
NOISY = [clip for clip in shared_clips("noisy") if clip["snr_db"] == 5]
needs_recordings = pytest.mark.skipif(not NOISE, reason="needs the recordings beside the repository")


def started_ms(server: RunningServer, samples: Samples, kind: str | None, dialect: DialectName = "ga") -> list[int]:
    """Where turns begin in some audio."""
    with open_wire(server.socket_url, dialect) as wire:
        noise_reduction = kind and {"type": kind}
        settings = wire.update(transcription=MODEL, turn_detection=VAD, noise_reduction=noise_reduction)
        assert settings_of(settings, dialect)["noise_reduction"] == (kind and {"type": kind, "strength": 1})
        wire.append(samples)
        wire.finish()
        return [event["audio_start_ms"] for event in wire.events if event["type"] == STARTED]


@needs_model
@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("kind", KINDS)
def test_speech_has_its_text(server: RunningServer, dialect: DialectName, kind: str) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD, noise_reduction={"type": kind})
        wire.append(spoken(opening()))
        wire.finish()
    assert said(" ".join(wire.transcripts), OPENING)


@needs_model
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level_db", [0, -30])
def test_turns_begin_where_they_do_without(server: RunningServer, kind: str, level_db: float) -> None:
    """A turn is told later, but nothing of it is lost."""
    samples = spoken(opening()) * np.float32(10 ** (level_db / 20))
    without = started_ms(server, samples, None)
    assert started_ms(server, samples, kind) == without != []


@needs_model
@pytest.mark.parametrize("kind", KINDS)
def test_speech_in_noise_begins_a_turn_and_noise_does_not(server: RunningServer, kind: str) -> None:
    speech = opening()
    noise = np.random.default_rng(1).normal(0, speech.std() * 10 ** (-5 / 20), speech.size + 3 * SAMPLE_RATE)
    samples = (np.concatenate([silence(2), speech, silence(1)]) + noise).astype(np.float32)
    begins = started_ms(server, samples, kind)
    assert begins
    assert min(begins) >= 1_500


@needs_model
@needs_recordings
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", NOISE, ids=lambda clip: clip["id"])
def test_no_noise_begins_a_turn(server: RunningServer, clip: dict, kind: str) -> None:
    assert started_ms(server, spoken(shared_audio(clip["file"])), kind) == []


@needs_model
@needs_recordings
def test_music_begins_a_turn_without_and_at_a_small_strength(server: RunningServer) -> None:
    (music,) = [shared_audio(clip["file"]) for clip in NOISE if clip["id"].startswith("music")]
    assert started_ms(server, spoken(music), None)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD, noise_reduction={"type": "near_field", "strength": 0.1})
        wire.append(spoken(music))
        wire.finish()
        assert STARTED in kinds(wire.events)


@needs_model
@needs_recordings
def test_speech_after_music_is_its_own_turn(server: RunningServer) -> None:
    (music,) = [shared_audio(clip["file"]) for clip in NOISE if clip["id"].startswith("music")]
    samples = np.concatenate([music, silence(1), opening(), silence(1)])
    begins = started_ms(server, samples, "near_field")
    assert begins
    assert min(begins) >= music.size / SAMPLE_RATE * 1000


@needs_model
@needs_recordings
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", NOISY, ids=lambda clip: clip["id"])
def test_speech_5_db_over_the_noise_begins_a_turn_where_it_does_without(
    server: RunningServer, clip: dict, kind: str
) -> None:
    samples = spoken(shared_audio(clip["file"]))
    without = started_ms(server, samples, None)
    assert without
    assert started_ms(server, samples, kind)[:1] == without[:1]


@needs_model
def test_it_can_be_turned_on_and_off_in_a_session(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        for noise_reduction in (None, {"type": "far_field"}, {"type": "near_field", "strength": 0.5}, None):
            wire.update(transcription=MODEL, turn_detection=VAD, noise_reduction=noise_reduction)
            wire.append(spoken(opening()))
        wire.finish()
    assert word_error_rate(" ".join([OPENING] * 4), " ".join(wire.transcripts)) <= 0.1


# Without the model


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 400
    return response.json()["error"]


async def test_a_server_without_the_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise EngineError("It is not installed.")

    monkeypatch.setattr(deepfilter, "embedded_file", missing)
    transport = httpx.ASGITransport(create_app(Settings()))
    asked = {"type": "near_field"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000/v1/realtime") as client:
        session = {"type": "transcription", "audio": {"input": {"noise_reduction": asked}}}
        error = error_of(await client.post("/client_secrets", json={"session": session}))
        assert (error["code"], error["param"]) == ("invalid_value", "session.audio.input.noise_reduction.type")
        assert "auricle[denoise]" in error["message"]
        error = error_of(await client.post("/transcription_sessions", json={"input_audio_noise_reduction": asked}))
        assert (error["code"], error["param"]) == ("invalid_value", "input_audio_noise_reduction.type")
        nothing = {"type": "transcription", "audio": {"input": {"noise_reduction": None}}}
        assert (await client.post("/client_secrets", json={"session": nothing})).status_code == 200

"""Recordings of many voices and noises through the socket, where they lie beside the repository."""

from __future__ import annotations

import pytest
from clips import PCM_24K, ULAW, shared_audio, shared_clips
from conftest import RunningServer
from wire import MODEL, VAD, open_wire, spoken
from words import word_error_rate

CLEAN = [clip for clip in shared_clips("clean") if clip["seconds"] <= 12][::6]
TELEPHONE = [clip for clip in shared_clips("telephone") if "scoring" not in clip and clip["seconds"] <= 12]
NOISE = shared_clips("noise")

needs_recordings = pytest.mark.skipif(not NOISE, reason="needs the recordings beside the repository")


def text_of(server: RunningServer, clip: dict, **settings: object) -> str:
    audio_format = ULAW if settings.get("format") == {"type": "audio/pcmu"} else PCM_24K
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, **settings)
        wire.append(spoken(shared_audio(clip["file"])), audio_format)
        if settings.get("turn_detection") is None:
            wire.commit()
        wire.finish()
        return " ".join(filter(None, wire.transcripts))


@needs_recordings
def test_clean_speech_is_understood(server: RunningServer) -> None:
    texts = [text_of(server, clip, turn_detection=VAD) for clip in CLEAN]
    assert word_error_rate(" ".join(clip["text"] for clip in CLEAN), " ".join(texts)) <= 0.12


@needs_recordings
def test_telephone_speech_is_understood(server: RunningServer) -> None:
    texts = [text_of(server, clip, turn_detection=VAD, format={"type": "audio/pcmu"}) for clip in TELEPHONE]
    assert word_error_rate(" ".join(clip["text"] for clip in TELEPHONE), " ".join(texts)) <= 0.1


@needs_recordings
@pytest.mark.parametrize("turn_detection", [VAD, None], ids=["server_vad", "by hand"])
@pytest.mark.parametrize("clip", NOISE, ids=lambda clip: clip["id"])
def test_noise_gives_no_text(server: RunningServer, clip: dict, turn_detection: dict | None) -> None:
    assert text_of(server, clip, turn_detection=turn_detection) == ""

"""A server whose model is another server: what is told of a session's speech, and of what fails there."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator

import httpx
import pytest
from conftest import RunningServer, start_server
from wire import COMPLETED, DELTA, FAILED, LOGPROBS, VAD, WORDS, best_of_times, kinds, open_wire, spoken
from words import said

from auricle.audio.formats import SAMPLE_RATE

THEIRS, TIMED, GONE = "upstream/moonshine/tiny-en", "upstream/timed", "upstream/gone"
KEY = "sk-upstream-secret"


@pytest.fixture(scope="module")
def front(server: RunningServer) -> Iterator[RunningServer]:
    """The server that asks `server`."""
    models = {
        THEIRS: {"base_url": server.base_url, "api_key": KEY, "logprobs": True},
        TIMED: {"base_url": server.base_url, "api_key": KEY, "model": "moonshine/tiny-en", "word_times": True},
        GONE: {"base_url": "http://127.0.0.1:9/v1", "api_key": KEY, "max_retries": 0},
    }
    # The first call waits until the other server has a process for it.
    running = start_server(AURICLE_MODEL=THEIRS, AURICLE_MODELS=json.dumps(models), AURICLE_MAX_LAG_S="60")
    yield running
    running.stop()
    assert not any(KEY in line for line in running.output)


def test_speech_is_transcribed_by_the_other_server(front: RunningServer) -> None:
    with open_wire(front.socket_url) as wire:
        wire.update(transcription={"model": "gpt-4o-transcribe"}, turn_detection=VAD)
        wire.append(spoken(best_of_times()))
        completed = wire.until(COMPLETED)[-1]
        assert said(completed["transcript"])
        assert kinds(wire.events).count(DELTA) >= 1


def test_a_service_that_is_gone_is_an_error_of_the_item_and_others_go_on(front: RunningServer) -> None:
    with open_wire(front.socket_url) as wire:
        wire.update(transcription={"model": GONE}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        assert f"The service behind {GONE} can't be reached" in wire.until(FAILED)[-1]["error"]["message"]
        wire.update(transcription={"model": "moonshine/tiny-en"})
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]


def post(front: RunningServer, model: str) -> httpx.Response:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes((best_of_times() * 32767).astype("<i2").tobytes())
    url = f"{front.base_url}/audio/transcriptions"
    fields = {"model": model, "response_format": "verbose_json", "language": "en"}
    return httpx.post(url, files={"file": ("a.wav", file.getvalue())}, data=fields, timeout=60)


def test_recordings_go_there_too(front: RunningServer) -> None:
    answer = post(front, THEIRS).json()
    assert said(answer["text"])
    assert answer["language"] == "english"
    failed = post(front, GONE)
    assert failed.status_code == 500
    assert f"The service behind {GONE} can't be reached" in failed.json()["error"]["message"]


def test_times_of_words_come_from_there_too(front: RunningServer) -> None:
    with open_wire(front.socket_url) as wire:
        wire.update(transcription={"model": TIMED}, turn_detection=VAD, include=[WORDS])
        wire.append(spoken(best_of_times()))
        words = wire.until(COMPLETED)[-1]["words"]
    text = wire.transcripts[0]
    assert " ".join(word["word"] for word in words) == text
    assert said(text)
    assert words[0]["start"] == pytest.approx(1.2, abs=0.15)
    assert words[-1]["end"] == pytest.approx(4.65, abs=0.3)
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)


def test_log_probabilities_that_a_service_does_not_tell_are_refused(front: RunningServer) -> None:
    with open_wire(front.socket_url) as wire:
        session = {
            "type": "transcription",
            "include": [LOGPROBS],
            "audio": {"input": {"transcription": {"model": GONE}}},
        }
        wire.send("session.update", session=session)
        error = wire.until("error")[-1]["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "session.include")
        wire.update(transcription={"model": GONE}, turn_detection=None)
    refused = httpx.post(
        f"{front.base_url}/audio/transcriptions",
        files={"file": ("a.wav", b"RIFF")},
        data={"model": GONE, "include[]": ["logprobs"]},
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "include")

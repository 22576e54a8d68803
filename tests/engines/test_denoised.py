"""Speech detection without the noise: what of speech is left, what of music, and how streams are kept apart."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from clips import shared_audio, shared_clips, silence, two_cities

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import DetectSpeech, EngineError
from auricle.engines.denoised import LAG_SAMPLES, DenoisedDetector
from auricle.engines.silero import SileroDetector
from auricle.protocol.config import NoiseReduction

try:
    DETECTOR, REASON = DenoisedDetector.embedded(), ""
except EngineError as error:
    DETECTOR, REASON = None, error.message
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

ALL = NoiseReduction(type="near_field")
SPEECH = np.concatenate([silence(0.512), two_cities()[: 124 * WINDOW_SAMPLES]])
MUSIC = [clip for clip in shared_clips("noise") if clip["id"].startswith("music")]


@pytest.fixture
def detector() -> DenoisedDetector:
    return DenoisedDetector.embedded()


def job(samples: Samples, start: int = 0, strength: float = 1.0, stream_id: str = "a") -> DetectSpeech:
    return DetectSpeech(stream_id, samples, start, ALL.model_copy(update={"strength": strength}))


def raw(samples: Samples) -> np.ndarray:
    return np.array(SileroDetector.embedded().detect([DetectSpeech("raw", samples)])[0])


def denoised(samples: Samples, strength: float = 1.0) -> np.ndarray:
    return np.array(DenoisedDetector.embedded().detect([job(samples, strength=strength)])[0])


def test_there_is_a_probability_for_each_window_however_they_come(detector: DenoisedDetector) -> None:
    (whole,) = detector.detect([job(SPEECH)])
    assert len(whole) == SPEECH.size // WINDOW_SAMPLES
    detector.release("a")
    bounds = np.r_[0 : SPEECH.size : 3 * WINDOW_SAMPLES, SPEECH.size]
    parts = [part for begin, end in pairwise(bounds) for part in detector.detect([job(SPEECH[begin:end], int(begin))])]
    assert np.concatenate(parts) == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("level_db", [0, -30, 12])
def test_speech_is_still_speech_a_window_or_two_later(level_db: float) -> None:
    assert WINDOW_SAMPLES < LAG_SAMPLES < 2 * WINDOW_SAMPLES
    loud = np.clip(SPEECH * 10 ** (level_db / 20), -1, 1).astype(np.float32)
    heard, left = raw(SPEECH), denoised(loud)
    clear = np.flatnonzero((heard[:-2] > 0.9) & (heard[1:-1] > 0.9))
    assert clear.size > 30
    assert (left[clear + 1] > 0.5).mean() > 0.95


def test_noise_is_none() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 100 * WINDOW_SAMPLES).astype(np.float32)
    assert denoised(noise).max() < 0.3


@pytest.mark.skipif(not MUSIC, reason="needs the recordings beside the repository")
@pytest.mark.parametrize("level_db", [-20, 0, 20])
@pytest.mark.parametrize("pause_s", [0.0, 0.2, 1.0])
def test_music_that_sounds_like_speech_does_not_any_more(level_db: float, pause_s: float) -> None:
    music = np.clip(shared_audio(MUSIC[0]["file"]) * 10 ** (level_db / 20), -1, 1).astype(np.float32)
    samples = np.concatenate([silence(pause_s), music])
    samples = samples[: samples.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
    heard = raw(samples)
    assert heard.max() > 0.5
    assert np.minimum(heard, denoised(samples)).max() < 0.4


@pytest.mark.skipif(not MUSIC, reason="needs the recordings beside the repository")
def test_a_small_strength_leaves_it_as_it_was() -> None:
    music = shared_audio(MUSIC[0]["file"])
    music = music[: music.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
    assert np.minimum(raw(music), denoised(music, strength=0.1)).max() > 0.5


def test_a_stream_with_a_gap_begins_anew(detector: DenoisedDetector) -> None:
    (first,) = detector.detect([job(SPEECH)])
    (again,) = detector.detect([job(SPEECH, 2 * SAMPLE_RATE)])
    assert again == pytest.approx(first, abs=1e-6)
    (continued,) = detector.detect([job(SPEECH, 2 * SAMPLE_RATE + SPEECH.size)])
    assert continued != pytest.approx(first, abs=1e-6)


def test_streams_do_not_mix(detector: DenoisedDetector) -> None:
    alone = DenoisedDetector.embedded().detect([job(SPEECH)])
    half = SPEECH.size // WINDOW_SAMPLES // 2 * WINDOW_SAMPLES
    first = detector.detect([job(SPEECH[:half]), job(SPEECH[::-1].copy(), stream_id="b")])
    second = detector.detect([job(SPEECH[half:], half)])
    assert [*first[0], *second[0]] == pytest.approx(alone[0], abs=1e-4)


def test_a_released_stream_begins_anew(detector: DenoisedDetector) -> None:
    (first,) = detector.detect([job(SPEECH)])
    detector.release("a")
    detector.release("nobody")
    assert detector.detect([job(SPEECH)])[0] == pytest.approx(first, abs=1e-6)

"""The speech detector on real speech."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path

import numpy as np
import pytest
import soxr

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import DetectSpeech, EngineError
from auricle.engines.moonshine import embedded_folder
from auricle.engines.silero import SileroDetector, embedded_file

WINDOWS = 300


@pytest.fixture(scope="module")
def speech() -> Samples:
    """9.6 s of reading, 16 kHz, in whole windows."""
    with wave.open(str(embedded_folder().parent / "two_cities.wav")) as file:
        pcm = np.frombuffer(file.readframes(10 * file.getframerate()), np.int16)
        samples: Samples = soxr.resample(pcm.astype(np.float32) / 32768, file.getframerate(), SAMPLE_RATE)
    return samples[: WINDOWS * WINDOW_SAMPLES]


@pytest.fixture
def detector() -> SileroDetector:
    return SileroDetector.embedded()


def windows_of(samples: Samples, start: int, end: int) -> Samples:
    return samples[start * WINDOW_SAMPLES : end * WINDOW_SAMPLES]


def test_tells_speech_from_silence_and_noise(detector: SileroDetector, speech: Samples) -> None:
    silence = np.zeros(50 * WINDOW_SAMPLES, np.float32)
    noise = np.random.default_rng(0).normal(0, 0.05, silence.size).astype(np.float32)
    jobs = [DetectSpeech("speech", speech), DetectSpeech("silence", silence), DetectSpeech("noise", noise)]
    spoken, silent, noisy = detector.detect(jobs)
    assert len(spoken) == WINDOWS
    assert np.mean(np.array(spoken) > 0.5) > 0.6
    assert max(silent) < 0.1
    assert max(noisy) < 0.3


def test_equals_the_model_over_the_whole_file(detector: SileroDetector, speech: Samples) -> None:
    """As faster_whisper.vad.SileroVADModel does it: every window behind the last 64 samples of the one before."""
    import onnxruntime

    speech = np.clip(10 * speech, -1, 1)
    speech[:WINDOW_SAMPLES:2] += 0.2  # loud from the start, so that nothing is raised
    windows = speech.reshape(-1, WINDOW_SAMPLES)
    context = np.vstack([np.zeros((1, 64), np.float32), windows[:-1, -64:]])
    state = np.zeros((1, 1, 128), np.float32)
    network = onnxruntime.InferenceSession(embedded_file(), providers=["CPUExecutionProvider"])
    expected = network.run(None, {"input": np.hstack([context, windows]), "h": state, "c": state})[0]
    streamed: list[float] = []
    bounds = [0, 1, 2, 7, 40, 41, 200, WINDOWS]
    for start, end in itertools.pairwise(bounds):
        streamed += detector.detect([DetectSpeech("a", windows_of(speech, start, end))])[0]
    assert streamed == pytest.approx(expected.tolist(), abs=1e-4)


def test_quiet_speech_is_heard(detector: SileroDetector, speech: Samples) -> None:
    loud, quiet = detector.detect([DetectSpeech("loud", speech), DetectSpeech("quiet", speech * 10 ** (-30 / 20))])
    assert sum(p > 0.5 for p in quiet) >= 0.95 * sum(p > 0.5 for p in loud)


def test_streams_do_not_mix(detector: SileroDetector, speech: Samples) -> None:
    (alone,) = SileroDetector.embedded().detect([DetectSpeech("a", speech)])
    (reversed_alone,) = SileroDetector.embedded().detect([DetectSpeech("b", speech[::-1])])
    a: list[float] = []
    b: list[float] = []
    for start in range(0, WINDOWS, 50):
        jobs = [
            DetectSpeech("a", windows_of(speech, start, start + 50)),
            DetectSpeech("b", windows_of(speech[::-1], start, start + 50)),
        ]
        for own, probabilities in zip((a, b), detector.detect(jobs), strict=True):
            own += probabilities
    assert a == pytest.approx(alone, abs=1e-4)
    assert b == pytest.approx(reversed_alone, abs=1e-4)


def test_a_released_stream_starts_anew(detector: SileroDetector, speech: Samples) -> None:
    job = DetectSpeech("a", windows_of(speech, 60, 80))
    first, continued = detector.detect([job, job])
    detector.release("a")
    detector.release("unknown")
    assert detector.detect([job]) == [first]
    assert continued != first


def test_nothing_new_gives_nothing(detector: SileroDetector) -> None:
    assert detector.detect([]) == []
    assert detector.detect([DetectSpeech("a", np.zeros(0, np.float32))]) == [[]]


def test_refuses_parts_of_windows(detector: SileroDetector) -> None:
    with pytest.raises(ValueError, match="513 samples"):
        detector.detect([DetectSpeech("a", np.zeros(WINDOW_SAMPLES + 1, np.float32))])


def test_a_missing_file_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="missing"):
        SileroDetector(tmp_path / "nothing.onnx").load()

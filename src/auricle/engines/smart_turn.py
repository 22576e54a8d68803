"""Smart Turn v3.2: how likely a speaker has said all of it. Knows nothing of silence, thresholds or text.

The model file (BSD-2) lies in the wheel `pipecat-ai` and is found without importing that package. Source:
https://github.com/pipecat-ai/smart-turn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import EngineError, JudgeTurn
from auricle.engines.onnx_network import engine_errors, open_network

HEARD_SAMPLES = 8 * SAMPLE_RATE
"""What the model hears: the last 8 s."""
_FRAME_SAMPLES = 400
_HOP_SAMPLES = 160
_MELS = 80
_FLOOR = 1e-10


def embedded_file() -> Path:
    """The model file inside the installed `pipecat-ai` wheel. Raises EngineError if it is not there."""
    spec = importlib.util.find_spec("pipecat")
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / "audio" / "turn" / "smart_turn" / "data" / "smart-turn-v3.2-cpu.onnx"
        if path.is_file():
            return path
    raise EngineError("The Smart Turn model is missing: pip install auricle[semantic]")


def _mel_filters() -> NDArray[np.float32]:
    """Whisper's triangles on Slaney's mel scale (linear up to 1 kHz, then logarithmic), each of area 1: (80, 201)."""
    bins_hz = np.linspace(0, SAMPLE_RATE / 2, _FRAME_SAMPLES // 2 + 1)
    step = np.log(6.4) / 27
    mels = np.linspace(0, 15 + np.log(SAMPLE_RATE / 2 / 1000) / step, _MELS + 2)
    corners_hz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))[:, np.newaxis]
    low_hz, middle_hz, high_hz = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (bins_hz - low_hz) / (middle_hz - low_hz)
    falling = (high_hz - bins_hz) / (high_hz - middle_hz)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high_hz - low_hz)
    return triangles.astype(np.float32)


class SmartTurnJudge:
    """The model. Keeps nothing of a stream between calls. Called by one thread only. Implements `TurnJudge`."""

    def __init__(self, path: Path) -> None:
        """`path` is `smart-turn-v3.2-cpu.onnx`; it is read on first use, or by `load`."""
        self._path = path
        self._network: Any = None
        self._window = np.hanning(_FRAME_SAMPLES + 1)[:-1].astype(np.float32)
        self._mel_filters = _mel_filters()

    @classmethod
    def embedded(cls) -> SmartTurnJudge:
        """The model inside the wheel. Raises EngineError if it is not installed."""
        return cls(embedded_file())

    def load(self) -> None:
        """Read the model file unless that is done. Raises EngineError if it is missing."""
        if self._network is None:
            self._network = open_network(self._path, "Smart Turn", has_arena=False, has_signed_weights=True)

    def judge(self, jobs: Sequence[JudgeTurn]) -> list[float]:
        """The probability, 0 to 1, that each turn is complete, in order; its silence so far should be in the samples.

        Only the last 8 s of a job are heard. Jobs are judged one by one: a batch is slower.
        """
        self.load()
        return [self._judge(job.samples) for job in jobs]

    def _judge(self, samples: Samples) -> float:
        with engine_errors("Smart Turn"):
            (output,) = self._network.run(None, {"input_features": self.features(samples)[np.newaxis]})
        return float(output.item())

    def features(self, samples: Samples) -> NDArray[np.float32]:
        """Whisper's log-mel spectrogram of the last 8 s, (80, 800); what is missing is silence in front.

        The loudness is that of the whole: as in the model's training, the 8 s are brought to mean 0 and variance 1.
        """
        heard = samples[-HEARD_SAMPLES:].astype(np.float32, copy=False)
        heard = np.pad(heard, (HEARD_SAMPLES - heard.size, 0))
        heard = (heard - heard.mean()) / np.sqrt(heard.var() + np.float32(1e-7))
        padded = np.pad(heard, _FRAME_SAMPLES // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME_SAMPLES)[:-1:_HOP_SAMPLES]
        spectrum = np.fft.rfft(frames * self._window)
        power = spectrum.real**2 + spectrum.imag**2
        levels = np.log10(np.maximum(self._mel_filters @ power.T, _FLOOR))
        features: NDArray[np.float32] = (np.maximum(levels, levels.max() - 8) + 4) / 4
        return features

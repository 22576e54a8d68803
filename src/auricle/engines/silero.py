"""Silero VAD v6: how likely each window of a stream is speech. Knows nothing of turns or thresholds.

The model file (MIT) lies in the wheel `faster-whisper` and is found without importing that package. Source:
https://github.com/snakers4/silero-vad.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.audio.formats import WINDOW_SAMPLES, Samples
from auricle.audio.level import LevelFollower
from auricle.engines.base import DetectSpeech, EngineError
from auricle.engines.onnx_network import engine_errors, open_network

CONTEXT_SAMPLES = 64
"""Samples before a window that the model also sees: 4 ms."""
_STATE_SHAPE = (1, 1, 128)


def embedded_file() -> Path:
    """The model file inside the installed `faster-whisper` wheel. Raises EngineError if it is not there."""
    spec = importlib.util.find_spec("faster_whisper")
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / "assets" / "silero_vad_v6.onnx"
        if path.is_file():
            return path
    raise EngineError("The Silero VAD model is missing: install faster-whisper>=1.2,<2")


def _silence(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@dataclass(slots=True)
class _Stream:
    """What the model remembers of a stream between calls."""

    context: Samples = field(default_factory=lambda: _silence(CONTEXT_SAMPLES))
    h: NDArray[np.float32] = field(default_factory=lambda: _silence(*_STATE_SHAPE))
    c: NDArray[np.float32] = field(default_factory=lambda: _silence(*_STATE_SHAPE))
    level: LevelFollower = field(default_factory=LevelFollower)


class SileroDetector:
    """The model and the state of its streams. Called by one thread only. Implements `SpeechDetector`.

    The model's first axis is time, so one call takes many windows of one stream but never two streams.
    """

    def __init__(self, path: Path, *, raises_quiet_audio: bool = True) -> None:
        """`path` is `silero_vad_v6.onnx`; it is read on first use, or by `load`.

        Unless it `raises_quiet_audio`, it hears all audio at the level that it has.
        """
        self._path = path
        self._raises_quiet_audio = raises_quiet_audio
        self._network: Any = None
        self._streams: dict[str, _Stream] = {}

    @classmethod
    def embedded(cls, *, raises_quiet_audio: bool = True) -> SileroDetector:
        """The model inside the wheel. Raises EngineError if it is not installed."""
        return cls(embedded_file(), raises_quiet_audio=raises_quiet_audio)

    def load(self) -> None:
        """Read the model file unless that is done. Raises EngineError if it is missing."""
        if self._network is None:
            self._network = open_network(self._path, "Silero VAD", has_arena=False)

    def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
        """See `SpeechDetector`. A stream may occur more than once: its jobs follow each other.

        Raises ValueError if the samples of a job are not whole windows.
        """
        self.load()
        return [self._detect(job) for job in jobs]

    def release(self, stream_id: str) -> None:
        """Forget a stream; unknown ones are ignored."""
        self._streams.pop(stream_id, None)

    def _detect(self, job: DetectSpeech) -> list[float]:
        if job.samples.size % WINDOW_SAMPLES:
            raise ValueError(f"{job.samples.size} samples are no multiple of {WINDOW_SAMPLES}")
        if job.samples.size == 0:
            return []
        stream = self._streams.setdefault(job.stream_id, _Stream())
        samples = np.concatenate([stream.context, job.samples])
        windows = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT_SAMPLES + WINDOW_SAMPLES)[::WINDOW_SAMPLES]
        if self._raises_quiet_audio:
            windows = windows * stream.level.gains(windows[:, CONTEXT_SAMPLES:])
        inputs = {"input": windows, "h": stream.h, "c": stream.c}
        with engine_errors("Silero VAD"):
            probabilities, stream.h, stream.c = self._network.run(["speech_probs", "hn", "cn"], inputs)
        stream.context = samples[-CONTEXT_SAMPLES:].copy()  # a view would keep the whole job's audio alive
        return [float(probability) for probability in probabilities]

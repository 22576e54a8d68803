"""Speech detection on what is left of a stream without its noise. Knows no turns; two models do the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from auricle.audio.denoise import DELAY_SAMPLES, HOP_SAMPLES
from auricle.audio.formats import WINDOW_SAMPLES, Samples
from auricle.audio.level import LevelFollower
from auricle.engines.base import DetectSpeech
from auricle.engines.deepfilter import DeepFilter
from auricle.engines.silero import SileroDetector

_LEAD_SAMPLES = HOP_SAMPLES - np.gcd(HOP_SAMPLES, WINDOW_SAMPLES)
"""Silence before what is cleaned: after each whole window so much of it may be in a frame that is not whole."""
LAG_SAMPLES = DELAY_SAMPLES + int(_LEAD_SAMPLES)
"""By how much the windows that are judged are later than those that were given: 38 ms."""
_MAX_ATTENUATION_DB = 100.0


@dataclass(slots=True)
class _Stream:
    """What is known of a stream between calls."""

    end: int
    """Position after the last sample that was heard."""
    cleaned: Samples = field(default_factory=lambda: np.zeros(_LEAD_SAMPLES, np.float32))
    """What makes no whole window yet."""
    level: LevelFollower = field(default_factory=lambda: LevelFollower(lowers=True))


class DenoisedDetector:
    """The models and the state of their streams. Called by one thread only. Implements `SpeechDetector`.

    Audio is brought to a level before it is cleaned: of a voice that is 15 dB too quiet next to nothing would be left,
    and of loud music too much.
    """

    def __init__(self, noise_filter: DeepFilter, detector: SileroDetector) -> None:
        """`detector` hears what is left at the level that it has, so that remains of noise stay quiet."""
        self._filter = noise_filter
        self._detector = detector
        self._streams: dict[str, _Stream] = {}

    @classmethod
    def embedded(cls) -> DenoisedDetector:
        """The models inside their wheels. Raises EngineError if one is not installed."""
        return cls(DeepFilter.embedded(), SileroDetector.embedded(raises_quiet_audio=False))

    def load(self) -> None:
        """Read the model files unless that is done. Raises EngineError if one is missing or damaged."""
        self._filter.load()
        self._detector.load()

    def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
        """See `SpeechDetector`; the windows are `LAG_SAMPLES` late.

        The jobs have a noise reduction. A stream of which some was not given since the last job begins anew.
        """
        return self._detector.detect([self._clean(job) for job in jobs])

    def release(self, stream_id: str) -> None:
        """Forget a stream; unknown ones are ignored."""
        self._streams.pop(stream_id, None)
        self._filter.release(stream_id)
        self._detector.release(stream_id)

    def _clean(self, job: DetectSpeech) -> DetectSpeech:
        assert job.noise_reduction is not None
        stream = self._streams.get(job.stream_id)
        if stream is None or stream.end != job.start:
            self.release(job.stream_id)
            stream = self._streams[job.stream_id] = _Stream(job.start)
        windows = job.samples.reshape(-1, WINDOW_SAMPLES)
        raised = (windows * stream.level.gains(windows)).reshape(-1)
        share = 1 - 10 ** (-_MAX_ATTENUATION_DB * job.noise_reduction.strength / 20)
        cleaned = np.concatenate([stream.cleaned, self._filter.clean(job.stream_id, raised, share)])
        stream.end += job.samples.size
        stream.cleaned = cleaned[job.samples.size :]
        return DetectSpeech(job.stream_id, cleaned[: job.samples.size])

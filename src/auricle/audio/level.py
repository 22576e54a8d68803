"""Audio brought to the level that models know. Knows no speech and no noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES

_LEVEL = 0.05
"""The level, as a standard deviation, to which audio is brought: -26 dB, quiet speech."""
_MAX_GAIN = 10 ** (30 / 20)
"""Models take much of what is 30 dB under normal speech for silence."""
_MIN_GAIN = 10 ** (-10 / 20)
_LEVEL_DECAY = 10 ** (-3.0 / 20 * WINDOW_SAMPLES / SAMPLE_RATE)
"""The level follows a rise at once and a fall by 3 dB a second: pauses between words are no reason to turn up."""


class LevelFollower:
    """How loud a stream is these days, and by how much it is to be raised. Owned by whoever feeds a model."""

    def __init__(self, *, lowers: bool = False) -> None:
        """Whether what is loud is also lowered, by up to 10 dB."""
        self._level = 0.0
        self._min_gain = _MIN_GAIN if lowers else 1.0

    def gains(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """By how much each of the next windows, shape (windows, samples), is raised; shape (windows, 1)."""
        levels = windows.std(axis=1, keepdims=True)  # a constant offset is not loud
        for index, level in enumerate(levels[:, 0]):
            levels[index] = self._level = max(float(level), self._level * _LEVEL_DECAY)
        gains: NDArray[np.float32] = np.clip(_LEVEL / np.maximum(levels, 1e-6), self._min_gain, _MAX_GAIN)
        return gains

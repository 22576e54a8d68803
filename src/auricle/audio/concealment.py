"""Speech in place of lost packets: the last pitch period again, fading.

In the manner of ITU-T G.711 Appendix I, but without its delay: nothing that was received is held back. For all codecs,
since libopus's own concealment gives no better text (`benchmarks/packet_loss.py`).
"""

from __future__ import annotations

import numpy as np

from auricle.audio.formats import Samples

_MAX_PERIOD_S = 0.015
_MIN_PERIOD_S = 0.0025
_COMPARED_S = 0.020
_STEADY_S = 0.010
"""How long what is repeated stays as loud as it was."""
_FADE_S = 0.050
"""How long it then takes to become silence."""


class Concealment:
    """Remembers the end of one signal and can go on with it for a while. Owned by one stream."""

    def __init__(self, rate_hz: int) -> None:
        self._max_period_samples = round(_MAX_PERIOD_S * rate_hz)
        self._min_period_samples = round(_MIN_PERIOD_S * rate_hz)
        self._compared_samples = round(_COMPARED_S * rate_hz)
        self._steady_samples = round(_STEADY_S * rate_hz)
        self._fade_samples = round(_FADE_S * rate_hz)
        self._last: Samples = np.zeros(self._max_period_samples + self._compared_samples, np.float32)
        """The end of what was received."""
        self._concealed_samples = 0

    def follow(self, samples: Samples) -> Samples:
        """Take in what was received, shape (n,), and give it, its beginning joined smoothly to what was made up."""
        if self._concealed_samples:
            overlap = min(self._min_period_samples, samples.size)
            rise = np.linspace(0, 1, overlap, dtype=np.float32)
            joined = samples.copy()
            joined[:overlap] = rise * samples[:overlap] + (1 - rise) * self._go_on(overlap)
            samples = joined
            self._concealed_samples = 0
        self._last = np.concatenate([self._last, samples])[-self._last.size :]
        return samples

    def conceal(self, samples: int) -> Samples:
        """What might have been received, shape (n,) of at most `samples`; after 60 ms there is nothing more."""
        left = self._steady_samples + self._fade_samples - self._concealed_samples
        made_up = self._go_on(max(min(samples, left), 0))
        self._concealed_samples += samples
        return made_up

    def _go_on(self, samples: int) -> Samples:
        period = self._last[-self._period_samples() :]
        position = self._concealed_samples + np.arange(samples)
        loudness = 1 - (position - self._steady_samples) / self._fade_samples
        return period[position % period.size] * np.clip(loudness, 0, 1).astype(np.float32)

    def _period_samples(self) -> int:
        """The lag at which the end of the signal is most like itself."""
        end = self._last[-self._compared_samples :]
        windows = np.lib.stride_tricks.sliding_window_view(self._last, end.size)
        # The window at the end is the end itself; the one before it lags by a sample, and so on.
        lagging = windows[-1 - self._max_period_samples : -self._min_period_samples]
        energy = np.sqrt((lagging**2).sum(axis=1)) + 1e-6
        return self._max_period_samples - int(np.argmax(lagging @ end / energy))

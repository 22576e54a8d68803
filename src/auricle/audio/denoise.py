"""The spectrum of a stream, and its way back to samples with noise taken out. Knows no network and no speech.

The transform, the bands and the filters are those of DeepFilterNet 3 (https://github.com/Rikorose/DeepFilterNet). That
works at 48 kHz; its frames of 20 ms have the same 50 Hz grid at 16 kHz, where they are a third as long, so nothing is
resampled and what lies above 8 kHz is silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auricle.audio.formats import SAMPLE_RATE, Samples

HOP_SAMPLES = SAMPLE_RATE // 100
FRAME_SAMPLES = 2 * HOP_SAMPLES
_BIN_HZ = SAMPLE_RATE / FRAME_SAMPLES
_BINS = FRAME_SAMPLES // 2 + 1
BANDS = 32
"""Bands of equal width to the ear, up to 24 kHz; each has a gain."""
FILTERED_BINS = 96
"""The lowest bins are filtered over time instead, up to 4.8 kHz."""
TAPS = 5
LOOK_AHEAD = 2
"""How many frames after a frame its gains and its filter need."""
DELAY_SAMPLES = FRAME_SAMPLES - HOP_SAMPLES + LOOK_AHEAD * HOP_SAMPLES
"""By how much what comes out is later than what goes in: 30 ms."""

_DECAY = np.float32(0.99)
"""The running means of the features forget within a second."""
_FIRST_MEAN = np.linspace(-60, -90, BANDS, dtype=np.float32)
_FIRST_MAGNITUDE = np.linspace(1e-3, 1e-4, FILTERED_BINS, dtype=np.float32)

Spectrum = NDArray[np.complex64]
"""Shape (frames, bins)."""


def _band_widths() -> NDArray[np.int64]:
    """How many bins up to 24 kHz each band has: bands as wide as the ear's (ERB), but at least two bins."""
    q, least_hz, least_bins, top_hz = 9.265, 24.7, 2, 24_000
    numbers = np.arange(1, BANDS + 1) / BANDS * q * np.log1p(top_hz / (least_hz * q))
    widths, end, owed = [], 0, 0
    for wanted in np.round(least_hz * q * np.expm1(numbers / q) / _BIN_HZ):
        width = int(wanted) - end - owed
        owed = max(least_bins - width, 0)  # what a narrow band has too much, the next has less
        widths.append(max(width, least_bins))
        end = int(wanted)
    return np.array(widths)


_BAND_WIDTHS = _band_widths()
_BAND_STARTS = np.cumsum(_BAND_WIDTHS) - _BAND_WIDTHS
_HEARD_BANDS = int(np.count_nonzero(_BAND_STARTS < _BINS))
"""Bands that have bins at 16 kHz."""
_BAND_OF_BIN = np.repeat(np.arange(BANDS), _BAND_WIDTHS)[:_BINS]
_phase = np.sin(np.pi / 2 * (np.arange(FRAME_SAMPLES) + 0.5) / HOP_SAMPLES)
_WINDOW = np.sin(np.pi / 2 * _phase**2).astype(np.float32)
"""Vorbis's: squared and shifted by a hop it adds up to 1."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the network is told of some frames."""

    bands: NDArray[np.float32]
    """Levels of the bands, (frames, BANDS)."""
    bins: NDArray[np.float32]
    """The lowest bins without their loudness, real and imaginary parts, (2, frames, FILTERED_BINS)."""


@dataclass(frozen=True, slots=True)
class Mask:
    """What the network has found for some frames."""

    gains: NDArray[np.float32]
    """(frames, BANDS)."""
    filters: NDArray[np.complex64]
    """Factors of the frames around each, the earliest first, (frames, FILTERED_BINS, TAPS)."""


class DenoisedStream:
    """One stream's spectrum, from `analyse` to `synthesise`, which take turns. Owned by whoever runs the network."""

    def __init__(self) -> None:
        self._samples: Samples = np.zeros(FRAME_SAMPLES - HOP_SAMPLES, np.float32)
        """What belongs to frames to come."""
        self._spectrum: Spectrum = np.zeros((TAPS - 1, _BINS), np.complex64)
        """The frames that the next filters reach back to, and then those that wait for their mask."""
        self._tail: Samples = np.zeros(FRAME_SAMPLES - HOP_SAMPLES, np.float32)
        """What the last frame adds to the samples of the next."""
        self._mean = _FIRST_MEAN.copy()
        self._magnitude = _FIRST_MAGNITUDE.copy()

    def analyse(self, samples: Samples) -> Features:
        """Take in more of the stream, any number of samples. Returns the features of the frames that are whole now."""
        samples = np.concatenate([self._samples, samples])
        frames = max(samples.size - FRAME_SAMPLES, -HOP_SAMPLES) // HOP_SAMPLES + 1
        self._samples = samples[frames * HOP_SAMPLES :].copy()
        if not frames:
            return Features(np.zeros((0, BANDS), np.float32), np.zeros((2, 0, FILTERED_BINS), np.float32))
        windows = np.lib.stride_tricks.sliding_window_view(samples, FRAME_SAMPLES)[::HOP_SAMPLES]
        spectrum = np.fft.rfft(windows * _WINDOW).astype(np.complex64) / np.float32(FRAME_SAMPLES)
        self._spectrum = np.concatenate([self._spectrum, spectrum])
        return self._features(spectrum)

    def synthesise(self, mask: Mask, strength: float) -> Samples:
        """The cleaned samples, one hop for each frame of `mask`, `DELAY_SAMPLES` behind what was analysed.

        `strength` is the share of them in what comes out, from 0 to 1; the rest is as it was.
        """
        frames = len(mask.gains)
        if not frames:
            return np.zeros(0, np.float32)
        noisy = self._spectrum[TAPS - 1 - LOOK_AHEAD :][:frames]
        clean = noisy * mask.gains[:, _BAND_OF_BIN]
        low = self._spectrum[: frames + TAPS - 1, :FILTERED_BINS]
        neighbours = np.lib.stride_tricks.sliding_window_view(low, TAPS, axis=0)
        clean[:, :FILTERED_BINS] = (neighbours * mask.filters).sum(axis=2)
        self._spectrum = self._spectrum[frames:]
        mixed = noisy + np.float32(strength) * (clean - noisy)
        return self._overlap_add(np.fft.irfft(mixed * FRAME_SAMPLES, FRAME_SAMPLES).astype(np.float32) * _WINDOW)

    def _features(self, spectrum: Spectrum) -> Features:
        power = spectrum.real**2 + spectrum.imag**2
        bands = np.zeros((len(spectrum), BANDS), np.float32)
        # The last of the bands that are heard lies above 8 kHz for the most part, and is silent there.
        sums = np.add.reduceat(power, _BAND_STARTS[:_HEARD_BANDS], axis=1)
        bands[:, :_HEARD_BANDS] = sums / _BAND_WIDTHS[:_HEARD_BANDS]
        bands = 10 * np.log10(bands + np.float32(1e-10))
        low = spectrum[:, :FILTERED_BINS].copy()
        magnitudes = np.abs(low)
        for index in range(len(spectrum)):
            self._mean = bands[index] * (1 - _DECAY) + self._mean * _DECAY
            self._magnitude = magnitudes[index] * (1 - _DECAY) + self._magnitude * _DECAY
            bands[index] = (bands[index] - self._mean) / 40
            low[index] /= np.sqrt(self._magnitude)
        return Features(bands, np.stack([low.real, low.imag]))

    def _overlap_add(self, frames: NDArray[np.float32]) -> Samples:
        tails = np.concatenate([self._tail[np.newaxis], frames[:, HOP_SAMPLES:]])
        self._tail = tails[-1]
        samples: Samples = (frames[:, :HOP_SAMPLES] + tails[:-1]).reshape(-1)
        return samples

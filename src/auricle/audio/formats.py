"""Audio formats of the wire and their conversion to and from samples.

Knows the coding of single samples: 16-bit PCM and ITU-T G.711's two laws. Changes no rate (`resample.py` does) and
knows no containers (`files.py` does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Hertz. The rate of all audio inside the server."""

WINDOW_SAMPLES = 512
"""Samples in one window of speech detection: 32 ms at 16 kHz."""

Samples = NDArray[np.float32]
"""Mono audio in [-1, 1]; at `SAMPLE_RATE` unless a name says otherwise."""

AudioType = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
"""Coding of a sample, named as on the wire: 16-bit little-endian PCM, G.711 µ-law, G.711 A-law."""

_FULL_SCALE = 32_768
"""The 16-bit value that stands for 1.0."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How the samples of one direction are coded on the wire. Always mono. Part of a session's configuration."""

    type: AudioType
    rate_hz: int

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one coded sample."""
        return 2 if self.type == "audio/pcm" else 1

    @property
    def bytes_per_ms(self) -> float:
        """Bytes of a millisecond of audio; not whole at rates such as 44.1 kHz."""
        return self.bytes_per_sample * self.rate_hz / 1000


class SampleDecoder:
    """Turns the bytes of one stream into samples. Owns the half of a sample that a chunk may end with.

    A session has one per input format, fed by every `input_audio_buffer.append`.
    """

    def __init__(self, format: AudioFormat) -> None:
        self.format = format
        self._half_sample = b""

    def decode(self, data: bytes) -> Samples:
        """Give the samples that `data` completes, float32, at the format's own rate; may be empty.

        Bytes may be split anywhere: an odd byte of PCM16 waits for the next call. No bytes are invalid, so nothing is
        raised.
        """
        if self.format.type != "audio/pcm":
            return _LAWS[self.format.type].samples_by_code[np.frombuffer(data, np.uint8)]
        if self._half_sample:
            data = self._half_sample + data
        whole_bytes = len(data) // 2 * 2
        self._half_sample = data[whole_bytes:]
        return np.frombuffer(data, "<i2", count=whole_bytes // 2) * np.float32(1 / _FULL_SCALE)


def encode(samples: Samples, format: AudioFormat) -> bytes:
    """Turn samples at the format's own rate into its bytes: the other way of `SampleDecoder`.

    `samples` are of shape (n,) and finite. What lies outside [-1, 1) is clipped. PCM16 is rounded. G.711 gets the code
    whose value is nearest, of two that are equally near the higher one.
    """
    scaled = samples.astype(np.float64) * _FULL_SCALE
    if format.type == "audio/pcm":
        return np.clip(np.rint(scaled), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()
    law = _LAWS[format.type]
    return law.codes_ascending[np.searchsorted(law.borders, scaled, side="right")].tobytes()


@dataclass(frozen=True, slots=True)
class _Law:
    """One of G.711's laws as tables."""

    samples_by_code: Samples
    """Shape (256,): the sample that each code stands for."""
    codes_ascending: NDArray[np.uint8]
    """The codes by rising value, shape (n,): each value once."""
    borders: NDArray[np.float64]
    """Between codes that are neighbours, halfway between their values, in 16-bit units, shape (n - 1,)."""

    @classmethod
    def from_level(cls, level: Callable[[int], int]) -> _Law:
        """Tabulate `level`: a code, 0 to 255, to its 16-bit value."""
        levels = [level(code) for code in range(256)]
        # µ-law has two zeros; the later code, the positive one, stays: it is what G.711 lines idle on.
        code_by_level = {level: code for code, level in enumerate(levels)}
        ascending = np.array(sorted(code_by_level), np.float64)
        return cls(
            samples_by_code=np.array(levels, np.float32) / np.float32(_FULL_SCALE),
            codes_ascending=np.array([code_by_level[level] for level in sorted(code_by_level)], np.uint8),
            borders=(ascending[:-1] + ascending[1:]) / 2,
        )


# ITU-T G.711 (11/88), tables 1 and 2: a code is a sign (positive is 1), a segment (3 bits) and a step in the segment
# (4 bits). Steps are twice as wide from one segment to the next; a code's value is the middle of its step.


def _mu_law_level(code: int) -> int:
    """Give the 16-bit value of a µ-law code: ±8031 in G.711's 14-bit units, so ±32124."""
    code ^= 0xFF  # the wire carries all bits inverted, so here the sign bit means negative
    segment, step = code >> 4 & 0x7, code & 0xF
    # Shifting every value by 33 makes the segments powers of two: 33 to 63, 66 to 126, and so on.
    magnitude = ((2 * step + 33) << segment) - 33
    return (-magnitude if code & 0x80 else magnitude) * 4


def _a_law_level(code: int) -> int:
    """Give the 16-bit value of an A-law code: ±4032 in G.711's 13-bit units, so ±32256."""
    code ^= 0x55  # the wire carries the even bits inverted; the sign bit isn't one of them
    segment, step = code >> 4 & 0x7, code & 0xF
    # The first two segments have steps of the same width and make one straight piece through zero.
    magnitude = 2 * step + 1 if segment == 0 else (2 * step + 33) << (segment - 1)
    return (magnitude if code & 0x80 else -magnitude) * 8


_LAWS: dict[AudioType, _Law] = {
    "audio/pcmu": _Law.from_level(_mu_law_level),
    "audio/pcma": _Law.from_level(_a_law_level),
}

"""Change of sample rate for streams, phase-continuous over calls of any size. Knows no formats and no turns."""

from __future__ import annotations

import numpy as np
import soxr

from auricle.audio.formats import SAMPLE_RATE, Samples

# Measured with soxr 1.1 (one x86 core, chunks of 20 ms, to 16 kHz):
#                 µs per chunk   mean (and greatest) delay in ms       level at 6.5 kHz   at 7.5 kHz   worst alias
#                 24k    8k      24k           8k                      (24k to 16k)
#     LQ          7.5    5.5     11 (20)       34 (61)                 -3.1 dB            -35 dB       -104 dB
#     MQ          8.9    5.6     21 (38)       64 (118)                 0.0 dB            -0.5 dB      -107 dB
#     HQ          9.1    5.6     21 (37)       64 (115)                 0.0 dB            -0.4 dB      -130 dB
#     VHQ         10.1   5.9     43 (76)       64 (109)                 0.0 dB            -0.3 dB      -156 dB
# HQ: LQ dulls speech (from 8 kHz it takes 8 dB off 3.4 kHz), QQ filters no aliases at all, MQ saves nothing, and VHQ
# waits twice as long for what 16-bit audio can't hold. soxr works in blocks, hence the delay. It isn't silence put in
# front: the output comes later, but each sample is in its right place. soxr's variable-rate mode delays less (10 ms at
# 24 kHz, 30 ms at 8 kHz), but is marked experimental, costs 2 to 7 times as much, puts samples about 0.1 ms beside
# their place, and isn't in soxr 0.5.
_QUALITY = "HQ"


class Resampler:
    """Changes the rate of one stream. Owns the filter's memory and an exact count of samples in and out.

    A session has one per input format; `files.py` has one per file.
    """

    def __init__(self, in_rate_hz: int, out_rate_hz: int = SAMPLE_RATE) -> None:
        """Raises ValueError where a rate is not positive."""
        if in_rate_hz <= 0 or out_rate_hz <= 0:
            raise ValueError(f"sample rates must be positive, not {in_rate_hz} and {out_rate_hz}")
        self.in_rate_hz = in_rate_hz
        self.out_rate_hz = out_rate_hz
        self._in_samples = 0
        self._out_samples = 0
        self._has_input = False
        """Something came in since the last flush."""
        self._stream: soxr.ResampleStream | None = None
        if in_rate_hz != out_rate_hz:
            self._stream = soxr.ResampleStream(in_rate_hz, out_rate_hz, 1, dtype="float32", quality=_QUALITY)

    @property
    def pending_samples(self) -> int:
        """Output samples that the input so far still owes: what `flush` would give."""
        # Whole numbers, so that hours of audio and thousands of flushes can't drift; halves are rounded up.
        due_samples = (2 * self._in_samples * self.out_rate_hz + self.in_rate_hz) // (2 * self.in_rate_hz)
        return due_samples - self._out_samples

    def resample(self, samples: Samples) -> Samples:
        """Give what can be told from the stream so far, shape (n,), at `out_rate_hz`; may be empty.

        `samples` are of shape (n,), of any n, at `in_rate_hz`. Equal rates give the same array back. Filtering may
        overshoot [-1, 1] by a little where the input was clipped.
        """
        if not samples.size:
            return samples
        self._in_samples += samples.size
        self._has_input = True
        resampled: Samples = samples if self._stream is None else self._stream.resample_chunk(samples)
        self._out_samples += resampled.size
        return resampled

    def flush(self) -> Samples:
        """Give exactly the `pending_samples`, as if silence followed, and begin a new signal on the same clock.

        For a commit that cuts the stream: the item gets all its audio, and the counts go on, so positions stay right.
        """
        pending_samples = self.pending_samples
        if self._stream is None or not self._has_input:
            return np.zeros(0, np.float32)
        tail: Samples = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._stream.clear()
        self._has_input = False
        # soxr rounds the length of this signal, we round that of all signals so far. They differ by at most one sample.
        if tail.size < pending_samples:
            last_sample = tail[-1] if tail.size else np.float32(0)
            tail = np.append(tail, np.full(pending_samples - tail.size, last_sample, np.float32))
        self._out_samples += pending_samples
        return tail[:pending_samples]

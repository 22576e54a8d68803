"""The audio that has come in and is not part of an item yet, and the positions on it.

Positions count samples at 16 kHz since the session began. Every time on the wire comes from them, so they never go
back, whatever is committed, cleared or dropped.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, AudioFormat, SampleDecoder, Samples
from auricle.audio.resample import Resampler

_SLICE_BYTES = 32_768
_SAMPLES_PER_MS = SAMPLE_RATE // 1000
_NOTHING: Samples = np.zeros(0, dtype=np.float32)


def to_ms(position: int) -> int:
    """A position in whole milliseconds."""
    return position // _SAMPLES_PER_MS


def to_samples(duration_ms: int) -> int:
    """A length of time as a number of samples."""
    return duration_ms * _SAMPLES_PER_MS


class InputAudioBuffer:
    """Uncommitted audio from `start` to `appended`, of which speech detection has heard all before `heard`.

    Owned by one session. Speech detection works in windows of 32 ms that lie on a fixed grid from the session's first
    sample on, so `heard` is a multiple of the window.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self.start = 0
        """Position of the oldest sample kept."""
        self.appended = 0
        """Position after the newest sample."""
        self.heard = 0
        """Position up to which the speech probabilities are known."""
        self._chunks: deque[Samples] = deque()
        self._unasked: deque[Samples] = deque()
        self._probabilities: deque[float] = deque()
        self._first_window = 0
        self._decoder = SampleDecoder(audio_format)
        self._resampler = Resampler(audio_format.rate_hz)

    @property
    def duration_samples(self) -> int:
        """Length of the uncommitted audio, the resampler's last few samples included."""
        return self.appended + self._resampler.pending_samples - self.start

    @property
    def unheard_samples(self) -> int:
        """How much audio waits for speech detection, in whole windows."""
        return (self.appended - self.heard) // WINDOW_SAMPLES * WINDOW_SAMPLES

    def use_format(self, audio_format: AudioFormat) -> None:
        """Read the bytes that follow as `audio_format`. The audio before is kept."""
        self.flush()
        self._decoder = SampleDecoder(audio_format)
        self._resampler = Resampler(audio_format.rate_hz)

    def append_bytes(self, data: bytes) -> None:
        """Add audio in the session's format."""
        # In slices, so that dropping the beginning of a large append frees its memory: what is left is a view.
        for start in range(0, len(data), _SLICE_BYTES):
            self.append(self._resampler.resample(self._decoder.decode(data[start : start + _SLICE_BYTES])))

    def flush(self) -> None:
        """Take out what the resampler still holds: all audio that was sent, to its last sample."""
        self.append(self._resampler.flush())

    def append(self, samples: Samples) -> None:
        """Add audio at 16 kHz."""
        if samples.size:
            self._chunks.append(samples)
            self._unasked.append(samples)
            self.appended += samples.size

    def take_unheard(self, max_samples: int) -> Samples:
        """The next whole windows that speech detection has not been asked about; they count as asked from now on.

        They are kept apart from the rest, so that a window is heard whole even if half of it was committed or cleared.
        """
        parts = [_NOTHING]
        size = 0
        while self._unasked and size < max_samples:
            chunk = self._unasked.popleft()
            parts.append(chunk[: max_samples - size])
            if chunk.size > max_samples - size:
                self._unasked.appendleft(chunk[max_samples - size :])
            size += parts[-1].size
        samples = np.concatenate(parts)
        whole = size // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._unasked.appendleft(samples[whole:])
        return samples[:whole]

    def hear(self, probability: float) -> None:
        """Take in the speech probability of the next window."""
        self._probabilities.append(probability)
        self.heard += WINDOW_SAMPLES

    def probabilities(self, start: int, end: int) -> list[float]:
        """The speech probabilities of the windows that end between two positions, as far as they are heard and kept."""
        first = start // WINDOW_SAMPLES - self._first_window
        last = end // WINDOW_SAMPLES - self._first_window
        return list(islice(self._probabilities, max(first, 0), max(last, 0)))

    def read(self, start: int, end: int) -> Samples:
        """A copy of the audio between two positions, as far as it is kept."""
        parts = [_NOTHING]
        position = self.appended
        # From the end, since what is read while speech goes on is the newest, however long it has gone on.
        for chunk in reversed(self._chunks):
            position -= chunk.size
            if position < end:
                parts.append(chunk[max(start - position, 0) : end - position])
            if position <= start:
                break
        return np.concatenate(parts[::-1])

    def drop_before(self, position: int) -> None:
        """Forget the audio before `position`."""
        position = min(max(position, self.start), self.appended)
        while self._chunks and self.start + self._chunks[0].size <= position:
            self.start += self._chunks.popleft().size
        if self.start < position:
            self._chunks[0] = self._chunks[0][position - self.start :]
        self.start = position
        while self._probabilities and (self._first_window + 1) * WINDOW_SAMPLES <= position:
            self._probabilities.popleft()
            self._first_window += 1

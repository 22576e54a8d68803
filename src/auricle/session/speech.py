"""Where the speech is in an utterance, and whether what a model made of it can be believed.

Recognisers invent text for what is no speech, so silence and noise must not reach them, and what they make of a short
and doubtful sound is not to be trusted. The figures come from real speech and real noise, see `docs/design.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.session.jobs import Token
from auricle.session.turns import TurnRule

TAIL_WINDOWS = 4
"""How much audio after the last speech goes with it (128 ms). More silence makes text worse and decoding slower."""

_CLEAR = 0.5
_FAINT = 0.35
"""Speech probabilities from which on a window surely is speech, and from which on it may be."""
MIN_CLEAR_WINDOWS = 2
_LONG_PAUSE_WINDOWS = 32
"""About a second. It always ends a stretch."""

_DOUBT = ((4, -0.3), (16, -0.9))
"""With fewer clear windows than the first figure, the two least sure tokens must have the second as their mean."""
_LONE_DOUBT = -0.6
"""What a single token must reach: "You" for loud music has -0.7 to -0.8, a spoken digit -0.4 at worst."""
SURE_WINDOWS = _DOUBT[-1][0]
"""From so many clear windows on (half a second) every text is believed."""

_ENOUGH = ((8 * SAMPLE_RATE, 5), (12 * SAMPLE_RATE, 2))
"""A stretch longer than the first figure ends at a pause of so many windows."""
MAX_SAMPLES = 20 * SAMPLE_RATE
"""The longest stretch: decoding takes longer than in proportion, and nobody may wait long for somebody else's."""
TELLING_SAMPLES = 18 * SAMPLE_RATE
"""Up to where a stretch is decoded while it goes on. Without a pause it is cut after that, behind all that was told."""
_ENERGY_FRAME_S = 0.02
_SMOOTHING_FRAMES = 9
"""Energy is averaged over 180 ms, so that the middle of a pause wins over the closure of a stop consonant."""


@dataclass(frozen=True, slots=True)
class SpeechPiece:
    """A stretch of an utterance that is decoded at once. Positions are samples since the session began."""

    start: int
    end: int
    clear_windows: int
    """How many windows of clear speech there are in it, or in that of which it was cut off."""

    @property
    def size(self) -> int:
        """Its length in samples."""
        return self.end - self.start


class SpeechFinder:
    """Finds the stretches of an utterance that are worth decoding, while its windows are heard.

    Owned by one utterance, which feeds it every window in order. What counts as speech, and how much goes before it, is
    as `rule` has it for turns. What lies in a long pause is left out, since a recogniser would fill it.
    """

    def __init__(self, start: int, rule: TurnRule, read: Callable[[int, int], Samples]) -> None:
        """`start` is the position of the utterance's first sample; the first window is the one in which it lies.

        `read` gives the audio between two positions, as far as it is heard.
        """
        self.ended: deque[SpeechPiece] = deque()
        """Stretches that are over; whoever decodes them takes them out."""
        self.silent_windows = 0
        """How many windows there have been since the last one that may be speech."""
        self._windows = bytearray()
        """For each window whether it may be speech."""
        self._earliest = start
        """Where the next stretch can begin: not in what the one before it has already."""
        self._first = start // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._heard = self._first
        self._lead = rule.prefix_padding_ms * SAMPLE_RATE // 1000
        self._clear = min(_CLEAR, rule.threshold)
        self._faint = min(_FAINT, self._clear)
        self._read = read
        self._start: int | None = None
        self._last = 0
        """End of the last window that may be speech."""
        self._clear_windows = 0

    @property
    def current(self) -> SpeechPiece | None:
        """The stretch that goes on, as far as it is heard, unless there has been next to no speech in it."""
        if self._start is None or self._clear_windows < MIN_CLEAR_WINDOWS:
            return None
        end = min(self._last + TAIL_WINDOWS * WINDOW_SAMPLES, self._heard)
        return SpeechPiece(self._start, end, self._clear_windows)

    def speech_within(self, start: int, end: int) -> tuple[int, int]:
        """The same span of positions without the silence at its ends; unchanged if there is nothing but silence."""
        first = (start - self._first) // WINDOW_SAMPLES
        windows = self._windows[first : -(-(end - self._first) // WINDOW_SAMPLES)]
        if not any(windows):
            return start, end
        begin = self._first + (first + windows.index(1)) * WINDOW_SAMPLES
        behind = self._first + (first + windows.rindex(1) + 1) * WINDOW_SAMPLES
        return max(start, begin), min(end, behind)

    def push(self, probability: float) -> None:
        """Take in the next window's speech probability."""
        begin, self._heard = self._heard, self._heard + WINDOW_SAMPLES
        self._windows.append(probability >= self._faint)
        if probability >= self._faint:
            self.silent_windows = 0
            self._last = self._heard
            self._clear_windows += probability >= self._clear
            if self._start is None:
                self._start = max(begin - self._lead, self._earliest)
            elif self._last - self._start > MAX_SAMPLES:
                self._cut()
            return
        self.silent_windows += 1
        if self._start is not None and self._is_enough():
            self._end_piece()

    def _is_enough(self) -> bool:
        """Whether a stretch that is silent now ends here."""
        assert self._start is not None
        size = self._last - self._start
        return self.silent_windows >= _LONG_PAUSE_WINDOWS or any(
            size >= samples and self.silent_windows >= windows for samples, windows in _ENOUGH
        )

    def _end_piece(self) -> None:
        if (piece := self.current) is not None:
            self.ended.append(piece)
            self._earliest = piece.end
        self._start = None
        self._clear_windows = 0  # the speech before a pause proves nothing of what follows

    def _cut(self) -> None:
        """Divide the stretch that goes on at the quietest place behind all that was decoded while it went on."""
        assert self._start is not None
        begin = self._start + TELLING_SAMPLES
        position = begin + quietest_sample(self._read(begin, self._start + MAX_SAMPLES))
        if self._clear_windows >= MIN_CLEAR_WINDOWS:
            self.ended.append(SpeechPiece(self._start, position, self._clear_windows))
        self._start = self._earliest = position
        # What is left must prove itself, if it is the last.
        self._clear_windows = min(self._clear_windows, (self._last - position) // WINDOW_SAMPLES)

    def end(self, position: int) -> None:
        """The utterance has ended at `position`, which may lie up to a window behind what was heard."""
        self._heard = position
        self._end_piece()


def quietest_sample(samples: Samples) -> int:
    """The middle of the quietest 180 ms; the middle of everything if `samples` is shorter than that."""
    frame_samples = int(_ENERGY_FRAME_S * SAMPLE_RATE)
    frames = samples[: samples.size // frame_samples * frame_samples].reshape(-1, frame_samples)
    if len(frames) < _SMOOTHING_FRAMES:
        return samples.size // 2
    energy = np.convolve((frames**2).mean(axis=1), np.ones(_SMOOTHING_FRAMES), "valid")
    # The last of equals, so that silence is not cut into scraps.
    quietest = energy.size - 1 - int(energy[::-1].argmin())
    return (quietest + _SMOOTHING_FRAMES // 2) * frame_samples + frame_samples // 2


def is_believable(tokens: Sequence[Token], clear_windows: int) -> bool:
    """Whether tokens that a model found were said: not if there was little clear speech and much doubt."""
    if not tokens:
        return True
    # Of the least sure ones only: a wild guess goes on with words that are sure to follow it ("I" with " don't know").
    least_sure = sorted(token.logprob for token in tokens)[:2]
    mean_logprob = sum(least_sure) / len(least_sure)
    if len(tokens) == 1 and clear_windows < SURE_WINDOWS and mean_logprob < _LONE_DOUBT:
        return False
    return all(clear_windows >= windows or mean_logprob >= logprob for windows, logprob in _DOUBT)

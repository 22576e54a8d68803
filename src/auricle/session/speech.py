"""Where the speech is in an utterance, and whether what a model made of it can be believed.

Recognisers invent text for what is no speech, so silence and noise must not reach them, and what they make of a short
and doubtful sound is not to be trusted. The figures come from real speech and real noise, see `docs/design.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.session.jobs import Token
from auricle.session.turns import TurnRule

TAIL_MS = 128
"""How much audio after the last speech goes with it. More silence makes the text worse, and decoding slower."""

_CLEAR = 0.5
_FAINT = 0.35
"""Speech probabilities from which on a window surely is speech, and from which on it may be."""
_MIN_CLEAR_WINDOWS = 2
_LONG_PAUSE_WINDOWS = 32
"""About a second."""

_DOUBT = ((4, -0.3), (16, -0.9))
"""With fewer clear windows than the first figure, the mean log-probability of the tokens must reach the second."""

MAX_PIECE_S = 20.0
"""The longest stretch that is decoded at once: nobody may wait long for somebody else's long utterance."""
_CUT_FROM, _CUT_TO = 0.4, 0.75
"""Where a longer one is cut, as shares of that: between 8 and 15 s, so that at least 5 s are left."""
_ENERGY_FRAME_S = 0.02
_SMOOTHING_FRAMES = 9
"""Energy is averaged over 180 ms, so that the middle of a pause wins over the closure of a stop consonant."""


@dataclass(frozen=True, slots=True)
class SpeechPiece:
    """A stretch of an utterance that is decoded at once."""

    samples: Samples
    clear_windows: int
    """How many windows of clear speech there are in it and in what was spoken without a long pause around it."""


def speech_pieces(samples: Samples, start: int, probabilities: Sequence[float], rule: TurnRule) -> list[SpeechPiece]:
    """The stretches of an utterance that are worth decoding, in order; none if there is no speech in it.

    `samples` begin at position `start`; `probabilities` are those of the windows from the one on in which `start` lies.
    What counts as speech, and how much goes before it, is as `rule` has it for turns. What lies in a long pause is left
    out, since a recogniser would fill it.
    """
    clear = min(_CLEAR, rule.threshold)
    first_window = -(start % WINDOW_SAMPLES)  # relative to the samples
    pieces: list[SpeechPiece] = []
    end = 0
    for first, last in _stretches(probabilities, min(_FAINT, clear)):
        clear_windows = sum(probability >= clear for probability in probabilities[first : last + 1])
        if clear_windows < _MIN_CLEAR_WINDOWS:
            continue
        begin = first_window + first * WINDOW_SAMPLES - rule.prefix_padding_ms * SAMPLE_RATE // 1000
        begin = max(begin, end)  # not what the stretch before has already
        end = first_window + (last + 1) * WINDOW_SAMPLES + TAIL_MS * SAMPLE_RATE // 1000
        pieces += [SpeechPiece(piece, clear_windows) for piece in split_at_pauses(samples[begin:end])]
    return pieces


def _stretches(probabilities: Sequence[float], audible: float) -> list[tuple[int, int]]:
    """First and last audible window of each stretch of speech without a long pause."""
    stretches: list[tuple[int, int]] = []
    for index, probability in enumerate(probabilities):
        if probability < audible:
            continue
        if stretches and index - stretches[-1][1] <= _LONG_PAUSE_WINDOWS:
            stretches[-1] = (stretches[-1][0], index)
        else:
            stretches.append((index, index))
    return stretches


def split_at_pauses(samples: Samples, max_piece_s: float = MAX_PIECE_S) -> list[Samples]:
    """Cut audio, float32 mono 16 kHz, into pieces of at most `max_piece_s` seconds, at the quietest places."""
    max_samples = int(max_piece_s * SAMPLE_RATE)
    pieces = []
    while samples.size > max_samples:
        earliest = int(_CUT_FROM * max_samples)
        cut = earliest + quietest_sample(samples[earliest : int(_CUT_TO * max_samples)])
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


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
    mean_logprob = sum(token.logprob for token in tokens) / len(tokens)
    return all(clear_windows >= windows or mean_logprob >= logprob for windows, logprob in _DOUBT)

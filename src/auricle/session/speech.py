"""Where the speech is in an utterance, and whether what a model made of it can be believed.

Recognisers invent text for what is no speech, so silence and noise must not reach them, and what they make of a short
and doubtful sound is not to be trusted. The figures come from real speech and real noise, see `docs/design.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.session.jobs import Token
from auricle.session.turns import TurnRule

TAIL_MS = 128
"""How much audio after the last speech goes with it. More silence makes the text worse, and decoding slower."""

_CLEAR = 0.5
_FAINT = 0.35
"""Speech probabilities from which on a window surely is speech, and from which on it may be."""
_MIN_CLEAR_WINDOWS = 2

_DOUBT = ((4, -0.3), (16, -0.9))
"""With fewer clear windows than the first figure, the mean log-probability of the tokens must reach the second."""


def speech_part(samples: Samples, start: int, probabilities: Sequence[float], rule: TurnRule) -> Samples:
    """The part of an utterance that is worth decoding; empty if there is no speech in it.

    `samples` begin at position `start`; `probabilities` are those of the windows from the one on in which `start` lies.
    What counts as speech, and how much goes before it, is as `rule` has it for turns.
    """
    clear = min(_CLEAR, rule.threshold)
    if sum(probability >= clear for probability in probabilities) < _MIN_CLEAR_WINDOWS:
        return samples[:0]
    audible = [index for index, probability in enumerate(probabilities) if probability >= min(_FAINT, clear)]
    first_window = -(start % WINDOW_SAMPLES)  # relative to the samples
    begin = first_window + audible[0] * WINDOW_SAMPLES - rule.prefix_padding_ms * SAMPLE_RATE // 1000
    end = first_window + (audible[-1] + 1) * WINDOW_SAMPLES + TAIL_MS * SAMPLE_RATE // 1000
    return samples[max(begin, 0) : end]


def is_believable(tokens: Sequence[Token], probabilities: Sequence[float]) -> bool:
    """Whether tokens that a model found in an utterance were said: not if there was little speech and much doubt."""
    if not tokens:
        return True
    clear_windows = sum(probability >= _CLEAR for probability in probabilities)
    mean_logprob = sum(token.logprob for token in tokens) / len(tokens)
    return all(clear_windows >= windows or mean_logprob >= logprob for windows, logprob in _DOUBT)

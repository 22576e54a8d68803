"""What was said last in a session, as context for what is said next.

A recogniser of whole utterances hears each turn as if nothing had been before it, and short turns suffer. So it hears
the last seconds of speech again, with their text given, and goes on from there (as Whisper does with its previous
text, but with the audio besides). `docs/design.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.protocol.config import Transcription
from auricle.session.jobs import Context, Token

MAX_CONTEXT_SAMPLES = 6 * SAMPLE_RATE
"""More audio than this costs more than it helps."""
MAX_SPEECH_SAMPLES = 6 * SAMPLE_RATE
"""Longer speech is context enough for itself."""
MAX_GAP_SAMPLES = 10 * SAMPLE_RATE
"""What was said longer ago has less to do with what is said now."""


class RecentSpeech:
    """The last stretches of speech that are decoded: all that fit, or else the last one. Owned by one conversation."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._options: Transcription | None = None
        self._start = -1
        self._end = 0
        """Where the newest stretch lies."""

    def add(self, start: int, samples: Samples, tokens: Sequence[Token], options: Transcription) -> None:
        """A stretch of speech, which begins at position `start`, is decoded.

        One without text is left out: there is nothing to go on from. So is one that is older than the newest.
        """
        if not tokens or start <= self._start:
            return
        size = samples.size
        before = self.context(options, start)
        if before and before.samples.size + samples.size <= MAX_CONTEXT_SAMPLES:
            samples = np.concatenate([before.samples, samples])
            tokens = [*before.tokens, *tokens]
        self._start, self._end = start, start + size
        fits = samples.size <= MAX_CONTEXT_SAMPLES
        # A copy: what was read of an item is a view that would keep all of its audio alive.
        self._context = Context(samples.copy(), tuple(tokens)) if fits else None
        self._options = options

    def context(self, options: Transcription, start: int) -> Context | None:
        """What to hear before speech that begins at position `start`.

        What was decoded under other settings helps in none: tokens are a model's.
        """
        is_near = self._start < start <= self._end + MAX_GAP_SAMPLES
        return self._context if self._options == options and is_near else None

    def forget(self) -> None:
        """Nothing that was said is to be used any more."""
        self._context = None

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


class RecentSpeech:
    """The last stretches of speech that are decoded, as many as fit. Owned by one conversation."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._options: Transcription | None = None

    def add(self, samples: Samples, tokens: Sequence[Token], options: Transcription) -> None:
        """A stretch of speech is decoded. One without text is left out: there is nothing to go on from."""
        if not tokens:
            return
        before = self.context(options)
        if before and before.samples.size + samples.size <= MAX_CONTEXT_SAMPLES:
            samples = np.concatenate([before.samples, samples])
            tokens = [*before.tokens, *tokens]
        fits = samples.size <= MAX_CONTEXT_SAMPLES
        self._context = Context(samples, tuple(tokens)) if fits else None
        self._options = options

    def context(self, options: Transcription) -> Context | None:
        """What to hear before new speech. What was decoded under other settings helps in none: tokens are a model's."""
        return self._context if self._options == options else None

    def forget(self) -> None:
        """Nothing that was said is to be used any more."""
        self._context = None

"""One utterance that is spoken into an `ItemDecoding`, with no session around it."""

from __future__ import annotations

import numpy as np
from fakes import OPTIONS

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.protocol.config import ServerVad, Transcription
from auricle.session.context import RecentSpeech
from auricle.session.decoding import ItemDecoding
from auricle.session.jobs import Align, Decode, Hypothesis, Token
from auricle.session.turns import TurnRule

AUDIO = np.random.default_rng(0).normal(0, 0.1, 120 * SAMPLE_RATE).astype(np.float32)
"""What all utterances sound like."""


class Utterance:
    """A decoding with its item around it: keeps the job that is out and all that was told."""

    def __init__(self, options: Transcription = OPTIONS, *, silence_ms: int = 200, is_live: bool = True) -> None:
        """`silence_ms` is what ends a turn."""
        self.options = options
        rule = TurnRule.of(ServerVad(silence_duration_ms=silence_ms))
        self.decoding = ItemDecoding(0, rule, lambda start, end: AUDIO[start:end], RecentSpeech(), is_live=is_live)
        self.windows = 0
        self.jobs: list[Decode] = []
        """All decodings so far; the last one is out unless it was answered."""
        self.alignments: list[Align] = []
        """All jobs so far that ask when words were said."""
        self.deltas: list[str] = []

    def say(self, windows: int, probability: float = 0.9) -> list[Decode]:
        """Hear some windows, one at a time. Returns the jobs that came of it."""
        before = len(self.jobs)
        for _ in range(windows):
            self.decoding.push(probability)
            self.windows += 1
            self.advance([])
        return self.jobs[before:]

    def pause(self, windows: int) -> list[Decode]:
        return self.say(windows, 0.0)

    def advance(self, told: list[Token]) -> list[Decode]:
        settled, jobs = self.decoding.advance("item_1", self.options)
        if delta := "".join(token.text for token in [*told, *settled]):
            self.deltas.append(delta)
        decodings = [job for job in jobs if isinstance(job, Decode)]
        self.jobs += decodings
        self.alignments += [job for job in jobs if isinstance(job, Align)]
        return decodings

    def answer(self, hypothesis: Hypothesis) -> list[Decode]:
        """The engine answers the job that is out."""
        return self.advance(self.decoding.receive(hypothesis))

    def say_until_asked(self, windows: int = 1_000) -> Decode:
        """Speak on until there is a job."""
        for _ in range(windows):
            if jobs := self.say(1):
                return jobs[0]
        raise AssertionError("nothing was asked")

    def end(self) -> list[Decode]:
        self.decoding.end(self.windows * WINDOW_SAMPLES)
        return self.advance([])

    @property
    def text(self) -> str:
        assert "".join(self.deltas) == self.decoding.transcript.text
        return self.decoding.transcript.text

"""What of an utterance is text already, and what is to be decoded next. Knows no client and no other utterance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.protocol.config import DEFAULT_DELAY, Transcription
from auricle.session.context import MAX_SPEECH_SAMPLES, RecentSpeech
from auricle.session.jobs import Align, Context, Decode, Hypothesis, Stage, Token
from auricle.session.speech import (
    SURE_WINDOWS,
    TAIL_WINDOWS,
    TELLING_SAMPLES,
    SpeechFinder,
    SpeechPiece,
    is_believable,
)
from auricle.session.transcript import ItemTranscript
from auricle.session.turns import TurnRule
from auricle.session.words import ItemWords

Read = Callable[[int, int], Samples]
"""Gives the audio between two positions."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often speech that goes on is decoded again: each time costs as much as all of the stretch so far.

    The way to the shortest mean delay for a given cost: the time between two decodings grows with what one costs, but
    less than in proportion. The second comes sooner, since it takes two to agree on the first words.
    """

    second_s: float
    """Time between the first two."""
    step_s: float
    growth: float
    """The time between later ones: a step, and this share of the stretch's length."""

    def next_samples(self, size: int, *, is_first: bool) -> int:
        """How many samples to wait after decoding `size` samples."""
        return int(self.second_s * SAMPLE_RATE if is_first else self.step_s * SAMPLE_RATE + self.growth * size)


PAUSE_WINDOWS = 8
"""From so many silent windows on (256 ms) a speaker pauses, so that speech may have ended..."""
_DECODING_WINDOWS = 5
"""...or sooner, to have so much time for decoding before silence ends the turn."""

CADENCES: Mapping[str, Cadence] = {
    "minimal": Cadence(0.25, 0.15, 0.06),
    "low": Cadence(0.25, 0.3, 0.08),
    "medium": Cadence(0.25, 0.55, 0.08),
    "high": Cadence(0.4, 0.6, 0.15),
    "xhigh": Cadence(1.0, 0.8, 0.2),
}
"""By the client's `delay`. What is settled of each hypothesis is the engine's to say."""
STREAMING_CADENCE = Cadence(0.16, 0.16, 0.0)
"""Where looking again costs only what is new. Such models take audio in pieces, many of them in 0.32 s: half of that
keeps the wait for the next look short."""


class ItemDecoding:
    """Leads one utterance through the recogniser, a stretch of speech after the other, while it is heard and after.

    Owned by its item. At most one `Decode` is out at a time; a new one takes the place of one that has no answer yet.
    """

    def __init__(self, start: int, rule: TurnRule, read: Read, recent: RecentSpeech, *, is_live: bool = True) -> None:
        """`start` is the position of the utterance's first sample; `rule` says what counts as speech.

        `recent` is what was said before, and what is said in the utterance is added to it. Unless `is_live`, nothing
        is decoded before it has ended.
        """
        self.transcript = ItemTranscript()
        self.languages: list[str] = []
        """Those of its text, ISO 639-1, in their order, as far as the engine tells them."""
        self.read = read
        """Where the audio is; it moves when the utterance is committed."""
        self._recent = recent
        self._context: Context | None = None
        """What comes before the first stretch that is not done."""
        self._finder = SpeechFinder(start, rule, read)
        self.words = ItemWords(self._finder.speech_within)
        self._pieces_done = 0
        self._settled = ""
        """What was told of the first stretch that is not done."""
        self._tentative: tuple[Token, ...] = ()
        self._language: str | None = None
        """That of this stretch, by what was found in it last."""
        self._decoded_end: int | None = None
        """Up to where the first stretch that is not done was decoded last."""
        self._next_end = 0
        """Where speech that goes on is to be decoded again."""
        self._asked: tuple[Decode, SpeechPiece] | None = None
        self._is_streaming = False
        """Whether the engine goes on where it left off, as its last answer said."""
        self._has_ended = False
        self._is_live = is_live
        self._pause_windows = min(max(rule.least_silence_windows - _DECODING_WINDOWS, TAIL_WINDOWS), PAUSE_WINDOWS)

    @property
    def is_done(self) -> bool:
        """Whether the utterance has ended and all of it is text, with the times of its words if they are wanted."""
        return self._has_ended and not self._finder.ended and not self.words.is_waiting

    @property
    def has_speech(self) -> bool:
        """Whether something was heard in it that is worth decoding."""
        return bool(self._pieces_done or self._finder.ended or self._finder.current)

    @property
    def has_told(self) -> bool:
        """Whether some of its text is settled."""
        return bool(self.transcript.tokens)

    def push(self, probability: float) -> None:
        """Take in the speech probability of the next window."""
        self._finder.push(probability)

    def end(self, position: int) -> None:
        """The utterance has ended."""
        self._finder.end(position)
        self._has_ended = True

    def forget_guesses(self) -> None:
        """Decode anew what is not settled: under other settings."""
        self._decoded_end = self._asked = self._context = None

    def forget_context(self) -> None:
        """What was said before is not to be heard any more."""
        self._context = None

    def release(self) -> None:
        """There is no more to decode: keep none of the audio."""
        self._context = self._asked = None
        self._recent = RecentSpeech()

    def advance(self, item_id: str, options: Transcription) -> tuple[list[Token], list[Decode | Align]]:
        """The text that is settled without further work, and the jobs that are to be done now."""
        told: list[Token] = []
        while self._finder.ended and not self._is_streaming and self._decoded_end == self._finder.ended[0].end:
            told += self._finish_piece(self._tentative, options)
        due = (self._finder.ended[0], Stage.FINAL) if self._finder.ended else self._due()
        job = self._ask(item_id, options, *due) if due else None
        return told, [*self.words.ask(item_id, options, self.read), *([job] if job else ())]

    def receive(self, hypothesis: Hypothesis) -> list[Token]:
        """Take in the answer to the job that is out. Returns what is to be told of it."""
        if self._asked is None:  # it was asked under settings that hold no longer
            return []
        (job, piece), self._asked = self._asked, None
        self._is_streaming = hypothesis.is_streaming
        self._language = hypothesis.language
        if job.is_final:
            return self._finish_piece(hypothesis.committed, job.options)
        self._decoded_end = piece.end
        if self._is_streaming:
            self._next_end = piece.end + STREAMING_CADENCE.next_samples(piece.size, is_first=False)
        if piece.clear_windows < SURE_WINDOWS:  # all of it might not be believed in the end
            self._tentative = hypothesis.committed + hypothesis.tentative
            return []
        self._settled += "".join(token.text for token in hypothesis.committed)
        self._tentative = hypothesis.tentative
        return self.transcript.extend(hypothesis.committed)

    def receive_failure(self, failed: Decode | Align) -> bool:
        """Take in that a job that is out has failed. Returns whether the utterance can have a text all the same."""
        if isinstance(failed, Align):
            self.words.receive_failure()
            return True
        if self._asked is None:
            return True
        (job, _), self._asked = self._asked, None
        self._is_live = False  # whatever is wrong with this audio, trying it again and again makes it no better
        return not job.is_final

    def _finish_piece(self, tokens: tuple[Token, ...], options: Transcription) -> list[Token]:
        """The first stretch is decoded: `tokens` are those after the settled ones."""
        piece = self._finder.ended.popleft()
        if not is_believable(tokens, piece.clear_windows):
            tokens = ()
        told = self.transcript.extend(tokens)
        if self._language and self.transcript.of_piece and self._language not in self.languages:
            self.languages.append(self._language)
        if not self._is_streaming:
            self._recent.add(piece.start, self.read(piece.start, piece.end), self.transcript.of_piece, options)
        self.words.add(piece.start, piece.end, self.transcript.of_piece)
        self._context = None
        self.transcript.begin_piece()
        self._pieces_done += 1
        self._settled, self._tentative = "", ()
        self._decoded_end = None
        self._next_end = 0
        return told

    def _due(self) -> tuple[SpeechPiece, Stage] | None:
        """What of the speech that goes on is to be decoded now."""
        piece = self._finder.current
        if piece is None or self._has_ended or not self._is_live:
            return None
        if self._asked and self._asked[0].stage is not Stage.SPEAKING:
            return None
        if self._finder.silent_windows >= self._pause_windows:
            return (piece, Stage.PAUSE) if piece.end != self._decoded_end else None
        if self._asked or self._finder.silent_windows:  # in silence nothing new is said
            return None
        is_due = piece.end >= self._next_end and piece.size <= TELLING_SAMPLES
        return (piece, Stage.SPEAKING) if piece.clear_windows >= SURE_WINDOWS and is_due else None

    def _ask(self, item_id: str, options: Transcription, piece: SpeechPiece, stage: Stage) -> Decode | None:
        if self._asked and self._asked[0].is_final:
            return None
        is_first = self._next_end == 0
        if is_first:
            self._context = self._recent.context(options, piece.start)
        context = self._context if piece.size <= MAX_SPEECH_SAMPLES else None
        samples = self.read(piece.start, piece.end)
        job = Decode(item_id, options, samples, stage, self._pieces_done, self._settled, piece.start, context)
        self._asked = job, piece
        cadence = CADENCES[options.delay or DEFAULT_DELAY]  # unless the answer says that looking again is cheap
        self._next_end = piece.end + cadence.next_samples(piece.size, is_first=is_first)
        return job

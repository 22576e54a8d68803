"""Work that a session asks for, and the results that come back. Plain data; who carries it out is not known here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from auricle.audio.formats import Samples
from auricle.protocol.config import NoiseReduction, Transcription


@dataclass(frozen=True, slots=True)
class DetectSpeech:
    """Give the speech probability of each window of new audio. A stream's windows follow each other without gaps."""

    stream_id: str
    samples: Samples
    """A multiple of `WINDOW_SAMPLES`, float32 mono, 16 kHz."""
    start: int = 0
    """Position of the first sample since the session began."""
    noise_reduction: NoiseReduction | None = None
    """How speech is to be told from noise as well; None: not at all."""


class Speech(NamedTuple):
    """How likely each window is speech, 0 to 1."""

    probabilities: list[float]
    """Of the audio as it came."""
    cleaned: list[float] | None = None
    """The same without its noise, a window or two late. None: it was not asked for."""


@dataclass(frozen=True, slots=True)
class JudgeTurn:
    """Judge whether a speaker who is silent has finished: a number from 0 to 1, how sure that is."""

    stream_id: str
    samples: Samples
    """What was heard of the turn, the silence included, at most the last `MAX_JUDGED_SAMPLES`. Float32 mono, 16 kHz."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text and the natural logarithm of its probability."""

    text: str
    logprob: float
    ids: tuple[int, ...] = ()
    """What the engine calls it; other engines can't read that."""
    span: tuple[int, int] | None = None
    """Where it was said, begin and end, in samples from the start of the job's samples. None: that is not known."""


@dataclass(frozen=True, slots=True)
class Context:
    """Speech that came right before, cut at its ends like the speech itself, and its text."""

    samples: Samples
    """Float32 mono, 16 kHz."""
    tokens: tuple[Token, ...]


class Stage(IntEnum):
    """How far a stretch of speech has come. Where there is more to do than can be done, the lower goes first."""

    FINAL = 0
    """It has ended: all of its text is wanted."""
    PAUSE = 1
    """The speaker is silent, so that it may have ended."""
    SPEAKING = 2


@dataclass(frozen=True, slots=True)
class Decode:
    """Turn a stretch of an item's speech into text, as far as it has come: one stream's share of a batch."""

    stream_id: str
    """The id of the item. Unique over all sessions."""
    options: Transcription
    samples: Samples
    """The whole stretch so far, float32 mono, 16 kHz, so that nothing is lost with the engine."""
    stage: Stage = Stage.FINAL
    piece: int = 0
    """Which stretch of the item it is."""
    settled: str = ""
    """Its text as far as it was told: what is found continues that."""
    start: int = 0
    """Position of its first sample in the session."""
    context: Context | None = None
    """What the same person said before, to be heard first. No text is wanted of it."""

    @property
    def is_final(self) -> bool:
        """Whether all of the text must be committed."""
        return self.stage is Stage.FINAL


@dataclass(frozen=True, slots=True)
class Align:
    """Find out where each token of a stretch of an item's speech was said, whose text is complete."""

    stream_id: str
    """The id of the item."""
    options: Transcription
    samples: Samples
    """The whole stretch, float32 mono, 16 kHz."""
    tokens: tuple[Token, ...]
    """Its text as it was told."""
    piece: int = 0
    """Which stretch of the item it is."""


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Have a model ready for `Decode`, or give up waiting for that: it is then waited for with the speech."""

    model: str
    """Its name or an alias."""


Job = LoadModel | DetectSpeech | JudgeTurn | Decode | Align


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a stretch of speech is believed to say."""

    committed: tuple[Token, ...] = ()
    """New tokens that are settled now; they continue what was settled before."""
    tentative: tuple[Token, ...] = ()
    """Tokens after the committed ones that may still change; empty when the job was final."""
    language: str | None = None
    """What is spoken, ISO 639-1, where the engine has found that out."""
    is_streaming: bool = False
    """Whether the engine goes on where it left off: looking again costs only what is new, what was said before is of no
    use to it, and what it hears last it tells only in a final job."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the tokens of a stretch of speech were said."""

    spans: tuple[tuple[int, int], ...]
    """For each token of the job its `Token.span`."""

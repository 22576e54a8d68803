"""The interface of an engine: what a speech model must offer to serve sessions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from auricle.audio.formats import Samples
from auricle.errors import EngineError
from auricle.protocol.config import ModelInfo, Transcription, Translation
from auricle.session.jobs import (
    Align,
    Alignment,
    Context,
    Decode,
    DetectSpeech,
    Hypothesis,
    JudgeTurn,
    Speech,
    Stage,
    Token,
)
from auricle.session.words import Word, letters_of, words_of

__all__ = [
    "Align",
    "Aligner",
    "Alignment",
    "Context",
    "Decode",
    "DetectSpeech",
    "Engine",
    "EngineError",
    "Family",
    "Hypothesis",
    "JudgeTurn",
    "ModelInfo",
    "ModelSettings",
    "ModelSpec",
    "OfflineModel",
    "Progress",
    "Speech",
    "SpeechDetector",
    "Stage",
    "Token",
    "Transcript",
    "Transcription",
    "Translation",
    "TurnJudge",
    "Utterance",
    "Whereabouts",
    "Word",
    "aligned",
    "letters_of",
    "words_of",
]


class Engine(Protocol):
    """A speech recogniser that serves many streams. Lives in the worker process and is called by one thread only.

    What it keeps for a stream is a cache: a job says all that is needed, so it can be lost at any time.
    """

    def decode(self, jobs: Sequence[Decode]) -> Sequence[Hypothesis | EngineError]:
        """Decode each stream's speech as far as it has come; one result per job, in order, or why there is none.

        A stream occurs at most once in a batch. The text continues the job's settled text. Raises EngineError: the
        whole batch failed. Results don't depend on the other jobs of the batch.
        """
        ...


@runtime_checkable
class Aligner(Protocol):
    """What an engine, or an `OfflineModel`, can be besides: it finds out when the words of a known text were said.

    One that tells `Token.span` with the text needs none of this.
    """

    def align(self, jobs: Sequence[Align]) -> Sequence[Alignment | EngineError]:
        """Where each token of each job was said, in order, or why that is not known.

        Spans lie within the job's samples, and none begins before the one before it. Raises EngineError: so it is for
        all of them.
        """
        ...


def aligned(model: object, jobs: Sequence[Align]) -> Sequence[Alignment | EngineError]:
    """What `align` answers, of whatever may be an `Aligner`. Raises EngineError: it is none, or fails."""
    if not isinstance(model, Aligner):
        raise EngineError("The model can't tell when words were said.")
    answers = zip(jobs, model.align(jobs), strict=True)
    return [_checked(job, answer) for job, answer in answers]


def _checked(job: Align, answer: Alignment | EngineError) -> Alignment | EngineError:
    """The same, if it is one of this job: engines are others' work too, and a session can't go on from a wrong one."""
    if isinstance(answer, Alignment) and len(answer.spans) != len(job.tokens):
        return EngineError(f"The engine placed {len(answer.spans)} tokens of {len(job.tokens)}.")
    return answer


UNKNOWN_LOGPROB = -0.5
"""For a token whose probability a model doesn't tell: in doubt enough to wait for, not to be dropped."""


class ModelSettings(BaseModel):
    """What can be set about a model, in its table `[models."family/name"]`. A family's own class adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    languages: tuple[str, ...] | None = Field(
        None, description="Languages that it understands, ISO 639-1. Else what its family knows of it"
    )
    load: Literal["start", "use"] = Field(
        "use", description="`start`: loaded with the server, and it stays. Else on its first use"
    )
    idle_s: float | None = Field(None, gt=0, description="After so long unused it is unloaded. Else `model_idle_s`")
    max_batch: int | None = Field(None, ge=1, description="Most utterances decoded together. Else its family's choice")

    threads: int | None = Field(
        None, ge=1, description="Threads that a decoding step may use. Else the server's `threads`"
    )

    @property
    def only_language(self) -> str | None:
        """That of a model which understands one alone."""
        return self.languages[0] if self.languages and len(self.languages) == 1 else None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that is offered, as its family needs it. Travels to the processes that load it."""

    name: str
    """Its whole name, such as `whisper/small`."""
    settings: Any
    """What was set about it: an instance of the family's `settings`."""

    @property
    def family(self) -> str:
        """The first part of its name."""
        return self.name.partition("/")[0]

    @property
    def name_in_family(self) -> str:
        """The rest of its name, which may have slashes of its own."""
        return self.name.partition("/")[2]


Progress = Callable[[int, int], None]
"""Is told how many bytes have come, of how many as far as that is known."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a model runs, and where its weights are."""

    device: str = ""
    """Such as `cpu`; empty: that is not known."""
    place: str = ""
    """The folder, cache or service of its weights; empty: that is not known."""
    size_bytes: int | None = None
    """Of the weights; None: they are not there, or not ours to measure."""
    is_here: bool = True
    """Whether it can be loaded as far as weights go."""


class Family(ABC):
    """Models of one kind, whose names begin alike. It has no state: every process makes its own.

    Other packages add families by an entry point of the group `auricle.engines`: its name is the models' first part.
    """

    settings: type[ModelSettings] = ModelSettings
    """What can be set about each of its models."""

    @abstractmethod
    def info(self, spec: ModelSpec) -> ModelInfo:
        """What is known of a model before it is loaded. Imports no model runtime. Raises ValueError: there is none."""

    @abstractmethod
    def load(self, spec: ModelSpec, threads: int) -> Engine:
        """The model, warm; `threads` are for one decoding step.

        Raises EngineError: it can't be had. The message names the model, the place, and what to do.
        """

    def whereabouts(self, spec: ModelSpec) -> Whereabouts:
        """Where a model runs, and what is known of its weights. Loads nothing."""
        return Whereabouts()

    def fetch(self, spec: ModelSpec, progress: Progress) -> str:
        """Put the weights where `load` looks for them. Returns where that is. Raises EngineError: it can't be done."""
        raise EngineError(f"There is nothing to fetch for {spec.name}.")

    def remove(self, spec: ModelSpec) -> int:
        """Delete the weights that `fetch` has fetched, and nothing else. Returns how many bytes that frees.

        Raises EngineError: there are none.
        """
        raise EngineError(f"There is nothing to remove for {spec.name}.")


class SpeechDetector(Protocol):
    """A voice activity model that serves many streams, called by one thread only."""

    def load(self) -> None:
        """Make the model ready. Raises EngineError: it can't be found."""
        ...

    def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
        """The speech probability, 0 to 1, of each window of each job, in order."""
        ...

    def release(self, stream_id: str) -> None:
        """Forget a stream that will not be continued. Unknown streams are ignored."""
        ...


class TurnJudge(Protocol):
    """A model that judges from the sound of a turn whether it is over. Called by one thread only."""

    def load(self) -> None:
        """Make the model ready. Raises EngineError: it can't be found."""
        ...

    def judge(self, jobs: Sequence[JudgeTurn]) -> list[float]:
        """For each turn, in order, how sure it is that it is over, 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Utterance:
    """What an offline model is given."""

    samples: Samples
    """Float32 mono, 16 kHz, of any length."""
    options: Transcription
    draft: tuple[Token, ...] = ()
    """A guess of its tokens. It saves time and changes nothing but near-ties."""
    context: Context | None = None
    """What was said before. A model that can't go on from there ignores it."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What an offline model finds in an utterance."""

    tokens: tuple[Token, ...]
    language: str | None = None
    """In which language, ISO 639-1, if it knows more than one."""


class OfflineModel(Protocol):
    """A model that transcribes whole utterances and keeps nothing between calls."""

    def transcribe(self, utterances: Sequence[Utterance]) -> Sequence[Transcript | EngineError]:
        """What each utterance says, in order, or why that is not known. Raises EngineError: so it is for all of them.

        The text of an utterance does not depend on its neighbours.
        """
        ...

"""The interface of an engine: what a speech model must offer to serve sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from auricle.audio.formats import Samples
from auricle.errors import EngineError
from auricle.protocol.config import ModelInfo, Transcription
from auricle.session.jobs import Decode, DetectSpeech, Hypothesis, Token

__all__ = [
    "Decode",
    "DetectSpeech",
    "Engine",
    "EngineError",
    "Hypothesis",
    "ModelInfo",
    "OfflineModel",
    "SpeechDetector",
    "Token",
    "Transcription",
]


class Engine(Protocol):
    """A speech recogniser that serves many streams. Lives in the worker process and is called by one thread only.

    The state that it keeps for a stream is a cache: it can be lost and is then rebuilt by replaying the stream's audio.
    """

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        """Advance each stream by its new audio; one result per job, in order. A stream occurs at most once in a batch.

        Raises EngineError: the whole batch failed. Results of a final job don't depend on the other jobs of the batch.
        """
        ...

    def release(self, stream_id: str) -> None:
        """Forget a stream that will not be continued. Unknown streams are ignored."""
        ...


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


class OfflineModel(Protocol):
    """A model that transcribes whole utterances and keeps nothing between calls."""

    def transcribe(self, utterances: Sequence[Samples], options: Sequence[Transcription]) -> list[tuple[Token, ...]]:
        """The tokens of each utterance, in order.

        `utterances` are float32 mono, 16 kHz, of any length; `options` has one entry for each. The text of an utterance
        does not depend on its neighbours.
        """
        ...

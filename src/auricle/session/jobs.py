"""Work that a session asks for, and the results that come back. Plain data; who carries it out is not known here."""

from __future__ import annotations

from dataclasses import dataclass

from auricle.audio.formats import Samples
from auricle.protocol.config import Transcription


@dataclass(frozen=True, slots=True)
class DetectSpeech:
    """Give the speech probability of each window of new audio. A stream's windows follow each other without gaps."""

    stream_id: str
    samples: Samples
    """A multiple of `WINDOW_SAMPLES`, float32 mono, 16 kHz."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Turn one stream's new audio into text: its share of a batch."""

    stream_id: str
    """The id of the item. Unique over all sessions."""
    options: Transcription
    samples: Samples
    """New audio only, float32 mono, 16 kHz; may be empty when `is_final`."""
    is_final: bool
    """The utterance ends here: everything must be committed."""
    committed: str = ""
    """Text that was already promised: what a rebuilt stream must continue."""


Job = DetectSpeech | Decode


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text, the natural logarithm of its probability, and its time where the engine knows it."""

    text: str
    logprob: float
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a stream is believed to say after a step."""

    committed: tuple[Token, ...] = ()
    """New tokens that will not change again; they continue what was committed before."""
    tentative: tuple[Token, ...] = ()
    """Tokens after the committed ones that may still change; empty when the step was final."""

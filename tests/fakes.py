"""Stand-ins for the two ends of a session, its models and its client, and short forms for talking to it.

The detector takes loudness for speech: a window's probability is the mean of its absolute samples. So audio of a
constant level says by itself what will be detected, over any transport.
"""

from __future__ import annotations

import base64
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, AudioFormat, Samples, encode
from auricle.engines.base import Decode, DetectSpeech, EngineError, Hypothesis, Token
from auricle.protocol.config import ModelDirectory, ModelInfo, Pcm, SessionConfig, Transcription
from auricle.protocol.events import Append, InputAudio, Item, RetrieveItem
from auricle.session.jobs import Job
from auricle.session.session import Output, Session, SessionLimits

WINDOW_MS = 32
PCM_16K = Pcm(rate=SAMPLE_RATE)
"""The rate inside the server: what is appended is there at once, to the sample."""

MODELS = ModelDirectory(
    [ModelInfo("fake/english", ("en",)), ModelInfo("fake/many", ("en", "de", "fr"))],
    {
        "gpt-4o-transcribe": "fake/english",
        "gpt-live-transcribe": "fake/many",
        "gpt-realtime-whisper": "fake/many",
        "whisper-1": "fake/many",
    },
    "fake/english",
)
OPTIONS = Transcription(model="fake/english")


def numbered_ids() -> Callable[[str], str]:
    """Ids in the order in which they are asked for: item_1, item_2, event_1…"""
    counters: dict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))
    return lambda prefix: f"{prefix}_{next(counters[prefix])}"


def session_with(limits: SessionLimits | None = None, **settings: Any) -> Session:
    """A session that takes PCM at 16 kHz and transcribes, unless `settings`, fields of SessionConfig, say otherwise."""
    config = SessionConfig(**{"format": PCM_16K, "transcription": OPTIONS} | settings)
    return Session("sess_1", 3600, config, limits or SessionLimits(), numbered_ids())


def append(windows: float = 1, level: float = 0.0, audio_format: AudioFormat = PCM_16K.audio_format) -> Append:
    """Audio of a constant level, so many windows long."""
    samples = np.full(round(windows * WINDOW_MS * audio_format.rate_hz / 1000), level, np.float32)
    return Append(audio=base64.b64encode(encode(samples, audio_format)).decode())


def append_samples(samples: Samples, audio_format: AudioFormat = PCM_16K.audio_format) -> Append:
    return Append(audio=base64.b64encode(encode(samples, audio_format)).decode())


def speak(session: Session, *probabilities: float) -> list[Output]:
    """Append a window of audio for each probability and let it be heard. Returns what came of it but for detections."""
    outputs: list[Output] = []
    for probability in probabilities:
        outputs += hear(session, session.receive_event(append()), [probability])
    return outputs


def hear(session: Session, outputs: Iterable[Output], probabilities: Iterable[float]) -> list[Output]:
    """Answer the detections in `outputs` and in what follows; the last probability goes for all that follow."""
    values = iter(probabilities)
    value = 0.0
    rest: list[Output] = []
    todo = list(outputs)
    while todo:
        output = todo.pop(0)
        if isinstance(output, DetectSpeech):
            answer = []
            for _ in range(output.samples.size // WINDOW_SAMPLES):
                value = next(values, value)
                answer.append(value)
            todo += session.receive_speech(answer)
        else:
            rest.append(output)
    return rest


def audio_samples(session: Session, item_id: str) -> int:
    """How much audio an item has, at 16 kHz, as a client of a session in `PCM_16K` can retrieve it."""
    (retrieved,) = session.receive_event(RetrieveItem(item_id=item_id))
    return len(base64.b64decode(retrieved.item.content[0].audio)) // 2


def events_of(outputs: Iterable[Output]) -> list[Any]:
    return [output for output in outputs if not isinstance(output, Job)]


def jobs_of(outputs: Iterable[Output]) -> list[Any]:
    return [output for output in outputs if isinstance(output, Job)]


def said(*texts: str, logprob: float = -0.5) -> Hypothesis:
    """A final result of these tokens."""
    return Hypothesis(tuple(Token(text, logprob) for text in texts))


def wire_item(item_id: str, transcript: str | None = None, audio: str | None = None) -> Item:
    return Item(id=item_id, content=(InputAudio(transcript=transcript, audio=audio),))


class LoudnessDetector:
    """Takes loudness for speech. Implements `SpeechDetector`."""

    def __init__(self) -> None:
        self.is_loaded = False
        self.batches: list[list[str]] = []
        """The streams of each call."""
        self.released: list[str] = []

    def load(self) -> None:
        self.is_loaded = True

    def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
        self.batches.append([job.stream_id for job in jobs])
        return [loudness(job.samples) for job in jobs]

    def release(self, stream_id: str) -> None:
        self.released.append(stream_id)


def loudness(samples: Samples) -> list[float]:
    """The mean absolute sample of each window."""
    return np.abs(samples).reshape(-1, WINDOW_SAMPLES).mean(axis=1).tolist()


class LengthEngine:
    """Says how long an utterance is, such as `1024 samples`. Implements `Engine`."""

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        if any(job.options.prompt == "fail" for job in jobs):
            raise EngineError("The prompt asked for it.")
        return [said(str(job.samples.size), " samples") for job in jobs]

    def release(self, stream_id: str) -> None:
        pass

"""Stand-ins for the two ends of a session, its models and its client, and short forms for talking to it.

The detector takes loudness for speech: a window's probability is the mean of its absolute samples. So audio of a
constant level says by itself what will be detected, over any transport.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, AudioFormat, Samples, encode
from auricle.engines.base import Decode, DetectSpeech, EngineError, Hypothesis, Token
from auricle.protocol.config import ModelDirectory, ModelInfo, Pcm, SessionConfig, Transcription
from auricle.protocol.events import Append, InputAudio, Item, RetrieveItem
from auricle.session.jobs import Job, LoadModel
from auricle.session.session import Output, Session, SessionLimits

WINDOW_MS = 32
PCM_16K = Pcm(rate=SAMPLE_RATE)
"""The rate inside the server: what is appended is there at once, to the sample."""

MODELS = ModelDirectory(
    [ModelInfo("fake/english", ("en",), has_word_times=True), ModelInfo("fake/many", ("en", "de", "fr"))],
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


def session_with(limits: SessionLimits | None = None, *, is_live: bool = True, **settings: Any) -> Session:
    """A session that takes PCM at 16 kHz and transcribes, unless `settings`, fields of SessionConfig, say otherwise."""
    config = SessionConfig(**{"format": PCM_16K, "transcription": OPTIONS} | settings)
    return Session("sess_1", 3600, config, limits or SessionLimits(), numbered_ids(), is_live=is_live)


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


def loaded(session: Session, outputs: Iterable[Output]) -> list[Output]:
    """All that is in `outputs` and follows, with models that are there at once."""
    rest: list[Output] = []
    for output in outputs:
        rest += session.receive_loaded(output) if isinstance(output, LoadModel) else [output]
    return rest


def audio_samples(session: Session, item_id: str) -> int:
    """How much audio an item has, at 16 kHz, as a client of a session in `PCM_16K` can retrieve it."""
    (retrieved,) = session.receive_event(RetrieveItem(item_id=item_id))
    return len(base64.b64decode(retrieved.item.content[0].audio)) // 2


def events_of(outputs: Iterable[Output]) -> list[Any]:
    return [output for output in outputs if not isinstance(output, Job)]


def jobs_of(outputs: Iterable[Output]) -> list[Any]:
    return [output for output in outputs if isinstance(output, Job)]


def finals_of(outputs: Iterable[Output]) -> list[Any]:
    """The decodings of speech that is over."""
    return [output for output in outputs if isinstance(output, Decode) and output.is_final]


def live_of(outputs: Iterable[Output]) -> list[Any]:
    """The decodings of speech that goes on."""
    return [output for output in outputs if isinstance(output, Decode) and not output.is_final]


def without_live(outputs: Iterable[Output]) -> list[Any]:
    """All but the decodings of speech that goes on: where the engine is too slow for them, nothing comes of those."""
    return [output for output in outputs if not isinstance(output, Decode) or output.is_final]


def tokens(*texts: str, logprob: float = -0.5) -> tuple[Token, ...]:
    return tuple(Token(text, logprob) for text in texts)


def said(*texts: str, logprob: float = -0.5) -> Hypothesis:
    """A final result of these tokens."""
    return Hypothesis(tokens(*texts, logprob=logprob))


def heard(committed: str = "", tentative: str = "", logprob: float = -0.5) -> Hypothesis:
    """What is believed of speech that goes on, a token per word with the space before it."""
    return Hypothesis(*(tokens(*re.findall(r"\s*\S+|\s+$", text), logprob=logprob) for text in (committed, tentative)))


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


class LoudVoiceDetector(LoudnessDetector):
    """Takes what is not very loud for noise, and leaves nothing of it. In the place of the detector without noise."""

    def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
        assert all(job.noise_reduction for job in jobs)
        return [
            [value if value > LOUD_NOISE else 0.0 for value in probabilities] for probabilities in super().detect(jobs)
        ]


LOUD_NOISE = 0.7


def loudness(samples: Samples) -> list[float]:
    """The mean absolute sample of each window."""
    return np.abs(samples).reshape(-1, WINDOW_SAMPLES).mean(axis=1).tolist()


class LengthEngine:
    """Says how long an utterance is, such as `1024 samples`. Implements `Engine`."""

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        if any(job.options.prompt == "fail" for job in jobs):
            raise EngineError("The prompt asked for it.")
        return [self._hypothesis(job) for job in jobs]

    def _hypothesis(self, job: Decode) -> Hypothesis:
        found = tokens(str(job.samples.size), " samples")
        return Hypothesis(found) if job.is_final else Hypothesis((), found)


class SetClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.works_since_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)

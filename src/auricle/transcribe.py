"""Whole recordings to text without a server: a session that is driven to its end, its jobs done one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import Decode, DetectSpeech, Engine, SpeechDetector
from auricle.ids import new_id
from auricle.protocol.config import LOGPROBS, ServerVad, SessionConfig, Transcription
from auricle.protocol.events import LogProb, SpeechStopped, TranscriptionCompleted
from auricle.session.session import Output, Session, SessionLimits

DEFAULT_TURN_DETECTION = ServerVad(silence_duration_ms=500)
"""Where a recording is cut into segments."""
_LAST_WINDOW: Samples = np.zeros(WINDOW_SAMPLES, np.float32)
"""Silence after a recording, so that it is heard to its last sample."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A turn and its text; times in seconds since the recording's beginning."""

    start_s: float
    """Where its first speech begins."""
    end_s: float
    """Where its last speech ends."""
    text: str
    tokens: tuple[LogProb, ...]
    """What the text was made of, each with its log-probability."""


def transcribe(
    blocks: Iterable[Samples],
    options: Transcription,
    detector: SpeechDetector,
    engine: Engine,
    turn_detection: ServerVad = DEFAULT_TURN_DETECTION,
) -> Iterator[Segment]:
    """The segments of a recording, as its `blocks` (float32 mono, 16 kHz, any length) come in. Raises EngineError."""
    config = SessionConfig(
        transcription=options, turn_detection=turn_detection, turn_detection_given=True, include=[LOGPROBS]
    )
    session = Session(new_id("sess"), 0, config, SessionLimits(), new_id, is_live=False)
    driver = _Driver(session, detector, engine, turn_detection.threshold)
    try:
        for block in chain(blocks, [_LAST_WINDOW]):
            yield from driver.perform(session.receive_audio(block))
        yield from driver.perform(session.end_turn())
    finally:
        detector.release(session.id)


class _Driver:
    """Does a session's jobs at once, decoding in batches of what a block of audio brought."""

    def __init__(self, session: Session, detector: SpeechDetector, engine: Engine, threshold: float) -> None:
        """A window is speech if its probability is at least `threshold`."""
        self._session = session
        self._detector = detector
        self._engine = engine
        self._threshold = threshold
        self._heard_s = 0.0
        self._spoken_s: deque[float] = deque()
        """Where the windows with speech end that belong to no turn that has ended."""
        self._times_s: dict[str, tuple[float, float]] = {}
        """When the speech of each item that has no text yet begins and ends."""

    def perform(self, outputs: Sequence[Output]) -> Iterator[Segment]:
        """Carry out what the session returned and all that follows from it."""
        decodings: list[Decode] = []
        while outputs:
            following: list[Output] = []
            for output in outputs:
                match output:
                    case DetectSpeech():
                        following += self._session.receive_speech(self._detect(output))
                    case Decode():
                        decodings.append(output)
                    case SpeechStopped():
                        self._times_s[output.item_id] = self._take_spoken(output.audio_end_ms / 1000)
                    case TranscriptionCompleted():
                        times_s = self._times_s.pop(output.item_id)
                        if output.transcript:
                            yield Segment(*times_s, output.transcript, tuple(output.logprobs or ()))
            if not following and decodings:
                for job, hypothesis in zip(decodings, self._engine.decode(decodings), strict=True):
                    following += self._session.receive_hypothesis(job.stream_id, hypothesis)
                decodings = []
            outputs = following

    def _detect(self, job: DetectSpeech) -> list[float]:
        probabilities = self._detector.detect([job])[0]
        for probability in probabilities:
            self._heard_s += WINDOW_SAMPLES / SAMPLE_RATE
            if probability >= self._threshold:
                self._spoken_s.append(self._heard_s)
        return probabilities

    def _take_spoken(self, end_s: float) -> tuple[float, float]:
        """When the speech of the turn that ends at `end_s` begins and ends."""
        first_s = last_s = self._spoken_s.popleft()
        while self._spoken_s and self._spoken_s[0] <= end_s:
            last_s = self._spoken_s.popleft()
        return first_s - WINDOW_SAMPLES / SAMPLE_RATE, last_s

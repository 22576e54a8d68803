"""Whole recordings to text without a server: a session that is driven to its end, its jobs done one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from auricle.audio.formats import WINDOW_SAMPLES, Samples
from auricle.engines.base import Decode, DetectSpeech, Engine, SpeechDetector
from auricle.ids import new_id
from auricle.protocol.config import ServerVad, SessionConfig, Transcription
from auricle.protocol.events import SpeechStarted, SpeechStopped, TranscriptionCompleted
from auricle.session.session import Output, Session, SessionLimits

_TURN_DETECTION = ServerVad(silence_duration_ms=500)
_LAST_WINDOW: Samples = np.zeros(WINDOW_SAMPLES, np.float32)
"""Silence after a recording, so that it is heard to its last sample."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech and its text; times in seconds since the recording's beginning."""

    start_s: float
    end_s: float
    text: str


def transcribe(
    blocks: Iterable[Samples], options: Transcription, detector: SpeechDetector, engine: Engine
) -> Iterator[Segment]:
    """The segments of a recording, as its `blocks` (float32 mono, 16 kHz, any length) come in. Raises EngineError."""
    config = SessionConfig(transcription=options, turn_detection=_TURN_DETECTION, turn_detection_given=True)
    session = Session(new_id("sess"), 0, config, SessionLimits(), new_id, is_live=False)
    driver = _Driver(session, detector, engine)
    try:
        for block in chain(blocks, [_LAST_WINDOW]):
            yield from driver.perform(session.receive_audio(block))
        yield from driver.perform(session.end_turn())
    finally:
        detector.release(session.id)


class _Driver:
    """Does a session's jobs at once, decoding in batches of what a block of audio brought."""

    def __init__(self, session: Session, detector: SpeechDetector, engine: Engine) -> None:
        self._session = session
        self._detector = detector
        self._engine = engine
        self._start_s: dict[str, float] = {}
        self._end_s: dict[str, float] = {}

    def perform(self, outputs: Sequence[Output]) -> Iterator[Segment]:
        """Carry out what the session returned and all that follows from it."""
        decodings: list[Decode] = []
        while outputs:
            following: list[Output] = []
            for output in outputs:
                match output:
                    case DetectSpeech():
                        following += self._session.receive_speech(self._detector.detect([output])[0])
                    case Decode():
                        decodings.append(output)
                    case SpeechStarted():
                        self._start_s[output.item_id] = output.audio_start_ms / 1000
                    case SpeechStopped():
                        self._end_s[output.item_id] = output.audio_end_ms / 1000
                    case TranscriptionCompleted() if output.transcript:
                        item_id = output.item_id
                        yield Segment(self._start_s[item_id], self._end_s[item_id], output.transcript)
            if not following and decodings:
                for job, hypothesis in zip(decodings, self._engine.decode(decodings), strict=True):
                    following += self._session.receive_hypothesis(job.stream_id, hypothesis)
                decodings = []
            outputs = following

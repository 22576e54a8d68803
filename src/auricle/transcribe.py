"""Whole recordings to text without a server: a session that is driven to its end, its jobs done one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import (
    Align,
    Decode,
    DetectSpeech,
    Engine,
    EngineError,
    SpeechDetector,
    aligned,
)
from auricle.ids import new_id
from auricle.protocol.config import LOGPROBS, WORDS, Include, ServerVad, SessionConfig, Transcription
from auricle.protocol.events import LogProb, SpokenWord, TranscriptionCompleted, TranscriptionDelta
from auricle.session.session import Output, Session, SessionLimits

DEFAULT_TURN_DETECTION = ServerVad(silence_duration_ms=1000)
"""Where a recording is cut into segments. Nobody waits for the end of a turn, and longer ones have fewer errors."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech and its text; times in seconds since the recording's beginning."""

    start_s: float
    """Where its first speech begins."""
    end_s: float
    """Where its last speech ends."""
    text: str
    tokens: tuple[LogProb, ...]
    """What the text was made of, each with its log-probability."""
    language: str | None = None
    """What is spoken, ISO 639-1, if the engine says so."""
    words: tuple[SpokenWord, ...] | None = None
    """When each of its words was said; None: that was not asked for."""


def transcribe(
    blocks: Iterable[Samples],
    options: Transcription,
    detector: SpeechDetector,
    engine: Engine,
    turn_detection: ServerVad = DEFAULT_TURN_DETECTION,
    *,
    with_words: bool = False,
) -> Iterator[Segment]:
    """The segments of a recording, as its `blocks` (float32 mono, 16 kHz, any length) come in.

    `with_words`: they tell when each word was said. Raises EngineError.
    """
    include: list[Include] = [LOGPROBS, WORDS] if with_words else [LOGPROBS]
    config = SessionConfig(
        transcription=options, turn_detection=turn_detection, turn_detection_given=True, include=include
    )
    session = Session(new_id("sess"), 0, config, SessionLimits(), new_id, is_live=False)
    driver = _Driver(session, detector, engine, turn_detection.threshold)
    # The last turn ends as the others do: speech that breaks off has more errors.
    last_silence = np.zeros(turn_detection.silence_duration_ms * SAMPLE_RATE // 1000 + 2 * WINDOW_SAMPLES, np.float32)
    try:
        for block in blocks:
            driver.recorded += block.size
            yield from driver.perform(session.receive_audio(block))
        yield from driver.perform(session.receive_audio(last_silence))
        yield from driver.perform(session.end_turn())
    finally:
        detector.release(session.id)


class _Driver:
    """Does a session's jobs at once."""

    def __init__(self, session: Session, detector: SpeechDetector, engine: Engine, threshold: float) -> None:
        """A window is speech if its probability is at least `threshold`."""
        self._session = session
        self._detector = detector
        self._engine = engine
        self._threshold = threshold
        self.recorded = 0
        """The length of the recording so far, in samples."""
        self._heard = 0
        """Up to where speech detection has come, in samples."""
        self._spoken: deque[int] = deque()
        """Where the windows with speech begin that are still to be decoded."""
        self._with_words = WORDS in (session.config.include or ())
        self._untimed: list[Segment] = []
        """Segments of the turn whose words' times are still to come."""

    def perform(self, outputs: Sequence[Output]) -> Iterator[Segment]:
        """Carry out what the session returned and all that follows from it.

        Speech is decoded before more is heard: what was said before is then known when the next turn is decoded.
        """
        waiting = deque(outputs)
        while waiting:
            match output := waiting.popleft():
                case DetectSpeech():
                    waiting.extend(self._session.receive_speech(self._detect(output)))
                case Decode():
                    (hypothesis,) = self._engine.decode([output])
                    if isinstance(hypothesis, EngineError):
                        raise hypothesis
                    following = self._session.receive_hypothesis(output.stream_id, hypothesis)
                    waiting.extendleft(reversed(following))
                    start_s, end_s = self._take_spoken(output)
                    # Nothing is told of a session that is not live but whole stretches, when they are decoded.
                    for event in following:
                        if isinstance(event, TranscriptionDelta):
                            logprobs = tuple(event.logprobs or ())
                            segment = Segment(start_s, end_s, event.delta.strip(), logprobs, hypothesis.language)
                            if self._with_words:
                                self._untimed.append(segment)
                            else:
                                yield segment
                case Align():
                    (alignment,) = aligned(self._engine, [output])
                    if isinstance(alignment, EngineError):
                        raise alignment
                    waiting.extendleft(reversed(self._session.receive_alignment(output, alignment)))
                case TranscriptionCompleted():
                    yield from _with_words(self._untimed, output.words or (), self.recorded / SAMPLE_RATE)
                    self._untimed.clear()

    def _detect(self, job: DetectSpeech) -> list[float]:
        probabilities = self._detector.detect([job])[0]
        for probability in probabilities:
            if probability >= self._threshold:
                self._spoken.append(self._heard)
            self._heard += WINDOW_SAMPLES
        return probabilities

    def _take_spoken(self, job: Decode) -> tuple[float, float]:
        """When the speech of a stretch begins and ends, without the margins that it is decoded with, in seconds."""
        start, end = job.start, job.start + job.samples.size
        windows = []
        while self._spoken and self._spoken[0] < end:
            if (window := self._spoken.popleft()) + WINDOW_SAMPLES > start:
                windows.append(window)
        if windows:
            start, end = max(windows[0], start), min(windows[-1] + WINDOW_SAMPLES, end)
        return start / SAMPLE_RATE, min(end, self.recorded) / SAMPLE_RATE


def _with_words(segments: Sequence[Segment], words: Sequence[SpokenWord], end_s: float) -> Iterator[Segment]:
    """The segments of a turn with the words of it that are theirs: both have the same letters in the same order.

    The recording ends at `end_s`; the window in which it does may count as speech to its own end.
    """
    rest = deque(_before(word, end_s) for word in words)
    for segment in segments:
        own, missing = list[SpokenWord](), _letters(segment.text)
        while rest and missing > 0:
            own.append(rest.popleft())
            missing -= _letters(own[-1].word)
        yield replace(segment, words=tuple(own))


def _before(word: SpokenWord, end_s: float) -> SpokenWord:
    return word.model_copy(update={"start": min(word.start, end_s), "end": min(word.end, end_s)})


def _letters(text: str) -> int:
    return len("".join(text.split()))

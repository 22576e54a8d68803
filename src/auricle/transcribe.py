"""Whole recordings to text, without a server: turns are found and each is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import Decode, DetectSpeech, Engine, SpeechDetector
from auricle.protocol.config import ServerVad, Transcription
from auricle.session.turns import TurnChange, TurnDetector, TurnRule, is_speech

_RULE = TurnRule.of(ServerVad(silence_duration_ms=500))
_MARGIN_SAMPLES = _RULE.prefix_padding_ms * SAMPLE_RATE // 1000


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
    finder = _TurnFinder(detector)
    for block in blocks:
        yield from _decode(finder.push(block), options, engine)
    yield from _decode(finder.finish(), options, engine)


@dataclass(frozen=True, slots=True)
class _FoundTurn:
    start: int
    samples: Samples


class _TurnFinder:
    """Cuts a recording into turns and keeps no audio but that of an open one. Positions count samples."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._turns = TurnDetector(_RULE)
        self._audio: Samples = np.zeros(0, np.float32)
        self._offset = 0  # position of the first sample kept
        self._heard = 0
        self._start = 0
        self._probabilities: list[float] = []

    def push(self, block: Samples) -> list[_FoundTurn]:
        """Take in more audio. Returns the turns that ended in it."""
        self._audio = np.concatenate([self._audio, block])
        unheard = self._audio[self._heard - self._offset :]
        windows = unheard[: unheard.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
        found = []
        for probability in self._detector.detect([DetectSpeech("file", windows)])[0]:
            self._heard += WINDOW_SAMPLES
            self._probabilities.append(probability)
            match self._turns.push(probability):
                case TurnChange.STARTED:
                    self._start = max(self._start, self._heard - WINDOW_SAMPLES - _MARGIN_SAMPLES)
                    self._probabilities = [probability]
                case TurnChange.STOPPED:
                    found += self._cut(self._heard)
        keep = self._start if self._turns.is_open else self._heard - _MARGIN_SAMPLES
        if keep > self._offset:
            self._audio, self._offset = self._audio[keep - self._offset :], keep
        return found

    def finish(self) -> list[_FoundTurn]:
        """The recording ends. Returns the turn that was open, if any."""
        self._detector.release("file")
        return self._cut(self._offset + self._audio.size) if self._turns.is_open else []

    def _cut(self, end: int) -> list[_FoundTurn]:
        start, self._start = self._start, end
        if not is_speech(self._probabilities):
            return []
        return [_FoundTurn(start, self._audio[start - self._offset : end - self._offset])]


def _decode(turns: list[_FoundTurn], options: Transcription, engine: Engine) -> Iterator[Segment]:
    jobs = [Decode(f"file-{turn.start}", options, turn.samples, is_final=True) for turn in turns]
    for turn, hypothesis in zip(turns, engine.decode(jobs) if jobs else [], strict=True):
        text = "".join(token.text for token in hypothesis.committed).strip()
        if text:
            yield Segment(turn.start / SAMPLE_RATE, (turn.start + turn.samples.size) / SAMPLE_RATE, text)

"""From speech probabilities to turns. Knows no audio and no time, only windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.protocol.config import SemanticVad, ServerVad

WINDOW_MS = WINDOW_SAMPLES * 1000 // SAMPLE_RATE

_HYSTERESIS = 0.15
"""A turn that has begun is only silent below `threshold − 0.15` (Silero's `get_speech_timestamps`)."""

_SEMANTIC_SILENCE_MS = {"high": 400, "auto": 700, "medium": 700, "low": 1200}
"""Without a model that judges turn ends, `semantic_vad` waits for a length of silence that goes with its eagerness."""


class TurnChange(Enum):
    """What a window did to the turn."""

    STARTED = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class TurnRule:
    """When a turn begins and ends."""

    threshold: float
    prefix_padding_ms: int
    silence_windows: int
    """How many windows of silence end a turn: the wanted length, rounded up to whole windows."""

    @classmethod
    def of(cls, turn_detection: ServerVad | SemanticVad) -> TurnRule:
        """The rule that a session's settings ask for."""
        if isinstance(turn_detection, SemanticVad):
            silence_ms = _SEMANTIC_SILENCE_MS[turn_detection.eagerness]
            turn_detection = ServerVad(silence_duration_ms=silence_ms)
        return cls(
            threshold=turn_detection.threshold,
            prefix_padding_ms=turn_detection.prefix_padding_ms,
            silence_windows=max(math.ceil(turn_detection.silence_duration_ms / WINDOW_MS), 1),
        )


class TurnDetector:
    """Finds where turns begin and end. Owned by one session, which feeds it every window in order."""

    def __init__(self, rule: TurnRule, *, is_open: bool = False) -> None:
        self.rule = rule
        """May be changed at any time; an open turn goes on under the new rule."""
        self.is_open = is_open
        """Whether a turn has begun and not ended."""
        self._silent_windows = 0

    def reset(self) -> None:
        """Forget an open turn: the next window of speech begins a new one."""
        self.is_open = False
        self._silent_windows = 0

    def push(self, probability: float) -> TurnChange | None:
        """Take in the next window's speech probability.

        Silence begins with a window below the lower threshold and is broken by one at the upper; windows between the
        two prolong whatever is under way.
        """
        if not self.is_open:
            if probability < self.rule.threshold:
                return None
            self.is_open = True
            return TurnChange.STARTED
        if probability >= self.rule.threshold:
            self._silent_windows = 0
            return None
        if self._silent_windows or probability < max(self.rule.threshold - _HYSTERESIS, 0.01):
            self._silent_windows += 1
        if self._silent_windows < self.rule.silence_windows:
            return None
        self.reset()
        return TurnChange.STOPPED

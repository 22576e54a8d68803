"""From speech probabilities to turns. Knows no audio and no time, only windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.protocol.config import NoiseReduction, SemanticVad, ServerVad

WINDOW_MS = WINDOW_SAMPLES * 1000 // SAMPLE_RATE

_HYSTERESIS = 0.15
"""A turn that has begun is only silent below `threshold − 0.15` (Silero's `get_speech_timestamps`)."""

_FAINT_WINDOWS = 2
"""So many windows within the hysteresis do for a far voice that noise reduction left little of."""

MAX_JUDGED_SAMPLES = 8 * SAMPLE_RATE
"""How much of a turn is judged, from its end."""


class TurnChange(Enum):
    """What a window did to the turn."""

    STARTED = auto()
    PAUSED = auto()
    """The turn may be over: that is to be judged before the next window."""
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """After so much silence a turn is judged."""

    windows: int
    score: float
    """How sure it must be that the turn is over."""


@dataclass(frozen=True, slots=True)
class TurnRule:
    """When a turn begins and ends."""

    threshold: float
    prefix_padding_ms: int
    silence_windows: int
    """How many windows of silence end a turn: the wanted length, rounded up to whole windows."""
    checkpoints: tuple[Checkpoint, ...] = ()
    """Where less silence may end it, in their order."""
    is_far: bool = False
    """Whether noise reduction is for a voice far from the microphone."""

    @classmethod
    def of(cls, turn_detection: ServerVad | SemanticVad, noise_reduction: NoiseReduction | None = None) -> TurnRule:
        """The rule that a session's settings ask for."""
        checkpoints: tuple[Checkpoint, ...] = ()
        if isinstance(turn_detection, SemanticVad):
            checkpoints = _CHECKPOINTS[turn_detection.eagerness]
            turn_detection = ServerVad(silence_duration_ms=_LONGEST_SILENCE_MS[turn_detection.eagerness])
        return cls(
            threshold=turn_detection.threshold,
            prefix_padding_ms=turn_detection.prefix_padding_ms,
            silence_windows=max(math.ceil(turn_detection.silence_duration_ms / WINDOW_MS), 1),
            checkpoints=checkpoints,
            is_far=noise_reduction is not None and noise_reduction.type == "far_field",
        )

    @property
    def lower_threshold(self) -> float:
        """Below it a window is silence."""
        return max(self.threshold - _HYSTERESIS, 0.01)

    @property
    def least_silence_windows(self) -> int:
        """No turn ends with less silence than this."""
        return min([self.silence_windows, *(checkpoint.windows for checkpoint in self.checkpoints)])


_LONGEST_SILENCE_MS = {"low": 8_000, "medium": 4_000, "auto": 4_000, "high": 2_000}
"""With `semantic_vad` this much silence ends a turn, whatever is thought of it (OpenAI's figures)."""

_MEDIUM = (Checkpoint(16, 0.94), Checkpoint(47, 0.5), Checkpoint(63, 0.2))
_CHECKPOINTS = {
    "high": (Checkpoint(8, 0.8), Checkpoint(38, 0.3)),
    "medium": _MEDIUM,
    "auto": _MEDIUM,
    "low": (Checkpoint(25, 0.95), Checkpoint(94, 0.5), Checkpoint(125, 0.2)),
}
"""By the client's `eagerness`, for Smart Turn. `docs/design.md` has the figures; telephone audio needs no others."""


class TurnDetector:
    """Finds where turns begin and end. Owned by one session, which feeds it every window in order.

    With noise reduction a turn that begins is kept back until the voice in it is heard without the noise, too. It ends
    unheard if that does not come before the least silence that could end it.
    """

    def __init__(self, rule: TurnRule, *, is_open: bool = False) -> None:
        self.rule = rule
        """May be changed at any time; an open turn goes on under the new rule."""
        self.is_open = is_open
        """Whether a turn has begun and not ended."""
        self._windows = 0
        """How many windows there are from the beginning of the turn on, or of one that is kept back."""
        self._silent_windows = 0
        self._faint_windows = 0

    @property
    def lead_samples(self) -> int:
        """How far back from the end of the last window the turn begins, the padding before its speech included."""
        return self._windows * WINDOW_SAMPLES + self.rule.prefix_padding_ms * SAMPLE_RATE // 1000

    def reset(self) -> None:
        """Forget an open turn: the next window of speech begins a new one."""
        self.is_open = False
        self._windows = self._silent_windows = self._faint_windows = 0

    def push(self, probability: float, cleaned: float | None = None) -> TurnChange | None:
        """Take in the next window's speech probability, and that of what is left without the noise, if it is reduced.

        Silence begins with a window below the lower threshold and is broken by one at the upper; windows between the
        two prolong whatever is under way.
        """
        if not self._windows and not self.is_open and probability < self.rule.threshold:
            return None
        self._windows += 1
        silent_before = self._silent_windows
        if probability >= self.rule.threshold:
            self._silent_windows = 0
        elif self._silent_windows or probability < self.rule.lower_threshold:
            self._silent_windows += 1
        if not self.is_open:
            return self._begin(probability, probability if cleaned is None else cleaned)
        if self._silent_windows >= self.rule.silence_windows:
            self.reset()
            return TurnChange.STOPPED
        # Windows between the thresholds may follow without silence growing; then it is judged once.
        is_due = self._silent_windows > silent_before and self._checkpoint is not None
        return TurnChange.PAUSED if is_due else None

    def _begin(self, probability: float, cleaned: float) -> TurnChange | None:
        """Begin the turn if its voice is heard, or give it up after enough silence."""
        surest = min(probability, cleaned)
        self._faint_windows += surest >= self.rule.lower_threshold
        is_heard_far = self.rule.is_far and self._faint_windows >= _FAINT_WINDOWS
        if surest >= self.rule.threshold or is_heard_far:
            self.is_open = True
            self._silent_windows = 0
            return TurnChange.STARTED
        if self._silent_windows >= self.rule.least_silence_windows:
            self.reset()
        return None

    def judge(self, score: float) -> TurnChange | None:
        """Take in how sure it is, 0 to 1, that the turn which paused with the last window is over."""
        checkpoint = self._checkpoint
        if checkpoint is None or score < checkpoint.score:
            return None
        self.reset()
        return TurnChange.STOPPED

    @property
    def _checkpoint(self) -> Checkpoint | None:
        """The one that the silence has just reached."""
        return next((found for found in self.rule.checkpoints if found.windows == self._silent_windows), None)

"""One recording's story: when speech was heard, when turns began and ended, and when each piece of text was told.

`tell` plays the recording to a session, `draw` makes a picture of what happened. The clock is the audio's own:
detecting and decoding take no time on it, so that a story is the same on every machine. Knows no server.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import Decode, DetectSpeech, Engine, EngineError, JudgeTurn, SpeechDetector, TurnJudge
from auricle.errors import AuricleError
from auricle.ids import new_id
from auricle.protocol.config import ServerVad, SessionConfig
from auricle.protocol.events import (
    Commit,
    Committed,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionDelta,
)
from auricle.session.jobs import Align, LoadModel
from auricle.session.session import Output, Session, SessionLimits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_STORY_S = 120.0
"""More of a recording is neither played nor drawn."""
_MAX_SILENCE_S = 8.0
"""How long silence may go on after the recording until the last turn has ended by itself."""
_WINDOW_S = WINDOW_SAMPLES / SAMPLE_RATE


@dataclass
class Turn:
    """One item of the story. Times in seconds since the recording's beginning."""

    item_id: str
    start_s: float
    """Where its audio begins, a margin before the speech included; `end_s`, where it ends."""
    end_s: float = 0.0
    committed_s: float = 0.0
    """When that was told."""
    completed_s: float | None = None
    deltas: list[tuple[float, str]] = field(default_factory=list)
    """What was told of its text, and when."""
    transcript: str = ""


@dataclass
class Story:
    """What happened while a recording was played. All times are seconds since its beginning."""

    samples: Samples
    """The recording as far as it was played; float32 mono, 16 kHz."""
    config: SessionConfig
    probabilities: list[tuple[float, float]] = field(default_factory=list)
    """Where each window begins, and how likely it is speech."""
    scores: list[tuple[float, float]] = field(default_factory=list)
    """When a turn was judged, and how sure it was that it is over."""
    events: list[tuple[float, ServerEvent]] = field(default_factory=list)
    """What a client would have been told, and when."""

    @property
    def threshold(self) -> float:
        """The speech probability that begins a turn."""
        detection = self.config.turn_detection
        return detection.threshold if isinstance(detection, ServerVad) else ServerVad().threshold

    @property
    def recording_s(self) -> float:
        """Length of the recording."""
        return self.samples.size / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        """Where the silence after the recording ends that was played until its last turn was over."""
        return len(self.probabilities) * _WINDOW_S

    @property
    def turns(self) -> list[Turn]:
        """The committed items in their order."""
        turns: dict[str, Turn] = {}
        committed: list[Turn] = []
        for now_s, event in self.events:
            item_id = getattr(event, "item_id", None)
            if item_id is None:
                continue
            # Committed by hand, a turn is not announced: it has all audio since the one before.
            turn = turns.setdefault(item_id, Turn(item_id, committed[-1].end_s if committed else 0.0))
            match event:
                case SpeechStarted():
                    turn.start_s = event.audio_start_ms / 1000
                case SpeechStopped():
                    turn.end_s = event.audio_end_ms / 1000
                case Committed():
                    turn.committed_s = now_s
                    turn.end_s = turn.end_s or min(now_s, self.recording_s)
                    committed.append(turn)
                case TranscriptionDelta():
                    turn.deltas.append((now_s, event.delta))
                case TranscriptionCompleted():
                    turn.completed_s, turn.transcript = now_s, event.transcript
        return committed

    def speech_s(self, turn: Turn) -> tuple[float, float]:
        """Where the speech of a turn begins and ends; all of the turn if there is none."""
        begins_s = [
            begin_s
            for begin_s, probability in self.probabilities
            if probability >= self.threshold and turn.start_s < begin_s + _WINDOW_S <= turn.end_s + 1e-6
        ]
        return (max(begins_s[0], turn.start_s), begins_s[-1] + _WINDOW_S) if begins_s else (turn.start_s, turn.end_s)


def tell(
    samples: Samples, config: SessionConfig, detector: SpeechDetector, engine: Engine, judge: TurnJudge | None = None
) -> Story:
    """Play a recording (float32 mono, 16 kHz) to a session, at most its first `MAX_STORY_S`. Raises EngineError.

    Silence follows until the last turn has ended; without turn detection, it is committed at its end.
    """
    session = Session(new_id("sess"), 0, config, SessionLimits(), new_id)
    player = _Player(session, detector, engine, judge, Story(samples[: round(MAX_STORY_S * SAMPLE_RATE)], config))
    try:
        player.play()
    finally:
        detector.release(session.id)
    return player.story


class _Player:
    """Does a session's jobs at once, and writes down when what was told. Owned by `tell`."""

    def __init__(
        self, session: Session, detector: SpeechDetector, engine: Engine, judge: TurnJudge | None, story: Story
    ) -> None:
        self.story = story
        self._session = session
        self._detector = detector
        self._engine = engine
        self._judge = judge
        self._played_samples = 0

    def play(self) -> None:
        """Play the recording, and silence after it."""
        samples = self.story.samples
        for start in range(0, samples.size, WINDOW_SAMPLES):
            self._hear(samples[start : start + WINDOW_SAMPLES])
        if self.story.config.turn_detection is None:
            self._perform(self._session.receive_event(Commit()))
        # Silence also fills up the last window, so that all of the recording is heard.
        silence: Samples = np.zeros(WINDOW_SAMPLES, np.float32)
        self._hear(silence[: -samples.size % WINDOW_SAMPLES])
        end_s = self._now_s + _MAX_SILENCE_S
        while not self._session.is_idle and self.story.config.turn_detection and self._now_s < end_s:
            self._hear(silence)
        self._perform(self._session.end_turn())

    @property
    def _now_s(self) -> float:
        return self._played_samples / SAMPLE_RATE

    def _hear(self, samples: Samples) -> None:
        self._played_samples += samples.size
        self._perform(self._session.receive_audio(samples))

    def _perform(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case DetectSpeech():
                    (probabilities,) = self._detector.detect([output])
                    for probability in probabilities:
                        self.story.probabilities.append((self.story.end_s, probability))
                    self._perform(self._session.receive_speech(probabilities))
                case JudgeTurn():
                    assert self._judge is not None, "the models' directory refuses settings that need one"
                    (score,) = self._judge.judge([output])
                    self.story.scores.append((self._now_s, score))
                    self._perform(self._session.receive_judgement(score))
                case Decode():
                    (hypothesis,) = self._engine.decode([output])
                    if isinstance(hypothesis, EngineError):
                        raise hypothesis
                    self._perform(self._session.receive_hypothesis(output.stream_id, hypothesis))
                case Align() | LoadModel():
                    raise AssertionError("no times of words are asked for, and no other model")
                case _:
                    self.story.events.append((self._now_s, output))


# The picture

_WIDTH_PX = 1600
_DPI = 140
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 92, 36, 158, 0
_PLOT_PX = _WIDTH_PX - _LEFT_PX - _RIGHT_PX
_SOUND_PX, _SPEECH_PX, _AXIS_PX, _GAP_PX = 92, 84, 38, 46
"""Heights of a row's waveform and speech probability, and of the space below each row's time axis and the row."""
_LINE_PX, _TRACK_PX = 24, 26
"""Heights of a line of text and of the track with its marks."""
_ROW_S, _MAX_ROW_S = 15.0, 16.2
"""Time in a row; what is a little longer still goes into one."""
_SHORTEST_ROW_S = 2.0
_MARGIN_S = 0.2
"""Time after the story's end in the last row."""
_WRAP = 30
"""Characters of a delta in one line."""
_TEXT_PT, _SMALL_PT = 8.0, 7.0
_POLE_PX = 8
"""Space between a text and the line that leads to it."""

# Okabe and Ito's colours, which all kinds of eyes tell apart; every colour has a shape of its own besides.
_BLUE, _GREEN, _RED, _PINK = "#0072B2", "#009E73", "#D55E00", "#CC79A7"
_TURN, _SILENCE = "#E3EEF6", "#FBEFD5"
_INK, _PALE, _GRID, _POLE = "#37352f", "#787774", "#e3e2df", "#a9cbe0"
_COMPLETED_MARK: dict[str, Any] = {
    "color": _BLUE, "marker": "D", "markersize": 8.5, "linestyle": "", "markerfacecolor": "white",
}  # fmt: skip
_SCORE_MARK: dict[str, Any] = {
    "color": _PINK, "marker": "s", "markersize": 6, "linestyle": "", "markeredgecolor": _INK, "markeredgewidth": 0.6,
}  # fmt: skip


@dataclass(frozen=True)
class _Note:
    """A delta's text in a row: when it was told, and where it stands."""

    at_s: float
    line: int
    lines: tuple[str, ...]
    is_left: bool
    """There is no room at the right of the line that leads to it."""


@dataclass(frozen=True)
class _Row:
    """A stretch of the story that is drawn side by side."""

    start_s: float
    end_s: float
    notes: tuple[_Note, ...]

    @property
    def text_px(self) -> int:
        """Height of its text."""
        return _TRACK_PX + _LINE_PX * max((note.line + len(note.lines) for note in self.notes), default=1)

    @property
    def height_px(self) -> int:
        return _SOUND_PX + _SPEECH_PX + _AXIS_PX + self.text_px + _GAP_PX


def check_picture(path: Path) -> None:
    """Raises AuricleError: matplotlib is not installed; ValueError: there can be no picture of that name."""
    if find_spec("matplotlib") is None:
        raise AuricleError("A picture needs matplotlib. Install it with: pip install 'auricle[bench]'")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--explain: {path} must end in .png, .svg or .pdf.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"There is no folder {path.absolute().parent} for {path.name}.")


def draw(story: Story, path: Path, title: str, subtitle: str = "") -> None:
    """Write the picture of a story; the file's ending says in which format. Needs matplotlib."""
    from matplotlib.figure import Figure

    rows = _rows(story)
    height_px = _TOP_PX + _BOTTOM_PX + sum(row.height_px for row in rows)
    figure = Figure(figsize=(_WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white")
    _draw_head(figure, story, title, subtitle)
    top_px = _TOP_PX
    for row in rows:
        sound = _add_plot(figure, row, top_px, _SOUND_PX)
        _draw_sound(sound, story, row)
        speech = _add_plot(figure, row, top_px + _SOUND_PX, _SPEECH_PX)
        _draw_speech(speech, story, row)
        text = _add_plot(figure, row, top_px + _SOUND_PX + _SPEECH_PX + _AXIS_PX, row.text_px)
        _draw_text(text, story, row)
        for plot in (sound, speech):
            _draw_turns(plot, story, row)
        top_px += row.height_px
    figure.savefig(path)


def _rows(story: Story) -> list[_Row]:
    """The story cut into rows of equal length, with the texts in their places."""
    end_s = story.end_s + _MARGIN_S
    count = math.ceil(end_s / _MAX_ROW_S)
    row_s = max(end_s / count, _ROW_S if count > 1 else _SHORTEST_ROW_S)
    return [_row(story, index * row_s, (index + 1) * row_s) for index in range(count)]


def _row(story: Story, start_s: float, end_s: float) -> _Row:
    """Put each delta into the highest line in which it covers no other."""
    taken: list[tuple[float, float, int, int]] = []
    notes: list[_Note] = []
    for at_s, delta in (delta for turn in story.turns for delta in turn.deltas):
        if not start_s <= at_s < end_s:
            continue
        lines = tuple(textwrap.wrap(delta.strip(), _WRAP)) or ("␣",)
        width_px = max(map(_width_px, lines)) + _POLE_PX
        x_px = _PLOT_PX * (at_s - start_s) / (end_s - start_s)
        is_left = x_px + width_px > _PLOT_PX + _RIGHT_PX - _POLE_PX
        if is_left:
            x_px -= width_px + _POLE_PX
        line = 0
        while any(
            x_px < right and left < x_px + width_px and line < bottom and top < line + len(lines)
            for left, right, top, bottom in taken
        ):
            line += 1
        taken.append((x_px, x_px + width_px + _POLE_PX, line, line + len(lines)))
        notes.append(_Note(at_s, line, lines, is_left))
    return _Row(start_s, end_s, tuple(notes))


def _width_px(text: str, size_pt: float = _TEXT_PT) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    # A pair of dollars would else be taken for a formula.
    plain = text.replace("$", r"\$")
    box = TextPath((0, 0), plain, size=size_pt, prop=FontProperties()).get_extents()
    return float(box.x1) * _DPI / 72


def _add_plot(figure: Figure, row: _Row, top_px: float, height_px: float) -> Axes:
    """Bare axes with the row's time from left to right, so many pixels below the picture's upper edge."""
    whole_px = figure.get_figheight() * _DPI
    place = (_LEFT_PX / _WIDTH_PX, 1 - (top_px + height_px) / whole_px, _PLOT_PX / _WIDTH_PX, height_px / whole_px)
    plot = figure.add_axes(place, facecolor="none")
    plot.set_xlim(row.start_s, row.end_s)
    plot.spines[:].set_visible(False)
    plot.tick_params(which="both", colors=_PALE, labelsize=_TEXT_PT, length=0, pad=4)
    plot.set_xticks([])
    plot.set_yticks([])
    return plot


def _label(plot: Axes, text: str, y_px: float) -> None:
    """A name at the left of a panel, `y_px` below its upper edge."""
    plot.annotate(
        text, (0, 1), (-_LEFT_PX + 20, -y_px), xycoords="axes fraction", textcoords="offset pixels", color=_INK,
        fontsize=_TEXT_PT, va="center", annotation_clip=False,
    )  # fmt: skip


def _draw_head(figure: Figure, story: Story, title: str, subtitle: str) -> None:
    """What the picture shows, and what its marks mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def place(x_px: float, y_px: float) -> tuple[float, float]:
        return x_px / _WIDTH_PX, 1 - y_px / (figure.get_figheight() * _DPI)

    figure.text(*place(20, 32), title, fontsize=13, fontweight="bold", color=_INK, va="center", parse_math=False)
    figure.text(*place(20, 66), subtitle, fontsize=_TEXT_PT, color=_PALE, va="center", parse_math=False)
    marks: list[Patch | Line2D] = [
        Patch(color=_TURN, label="turn"),
        Patch(color=_SILENCE, label="silence that ended it"),
        Line2D([], [], color=_RED, linewidth=1.4, label="committed"),
        Line2D([], [], color=_GREEN, linewidth=1.4, label="speech probability"),
        Line2D([], [], color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=f"threshold {story.threshold:g}"),
        Line2D([], [], color=_BLUE, marker="o", markersize=5, linestyle="", label="delta told"),
        Line2D([], [], **_COMPLETED_MARK, label="completed"),
    ]
    if story.config.turn_detection is None:
        del marks[1]
    if story.scores:
        marks.insert(-2, Line2D([], [], **_SCORE_MARK, label="judged: is the turn over?"))
    figure.legend(
        handles=marks, loc="center left", bbox_to_anchor=place(20, 100), ncols=len(marks), frameon=False,
        fontsize=_TEXT_PT, labelcolor=_INK, borderpad=0, borderaxespad=0, columnspacing=1.6, handlelength=1.4,
        handletextpad=0.5,
    )  # fmt: skip


def _draw_turns(plot: Axes, story: Story, row: _Row) -> None:
    """Each turn as a span, the silence that ended it in another colour, and a line where it was committed."""
    for turn in story.turns:
        _, speech_end_s = story.speech_s(turn)
        plot.axvspan(turn.start_s, turn.end_s, color=_TURN, linewidth=0, zorder=0)
        if story.config.turn_detection:
            plot.axvspan(speech_end_s, turn.end_s, color=_SILENCE, linewidth=0, zorder=0)
        if row.start_s < turn.committed_s <= row.end_s:
            plot.axvline(turn.committed_s, color=_RED, linewidth=1.4, zorder=3)
    plot.set_xlim(row.start_s, row.end_s)


def _draw_sound(plot: Axes, story: Story, row: _Row) -> None:
    """The waveform, and above it the number of each turn that begins here, with the time to its first text."""
    samples = story.samples[round(row.start_s * SAMPLE_RATE) : round(row.end_s * SAMPLE_RATE)]
    step = max(round((row.end_s - row.start_s) * SAMPLE_RATE / _PLOT_PX), 1)
    columns = samples[: samples.size // step * step].reshape(-1, step)
    times = row.start_s + (np.arange(len(columns)) + 0.5) * step / SAMPLE_RATE
    plot.fill_between(times, columns.min(axis=1), columns.max(axis=1), color=_INK, linewidth=0.4, zorder=2)
    peak = max(float(np.abs(story.samples).max(initial=0)), 1e-3)
    plot.set_ylim(-1.1 * peak, 1.1 * peak)
    _label(plot, "audio", _SOUND_PX / 2)
    for number, turn in enumerate(story.turns):
        if row.start_s <= turn.start_s < row.end_s:
            next_s = min([row.end_s, *(other.start_s for other in story.turns[number + 1 : number + 2])])
            width_px = (next_s - turn.start_s) / (row.end_s - row.start_s) * _PLOT_PX
            plot.annotate(
                _turn_label(story, turn, number + 1, width_px), (turn.start_s, 1), (1, 4), fontsize=_SMALL_PT,
                xycoords=("data", "axes fraction"), textcoords="offset points", color=_PALE, annotation_clip=False,
            )  # fmt: skip


def _turn_label(story: Story, turn: Turn, number: int, width_px: float) -> str:
    """As much as fits above a turn."""
    labels = [f"turn {number}", str(number), ""]
    if turn.deltas:
        after_s = max(turn.deltas[0][0] - story.speech_s(turn)[0], 0)
        labels.insert(0, f"turn {number} · first text after {after_s:.1f} s")
    return next(label for label in labels if not label or _width_px(label, _SMALL_PT) < width_px)


def _draw_speech(plot: Axes, story: Story, row: _Row) -> None:
    """The speech probability with the threshold, the judgements of turns, and the time."""
    times = [begin_s + _WINDOW_S / 2 for begin_s, _ in story.probabilities]
    values = [probability for _, probability in story.probabilities]
    plot.fill_between(times, values, color=_GREEN, alpha=0.16, linewidth=0, zorder=1)
    plot.plot(times, values, color=_GREEN, linewidth=1.2, zorder=2)
    plot.hlines(story.threshold, 0, story.end_s, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    scores = [(at_s, score) for at_s, score in story.scores if row.start_s <= at_s < row.end_s]
    if scores:
        plot.plot(*zip(*scores, strict=True), **_SCORE_MARK, zorder=4, clip_on=False)
    plot.set_ylim(0, 1.12)
    plot.set_yticks([0, 1])
    plot.get_yticklabels()[0].set_verticalalignment("bottom")
    ticks = range(math.ceil(row.start_s), math.floor(min(row.end_s, story.end_s)) + 1)
    plot.set_xticks(ticks, [f"{tick} s" for tick in ticks])
    plot.hlines(0, 0, story.end_s, color=_PALE, linewidth=0.8, zorder=1)
    _label(plot, "speech", _SPEECH_PX / 2)


def _draw_text(plot: Axes, story: Story, row: _Row) -> None:
    """When each delta was told, on a track, and what it said, below."""
    plot.set_ylim(row.text_px, 0)
    track_px = _TRACK_PX / 2
    plot.hlines(track_px, 0, story.end_s, color=_GRID, linewidth=0.8, zorder=0)
    _label(plot, "text", track_px)
    for turn in story.turns:
        if turn.completed_s is not None and row.start_s <= turn.completed_s < row.end_s:
            plot.plot(turn.completed_s, track_px, **_COMPLETED_MARK, zorder=4, clip_on=False)
    scale = (row.end_s - row.start_s) / _PLOT_PX
    for note in row.notes:
        top_px = _TRACK_PX + _LINE_PX * note.line
        plot.vlines(note.at_s, track_px, top_px + _LINE_PX * len(note.lines) - 4, color=_POLE, linewidth=1, zorder=1)
        plot.plot(note.at_s, track_px, "o", color=_BLUE, markersize=5, zorder=5)
        x_s = note.at_s + (_POLE_PX - 2) * scale * (-1 if note.is_left else 1)
        for number, line in enumerate(note.lines):
            plot.text(
                x_s, top_px + _LINE_PX * (number + 0.5), line, fontsize=_TEXT_PT, color=_INK, va="center",
                ha="right" if note.is_left else "left", parse_math=False, zorder=2,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip

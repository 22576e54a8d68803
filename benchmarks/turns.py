"""Turn ends: how often a speaker who only pauses is cut off, against how long one waits after the end.

    python benchmarks/turns.py --audio FOLDER [--kind clean,far,telephone] [--telephone] [--chart FILE.png]

FOLDER holds a `manifest.jsonl` with `words` and the files, as `docs/bench.md` says. A stream is a recording with its
own pauses, four more of 150 ms to 1.5 s between words that have none, and silence after its end; what is put in is the
recording's own background, from its quietest moment. Each stream is played to a session on the audio's own clock under
each setting. A pause of at least 150 ms in which the turn ends is a false cut-off; the delay is from the end of the
last word to `audio_end_ms` of the turn that ends behind it. Detecting and judging take no time here (a judgement takes
about 50 ms of one core). `--telephone` sends the same through 8 kHz µ-law.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, SampleDecoder, Samples, encode
from auricle.audio.resample import Resampler
from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.engines.base import DetectSpeech, JudgeTurn
from auricle.engines.silero import SileroDetector
from auricle.engines.smart_turn import SmartTurnJudge
from auricle.ids import new_id
from auricle.protocol.config import G711, Pcm, SemanticVad, ServerVad, SessionConfig
from auricle.protocol.events import SpeechStopped
from auricle.session.session import Output, Session, SessionLimits

LEAST_PAUSE_S = 0.15
PAUSES_S = (0.15, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5)
"""What is put between words, in turn."""
PLACES = 4
AFTER_S = 9.0
"""Background after the end: longer than any setting waits."""
SILENCES_MS = (200, 300, 400, 500, 600, 800, 1000, 1200)
EAGERNESSES = ("high", "auto", "low")
BACKGROUND_S = 0.1
FADE_S = 0.01

TurnDetection = ServerVad | SemanticVad


@dataclass(frozen=True)
class Stream:
    """What a session hears, and what is true of it."""

    samples: Samples
    probabilities: list[float]
    """The speech probability of each window."""
    own_s: list[tuple[float, float]]
    """The recording's own pauses."""
    put_in_s: list[tuple[float, float]]
    end_s: float


@dataclass
class Point:
    """What one setting did."""

    name: str
    pauses: int = 0
    cut_offs: int = 0
    own_pauses: int = 0
    own_cut_offs: int = 0
    delays_s: list[float] = field(default_factory=list)
    questions: int = 0

    @property
    def cut_off_percent(self) -> float:
        """Share of the pauses in which the turn was ended."""
        return 100 * self.cut_offs / self.pauses

    @property
    def delay_s(self) -> float:
        """The median."""
        return float(np.median(self.delays_s))


def stream_of(clip: Clip, number: int, *, is_telephone: bool, detector: SileroDetector) -> Stream:
    """The recording with its own pauses and some more between its words."""
    samples, words = read_audio(clip.path), clip.words
    parts: list[Samples] = []
    own, put_in = [], []
    begin_s = moved_s = 0.0
    for index, (before, after) in enumerate(pairwise(words)):
        if after.start_s - before.end_s >= LEAST_PAUSE_S:
            own.append((before.end_s + moved_s, after.start_s + moved_s))
        elif places_before(index + 1, len(words)) > places_before(index, len(words)):
            cut_s = (before.end_s + after.start_s) / 2
            pause_s = PAUSES_S[(number + len(put_in) * 3) % len(PAUSES_S)]
            parts += [part(samples, begin_s, cut_s), background(samples, pause_s)]
            put_in.append((cut_s + moved_s, cut_s + moved_s + pause_s))
            begin_s, moved_s = cut_s, moved_s + pause_s
    end_s = words[-1].end_s
    joined = seamless([*parts, part(samples, begin_s, end_s), background(samples, AFTER_S)])
    if is_telephone:
        joined = through_telephone(joined)
    joined = joined[: joined.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
    (probabilities,) = detector.detect([DetectSpeech(clip.id, joined)])
    detector.release(clip.id)
    return Stream(joined, probabilities, own, put_in, end_s + moved_s)


def places_before(index: int, words: int) -> int:
    """How many of the places for a pause, evenly spread, come before a word."""
    return index * (PLACES + 1) // words


def part(samples: Samples, start_s: float, end_s: float) -> Samples:
    """What lies between two times."""
    return samples[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]


def background(samples: Samples, seconds: float) -> Samples:
    """The quietest moment of a recording, to and fro for so long: a loop that has no seam."""
    size = round(BACKGROUND_S * SAMPLE_RATE)
    starts = range(0, max(samples.size - size, 1), size // 4)
    quietest = min(starts, key=lambda start: float(np.square(samples[start : start + size]).sum()))
    moment = samples[quietest : quietest + size]
    to_and_fro = np.concatenate([moment, moment[::-1]])
    wanted = round(seconds * SAMPLE_RATE)
    return np.tile(to_and_fro, wanted // to_and_fro.size + 1)[:wanted]


def seamless(parts: Sequence[Samples]) -> Samples:
    """The parts one after the other, each faded in and out so that no click is heard."""
    size = round(FADE_S * SAMPLE_RATE)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    faded = [part.copy() for part in parts if part.size > 2 * size]
    for part in faded:
        part[:size] *= ramp
        part[-size:] *= ramp[::-1]
    return np.concatenate(faded)


def through_telephone(samples: Samples) -> Samples:
    """As it sounds after 8 kHz µ-law."""
    down, up = Resampler(SAMPLE_RATE, 8_000), Resampler(8_000, SAMPLE_RATE)
    audio_format = G711(type="audio/pcmu").audio_format
    narrow = np.concatenate([down.resample(samples), down.flush()])
    heard = SampleDecoder(audio_format).decode(encode(narrow, audio_format))
    return np.concatenate([up.resample(heard), up.flush()])


def turn_ends_s(stream: Stream, config: SessionConfig, judge: SmartTurnJudge, point: Point) -> list[float]:
    """Play a stream to a session. Returns when its turns ended."""
    session = Session(new_id("sess"), 0, config, SessionLimits(), new_id)
    ends_s: list[float] = []

    def perform(outputs: Sequence[Output], probability: float) -> None:
        for output in outputs:
            match output:
                case DetectSpeech():
                    perform(session.receive_speech([probability]), probability)
                case JudgeTurn():
                    point.questions += 1
                    perform(session.receive_judgement(judge.judge([output])[0]), probability)
                case SpeechStopped():
                    ends_s.append(output.audio_end_ms / 1000)

    for index, probability in enumerate(stream.probabilities):
        window = stream.samples[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES]
        perform(session.receive_audio(window), probability)
    return ends_s


def measure(name: str, turn_detection: TurnDetection, streams: Sequence[Stream], options: argparse.Namespace) -> Point:
    """Play all streams under one setting."""
    judge, point = SmartTurnJudge.embedded(), Point(name)
    # Audio comes at 16 kHz here; the format says by which rules it is judged.
    audio_format = G711(type="audio/pcmu") if options.telephone else Pcm()
    config = SessionConfig(format=audio_format, turn_detection=turn_detection, turn_detection_given=True)
    for stream in track(streams, name, transient=True):
        ends_s = turn_ends_s(stream, config, judge, point)
        own, put_in = (cut_offs(ends_s, pauses_s) for pauses_s in (stream.own_s, stream.put_in_s))
        point.own_pauses += len(stream.own_s)
        point.own_cut_offs += own
        point.pauses += len(stream.own_s) + len(stream.put_in_s)
        point.cut_offs += own + put_in
        point.delays_s += [end_s - stream.end_s for end_s in ends_s if end_s > stream.end_s][:1]
    return point


def cut_offs(ends_s: Sequence[float], pauses_s: Sequence[tuple[float, float]]) -> int:
    """In how many pauses a turn ended: at the latest in the first window after it."""
    window_s = WINDOW_SAMPLES / SAMPLE_RATE
    return sum(any(start_s < end_s <= stop_s + window_s for end_s in ends_s) for start_s, stop_s in pauses_s)


def cut_offs_of_silence(points: Sequence[Point], delay_s: float) -> float:
    """What plain silence would cut off at a median delay, between the lengths that were measured."""
    return float(np.interp(delay_s, [point.delay_s for point in points], [point.cut_off_percent for point in points]))


def draw(silent: Sequence[Point], semantic: Sequence[Point], path: Path, title: str) -> None:
    """Both curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for points, colour, label in ((silent, "tab:blue", "server_vad"), (semantic, "tab:orange", "semantic_vad")):
        x, y = [point.delay_s for point in points], [point.cut_off_percent for point in points]
        axes.plot(x, y, marker="o", color=colour, label=label)
        for point in points:
            place = (point.delay_s, point.cut_off_percent)
            axes.annotate(point.name.split()[1], place, textcoords="offset points", xytext=(6, 5), color=colour)
    axes.set(xlabel="median delay after the end of a turn, s", ylabel="pauses in which the turn is cut off, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.margins(x=0.12, y=0.12)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean,far,telephone", help="kinds of recordings, separated by commas")
    parser.add_argument("--telephone", action="store_true", help="all audio through 8 kHz µ-law")
    parser.add_argument("--chart", type=Path, help="file for a picture of the curves")
    options = parser.parse_args()
    clips = [clip for clip in of_kinds(load_clips(options.audio), options.kind.split(",")) if len(clip.words) > 1]
    detector = SileroDetector.embedded()
    streams = [
        stream_of(clip, number, is_telephone=options.telephone, detector=detector) for number, clip in enumerate(clips)
    ]
    silent = [measure(f"server_vad {ms}", ServerVad(silence_duration_ms=ms), streams, options) for ms in SILENCES_MS]
    semantic = [
        measure(f"semantic_vad {name}", SemanticVad(type="semantic_vad", eagerness=name), streams, options)
        for name in EAGERNESSES
    ]
    table = Table("setting", "pauses cut off %", "delay p50", "p90", "own pauses", "questions", "ratio")
    for point in [*silent, *semantic]:
        plain = cut_offs_of_silence(silent, point.delay_s)
        ratio = f"{point.cut_off_percent / plain:.2f}" if point in semantic and plain else ""
        delays = [f"{value:.2f} s" for value in np.quantile(point.delays_s, [0.5, 0.9])]
        questions = f"{point.questions / len(streams):.1f}"
        own = f"{100 * point.own_cut_offs / point.own_pauses:.1f}"
        table.add_row(point.name, f"{point.cut_off_percent:.1f}", *delays, own, questions, ratio)
    console = Console()
    console.print(
        f"{len(streams)} streams, {silent[0].pauses} pauses inside sentences, {silent[0].own_pauses} of them their own"
    )
    console.print(table)
    console.print("own pauses: % cut off of the recordings' own; questions: a stream;")
    console.print("ratio: its cut-offs as a share of those of plain silence at the same median delay.")
    if options.chart:
        draw(silent, semantic, options.chart, "Turn ends" + (", telephone" if options.telephone else ""))


if __name__ == "__main__":
    main()

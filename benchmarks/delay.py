"""Accuracy against delay: what each `delay` of a session costs in errors, and what it saves in time.

    python benchmarks/delay.py --audio FOLDER [--kind clean] [--delays minimal,low,…] [--chart FILE.png]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. The clock is that of the audio: it comes in
chunks of 32 ms, and detecting and decoding take no time, so that the result does not depend on the machine. What they
cost is counted apart.
"""

from __future__ import annotations

import argparse
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.bench.latency import latencies, transcript
from auricle.bench.options import DELAYS
from auricle.bench.scoring import Score
from auricle.bench.session_run import Record
from auricle.engines.base import Decode, DetectSpeech, Engine
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.rolling import RollingEngine
from auricle.engines.silero import SileroDetector
from auricle.ids import new_id
from auricle.protocol.config import ServerVad, SessionConfig, Transcription
from auricle.protocol.events import Append
from auricle.session.session import Output, Session, SessionLimits

CHUNK_S = 0.032
TRAILING_SILENCE_S = 1.5
TURN_DETECTION = ServerVad(silence_duration_ms=500)


@dataclass
class Player:
    """Plays recordings to a session on the audio's own clock and counts what its jobs cost."""

    engine: Engine
    detector: SileroDetector
    delay: str | None
    is_live: bool = True
    audio_s: float = 0.0
    detect_s: float = 0.0
    """CPU seconds of speech detection; `decode_s`, of decoding."""
    decode_s: float = 0.0
    decodes: int = 0

    def play(self, clip: Clip) -> Record:
        """What a client would have been told of a recording, and when."""
        options = Transcription(model="moonshine/tiny-en", delay=self.delay)
        config = SessionConfig(transcription=options, turn_detection=TURN_DETECTION, turn_detection_given=True)
        session = Session(new_id("sess"), 0, config, SessionLimits(), new_id, is_live=self.is_live)
        record = Record(clip, CHUNK_S)
        data = clip.wire_bytes(config.format.audio_format, TRAILING_SILENCE_S)
        chunk_bytes = round(1000 * CHUNK_S * config.format.audio_format.bytes_per_ms)
        now_s = 0.0
        for start in range(0, len(data), chunk_bytes):
            now_s += CHUNK_S
            record.sent_s.append(now_s)
            event = Append(audio=base64.b64encode(data[start : start + chunk_bytes]).decode())
            self._perform(session, session.receive_event(event), record, now_s)
        self._perform(session, session.end_turn(), record, now_s)
        self.detector.release(session.id)
        self.audio_s += now_s - TRAILING_SILENCE_S
        return record

    def _perform(self, session: Session, outputs: Sequence[Output], record: Record, now_s: float) -> None:
        for output in outputs:
            start_s = time.process_time()
            match output:
                case DetectSpeech():
                    (probabilities,) = self.detector.detect([output])
                    self.detect_s += time.process_time() - start_s
                    self._perform(session, session.receive_speech(probabilities), record, now_s)
                case Decode():
                    (hypothesis,) = self.engine.decode([output])
                    self.decode_s += time.process_time() - start_s
                    self.decodes += 1
                    self._perform(session, session.receive_hypothesis(output.stream_id, hypothesis), record, now_s)
                case _:
                    record.events.append((now_s, output.model_dump(mode="json")))


@dataclass
class Point:
    """One delay's place on the curve."""

    name: str
    wer: float
    word_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    decodes_per_s: float = 0.0
    cpu_percent: float = 0.0
    """Of a core, for detecting and decoding one stream in real time."""


def measure(name: str, player: Player, clips: Sequence[Clip]) -> Point:
    """Play all recordings with one delay."""
    score = Score()
    found: dict[str, list[float]] = {"word": [], "first_delta": []}
    for clip in clips:
        record = player.play(clip)
        score.add(clip.text, transcript(record), clip.scoring, clip.language)
        for latency in latencies(record):
            found.setdefault(latency.measure, []).append(latency.value_s)
    cpu_percent = 100 * (player.detect_s + player.decode_s) / player.audio_s
    decodes_per_s = player.decodes / player.audio_s
    return Point(name, score.percent or 0.0, found["word"], found["first_delta"], decodes_per_s, cpu_percent)


def print_table(points: Sequence[Point]) -> None:
    """The curve as a table."""
    table = Table("delay", "WER %", "word p50", "p95", "first delta p50", "decodes/s", "CPU %")
    for point in points:
        latencies = ["–"] * 3  # where it is not known when words are said
        if point.word_s and point.first_s:
            latencies_s = [*np.quantile(point.word_s, [0.5, 0.95]), np.median(point.first_s)]
            latencies = [f"{value:.2f} s" for value in latencies_s]
        numbers = [f"{point.decodes_per_s:.2f}", f"{point.cpu_percent:.1f}"]
        table.add_row(point.name, f"{point.wer:.2f}", *latencies, *numbers)
    Console().print(table)


def draw(points: Sequence[Point], path: Path) -> None:
    """The curve as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    places = [(float(np.median(point.word_s)), point.wer, point.name) for point in points]
    axes.plot([x for x, _, _ in places], [y for _, y, _ in places], marker="o", color="tab:blue")
    for x, y, name in places:
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(6, 6))
    axes.set(xlabel="median time from the end of a word to its text, s", ylabel="word error rate, %")
    axes.set_title("Accuracy against delay")
    axes.grid(alpha=0.3)
    axes.margins(x=0.15, y=0.15)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean", help="kinds of recordings, separated by commas")
    parser.add_argument("--delays", default=",".join(DELAYS), help="delays, separated by commas")
    parser.add_argument("--chart", type=Path, help="picture of the curve to write")
    arguments = parser.parse_args()
    clips = [clip for clip in of_kinds(load_clips(arguments.audio), arguments.kind.split(",")) if clip.text]
    model, detector = MoonshineModel.embedded(), SileroDetector.embedded()
    model.warm_up()
    detector.load()
    delays = arguments.delays.split(",")
    points = [measure(delay, Player(RollingEngine(model), detector, delay), clips) for delay in delays]
    whole = measure("(at the end)", Player(RollingEngine(model), detector, None, is_live=False), clips)
    print_table([*points, whole])
    if arguments.chart:
        draw(points, arguments.chart)


if __name__ == "__main__":
    main()

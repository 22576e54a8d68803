"""What an hour of audio in one session costs: whether memory and the work per second of audio stay the same.

    python benchmarks/endurance.py --audio FOLDER [--minutes 60] [--turn short|long] [--speed 0]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. A server is started, and its `clean` and `long`
recordings are sent in an order that is the same each time, with 0.5 to 2 s of silence after each.

`--turn short` sends them as fast as the server takes them; each pause of 500 ms ends a turn. Memory must stay within
5 % after the first five minutes. The minutes are those of audio whose text is complete: what is sent is some minutes
ahead of that.
`--turn long` sends them in real time as one single turn, which no pause ends. The last minute is the same audio as the
first, and its CPU time, with that of the end of the turn, must be within 20 % of that of the first. The minutes are
those of audio that was sent.

Exit code 1 if it isn't so, an item did not complete, or a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from auricle.bench.command import setup_of
from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.bench.latency import items_of
from auricle.bench.options import Options
from auricle.bench.report import RunReport, judge
from auricle.bench.server import ServerProcesses
from auricle.bench.session_run import Record, play
from auricle.local_server import started_server

TURN_DETECTION = {"short": "server_vad:500", "long": "server_vad:5000"}
SPEED = {"short": 0.0, "long": 1.0}
WINDOW_MIN = {"short": 5, "long": 1}
"""Minutes of audio in a line of the table."""
PAUSE_S = (0.5, 2.0)
OPENING_S = 60.0
MARGIN_S = 5.0
"""The track is longer by so much, so that the last turn is over after the last minute."""
TIMEOUT_S = 120.0
SAMPLE_EVERY_S = 0.25
MAX_GROWTH_PERCENT = 5.0
MAX_COST_GROWTH_PERCENT = 20.0
MIB = 2**20


@dataclass(frozen=True)
class Track:
    """What is sent, and what is said in it."""

    text: str
    data: bytes
    opening_s: float
    """Length of the first minute or so of short recordings, which comes again at the end."""

    @classmethod
    def of(cls, clips: Sequence[Clip], options: Options, minutes: float) -> Track:
        """Recordings and pauses of about so many minutes."""
        bytes_per_s = 1000 * options.audio_format.bytes_per_ms
        endless = _endless(clips, options)
        opening = _take(_endless(of_kinds(clips, ["clean"]), options), OPENING_S * bytes_per_s)
        opening_s = sum(len(data) for _, data in opening) / bytes_per_s
        middle_s = 60 * minutes - 2 * opening_s + MARGIN_S
        pieces = [*opening, *_take(endless, middle_s * bytes_per_s), *opening]
        data = b"".join(data for _, data in pieces) + bytes(round(options.trailing_silence_s * bytes_per_s))
        return cls(" ".join(text for text, _ in pieces), data, opening_s)


def _endless(clips: Sequence[Clip], options: Options) -> Iterator[tuple[str, bytes]]:
    """The text of a recording, and its coded audio with a pause, without an end. All recordings come equally often."""
    chance = random.Random(0)
    audio = {clip.path: clip.wire_bytes(options.audio_format, 0) for clip in clips}
    while True:
        for clip in chance.sample(clips, len(clips)):
            pause_samples = round(chance.uniform(*PAUSE_S) * options.audio_format.rate_hz)
            yield clip.text, audio[clip.path] + bytes(pause_samples * options.audio_format.bytes_per_sample)


def _take(pieces: Iterator[tuple[str, bytes]], length_bytes: float) -> list[tuple[str, bytes]]:
    """The next pieces, until they are so long together."""
    taken: list[tuple[str, bytes]] = []
    while sum(len(data) for _, data in taken) < length_bytes:
        taken.append(next(pieces))
    return taken


@dataclass(frozen=True)
class Sample:
    """What the server had cost when it was so far in the audio."""

    audio_s: float
    cpu_s: float
    server_mib: float
    worker_mib: float
    """All child processes, that is, the worker and 10 MiB of the resource tracker of `multiprocessing`."""


@dataclass
class Watch:
    """Samples of a server while a record is made, and the lines of the table that they become."""

    pid: int
    record: Record
    is_one_turn: bool
    window_s: float
    samples: list[Sample] = field(default_factory=list)
    lines: list[Sample] = field(default_factory=list)
    """Of each window: where it ends, its CPU time, and the medians of memory, since decoding makes it jump."""

    def __post_init__(self) -> None:
        self._processes = ServerProcesses(self.pid)

    def sample(self) -> None:
        """Take a sample. Blocks for some milliseconds."""
        cpu_s, memory_mib = self._processes.cpu_s_and_memory_mib()
        server_mib = psutil.Process(self.pid).memory_info().rss / MIB
        self.samples.append(Sample(self._audio_s(), cpu_s, server_mib, memory_mib - server_mib))

    def _audio_s(self) -> float:
        """How far the server is. Within a turn it doesn't tell; then, how much was sent to it."""
        if self.is_one_turn:
            return self.record.audio_s
        told = [item for item in items_of(self.record) if item.completed_s is not None]
        return max((item.stopped_at_audio_s or 0.0 for item in told), default=0.0)

    def cpu_s_at(self, audio_s: float) -> float:
        """CPU time until the server was so far."""
        return float(np.interp(audio_s, [s.audio_s for s in self.samples], [s.cpu_s for s in self.samples]))

    def print_lines(self) -> None:
        """Print the lines of the windows that came to their end since the last time."""
        while self.samples[-1].audio_s >= (len(self.lines) + 1) * self.window_s:
            self._print_line()

    def _print_line(self) -> None:
        start_s, end_s = len(self.lines) * self.window_s, (len(self.lines) + 1) * self.window_s
        # The server may have been through a window between two samples.
        inside = [sample for sample in self.samples if start_s <= sample.audio_s < end_s] or self.samples[-1:]
        servers, workers = [s.server_mib for s in inside], [s.worker_mib for s in inside]
        cpu_s = self.cpu_s_at(end_s) - self.cpu_s_at(start_s)
        line = Sample(end_s, cpu_s, float(np.median(servers)), float(np.median(workers)))
        self.lines.append(line)
        print(
            f"{start_s / 60:>4.0f}–{end_s / 60:<4.0f}{line.server_mib:>12.1f}{line.worker_mib:>12.1f}"
            f"{max(workers):>12.1f}{1000 * cpu_s / self.window_s:>14.1f}",
            flush=True,
        )

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Sample during a block and once after it; print each line when the server is through with it."""

        async def watch() -> None:
            while True:
                await asyncio.to_thread(self.sample)
                self.print_lines()
                await asyncio.sleep(SAMPLE_EVERY_S)

        print(f"{'minutes':<9}{'server MiB':>12}{'worker MiB':>12}{'at most':>12}{'CPU ms per s':>14}")
        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            self.sample()
            self.print_lines()


async def run(base_url: str, pid: int, track: Track, options: Options, turn: str) -> tuple[Watch, RunReport]:
    """Send the track through one session, and watch the server. The table is printed on the way."""
    setup = setup_of(options, base_url)
    record = Record(Clip("track", Path(), "track", track.text, language="en", group="track"), setup.chunk_s)
    watch, start_s = Watch(pid, record, turn == "long", 60 * WINDOW_MIN[turn]), time.perf_counter()
    async with watch.watching():
        await play(setup, track.data, record)
    report = RunReport(None, 1, 0, setup.speed, record.audio_s, time.perf_counter() - start_s, None)
    judge(report, [record])
    return watch, report


def is_memory_flat(watch: Watch) -> bool:
    """Print how memory grew after the first line of the table; whether it stayed within the limit."""
    if len(watch.lines) < 3:
        print("memory: too little audio to tell how it grows after the first minutes")
        return True
    first, last = watch.lines[1], watch.lines[-1]
    print(f"memory in the {watch.window_s / 60:.0f} minutes up to {first.audio_s / 60:.0f} → {last.audio_s / 60:.0f}:")
    before_mib, after_mib = first.server_mib + first.worker_mib, last.server_mib + last.worker_mib
    for name, before, after in (
        ("server", first.server_mib, last.server_mib),
        ("worker", first.worker_mib, last.worker_mib),
        ("together", before_mib, after_mib),
    ):
        print(f"  {name:<9}{before:7.1f} → {after:7.1f} MiB: {after - before:+.1f} MiB, {growth(before, after):+.1f} %")
    return growth(before_mib, after_mib) <= MAX_GROWTH_PERCENT


def is_cost_flat(watch: Watch, opening_s: float, trailing_silence_s: float) -> bool:
    """Print what the last minute cost against the first, which is the same audio; whether that is within the limit."""
    end_s = watch.record.audio_s - trailing_silence_s
    first_s = watch.cpu_s_at(opening_s) - watch.samples[0].cpu_s
    # Until the end of all work: what a turn leaves for its end belongs to it.
    last_s = watch.samples[-1].cpu_s - watch.cpu_s_at(end_s - opening_s)
    print(
        f"CPU for a second of audio: {1000 * first_s / opening_s:.1f} ms in the first {opening_s:.0f} s, "
        f"{1000 * last_s / opening_s:.1f} ms in the last: {growth(first_s, last_s):+.1f} %"
    )
    return growth(first_s, last_s) <= MAX_COST_GROWTH_PERCENT


def growth(before: float, after: float) -> float:
    """In percent."""
    return 100 * (after / before - 1)


def print_report(report: RunReport) -> None:
    """What came of the text, in a line, and whatever was amiss."""
    items = [event for _, event in report.results[0].record.events if event["type"].endswith("committed")]
    wer = report.score.percent
    print(
        f"{report.audio_s / 60:.1f} minutes of audio in {report.wall_s / 60:.1f}, {len(items)} items, "
        f"WER {'–' if wer is None else f'{wer:.2f}'} %, {len(report.broken)} promises broken"
    )
    for violation in report.broken[:10]:
        print(f"  {violation.promise} {violation.item_id}: {violation.detail}")
    for code, count in report.errors.items():
        print(f"  {count} × {code}: {report.messages[code]}")


async def main() -> bool:
    """Send the audio and tell what it cost. Returns whether nothing was amiss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--minutes", type=float, help="of audio; 60, or 9 in one long turn")
    parser.add_argument("--turn", choices=("short", "long"), default="short", help="what a pause is: the turn's end?")
    parser.add_argument("--speed", type=float, help="1: real time; 0: as fast as it goes")
    arguments = parser.parse_args()
    turn, is_long = arguments.turn, arguments.turn == "long"
    minutes = arguments.minutes or (9 if is_long else 60)
    options = Options(
        turn_detection=TURN_DETECTION[turn],
        speed=SPEED[turn] if arguments.speed is None else arguments.speed,
        timeout_s=TIMEOUT_S,
    )
    for name, most_s in (("AURICLE_MAX_SESSION_S", 3600), ("AURICLE_MAX_ITEM_S", 600)):
        # The limits are not what is measured, but they stay as they are wherever they can.
        os.environ.setdefault(name, str(max(most_s, 90 * minutes)))
    track = Track.of(of_kinds(load_clips(arguments.audio), ["clean", "long"]), options, minutes)
    with started_server() as (base_url, pid):
        watch, report = await run(base_url, pid, track, options, turn)
    print_report(report)
    is_flat = is_cost_flat(watch, track.opening_s, options.trailing_silence_s) if is_long else is_memory_flat(watch)
    print("flat" if is_flat else "NOT flat")
    return is_flat and report.is_clean


if __name__ == "__main__":
    raise SystemExit(0 if asyncio.run(main()) else 1)

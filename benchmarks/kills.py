"""What becomes of the text when the worker process is killed, or hangs, again and again under load.

    python benchmarks/kills.py --audio FOLDER [--sessions 10] [--minutes 2] [--every-s 10] [--hang] [--verbose]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. A server is started, and its `clean` recordings
are played twice in real time, the same ones in the same order: undisturbed, and while the worker process gets SIGKILL
every few seconds. With `--hang` it gets SIGSTOP, and the server's `decode_timeout_s` is short. With `--every-s 0` it
gets nothing, which shows how much two runs differ anyway.

Exit code 1 if an item did not complete, a promise was broken or another error came.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path

import psutil

from auricle.bench.command import setup_of
from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.bench.load import Load, run_load
from auricle.bench.options import Options
from auricle.bench.report import RunReport, judge
from auricle.bench.session_run import COMMITTED, COMPLETED, FAILED
from auricle.local_server import started_server

OPTIONS = Options(turn_detection="server_vad:500")
DECODE_TIMEOUT_S = 3
"""Of the server whose worker hangs. Decoding a turn takes a tenth of a second."""
LOADING_S = 5.0
"""A worker that is younger isn't made to hang, since the limit for loading the models is two minutes."""


def worker_of(server_pid: int) -> psutil.Process | None:
    """The server's worker process; None while there is none."""
    for child in psutil.Process(server_pid).children():
        # One that was killed has no command line. The other child is the resource tracker of `multiprocessing`.
        with suppress(psutil.Error):
            if "--multiprocessing-fork" in child.cmdline():
                return child
    return None


@asynccontextmanager
async def struck_worker(server_pid: int, strike: signal.Signals, every_s: float) -> AsyncIterator[set[int]]:
    """Send the worker a signal every `every_s` during a block; never, if that is 0. Yields who got it so far."""
    least_age_s = LOADING_S if strike == signal.SIGSTOP else 0.0
    struck: set[int] = set()

    async def strike_often() -> None:
        while every_s:
            await asyncio.sleep(every_s)
            with suppress(psutil.NoSuchProcess):
                worker = worker_of(server_pid)
                if worker and time.time() - worker.create_time() >= least_age_s:
                    worker.send_signal(strike)
                    struck.add(worker.pid)

    striking = asyncio.create_task(strike_often())
    try:
        yield struck
    finally:
        striking.cancel()


async def play_all(base_url: str, clips: Sequence[Clip], audio: dict[Path, bytes], sessions: int) -> RunReport:
    """Play recordings in real time, each in a session of its own, `sessions` of them at a time."""
    load, start_s = Load(), time.perf_counter()
    setup = setup_of(OPTIONS, base_url)
    await run_load(setup, iter(clips), audio, load, sessions, OPTIONS.ramp_s, math.inf)
    report = RunReport(None, sessions, 0, setup.speed, load.audio_s, time.perf_counter() - start_s, None)
    judge(report, load.records)
    return report


def playlist(clips: Sequence[Clip], audio: dict[Path, bytes], minutes: float) -> list[Clip]:
    """Recordings one after the other, and from the first again, until there are so many minutes of audio."""
    chosen, missing_bytes = [], minutes * 60_000 * OPTIONS.audio_format.bytes_per_ms
    for clip in cycle(clips):
        if missing_bytes <= 0:
            return chosen
        chosen.append(clip)
        missing_bytes -= len(audio[clip.path])
    return chosen


def summary(run: RunReport) -> dict[str, str]:
    """What a run came to, by what it is called in the table."""
    events = Counter(event["type"] for result in run.results for _, event in result.record.events)
    committed, completed, failed = (events[kind] for kind in (COMMITTED, COMPLETED, FAILED))
    latency = run.percentiles.get("stop_to_completed")
    return {
        "recordings": str(len(run.results)),
        "items": str(committed),
        "  completed": str(completed),
        "  failed": str(failed),
        "  missing": str(committed - completed - failed),
        "promises broken": str(len(run.broken)),
        "errors": ", ".join(f"{code} {count}" for code, count in run.errors.items()) or "none",
        "WER %": f"{run.score.percent:.2f}",
        "stop → completed, p50 ms": f"{latency.p50:.0f}" if latency else "–",
        "  p95 ms": f"{latency.p95:.0f}" if latency else "–",
        "  max ms": f"{latency.max:.0f}" if latency else "–",
    }


def print_differences(undisturbed: RunReport, disturbed: RunReport, verbose: bool) -> None:
    """How many transcripts differ; with `verbose` which, and whatever else was amiss."""
    pairs = zip(undisturbed.results, disturbed.results, strict=True)
    differing = [(before, after) for before, after in pairs if before.transcript != after.transcript]
    print(f"transcripts that differ: {len(differing)} of {len(disturbed.results)}")
    if not verbose:
        return
    for before, after in differing:
        print(f"  {before.record.clip.id}\n    {before.transcript}\n    {after.transcript}")
    for run in (undisturbed, disturbed):
        for violation in run.broken:
            print(f"  {violation.promise} {violation.item_id}: {violation.detail}")
        for code, message in run.messages.items():
            print(f"  {code}: {message}")


async def main() -> bool:
    """Both runs, and what they came to. Returns whether nothing was amiss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--sessions", type=int, default=10, help="how many at a time")
    parser.add_argument("--minutes", type=float, default=2, help="length of each run")
    parser.add_argument("--every-s", type=float, default=10, help="seconds between two signals; 0: none is sent")
    parser.add_argument("--hang", action="store_true", help="SIGSTOP instead of SIGKILL")
    parser.add_argument("--verbose", action="store_true", help="print the texts that differ, and what was amiss")
    arguments = parser.parse_args()
    strike = signal.SIGSTOP if arguments.hang else signal.SIGKILL
    if arguments.hang:
        os.environ.setdefault("AURICLE_DECODE_TIMEOUT_S", str(DECODE_TIMEOUT_S))
        os.environ.setdefault("AURICLE_MAX_LAG_S", "30")  # nobody is refused while a hang is not seen yet
    clean = of_kinds(load_clips(arguments.audio), ["clean"])
    audio = {clip.path: clip.wire_bytes(OPTIONS.audio_format, OPTIONS.trailing_silence_s) for clip in clean}
    clips = playlist(clean, audio, arguments.minutes * arguments.sessions)
    with started_server() as (base_url, pid):
        undisturbed = await play_all(base_url, clips, audio, arguments.sessions)
        async with struck_worker(pid, strike, arguments.every_s) as struck:
            disturbed = await play_all(base_url, clips, audio, arguments.sessions)
    print(f"{'':<26}{'undisturbed':>14}{f'{len(struck)} × {strike.name}':>14}")
    before, after = summary(undisturbed), summary(disturbed)
    for name in before:
        print(f"{name:<26}{before[name]:>14}{after[name]:>14}")
    print_differences(undisturbed, disturbed, arguments.verbose)
    return undisturbed.is_clean and disturbed.is_clean


if __name__ == "__main__":
    raise SystemExit(0 if asyncio.run(main()) else 1)

"""The command: runs what was asked for, shows how far it is, and says what came out. Measures nothing itself."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from auricle import __version__
from auricle.bench import tables
from auricle.bench.capacity import CapacitySearch
from auricle.bench.corpus import Clip, embedded_clips, load_clips, of_kinds
from auricle.bench.load import Load, idle_sessions, probe, run_load
from auricle.bench.options import Options
from auricle.bench.report import CapacityStep, RunReport, judge
from auricle.bench.server import ServerProcesses, Usage
from auricle.bench.session_run import Setup
from auricle.local_server import started_server

_REFRESH_S = 0.25
_STEADY_AUDIO_S = 200.0
"""Audio in a step of the search, over all sessions, that makes enough turns to judge by."""
_COLUMNS = ("{task.description}", "{task.percentage:>3.0f} %", "{task.fields[note]}")


def bench(options: Options, out: Console, err: Console) -> bool:
    """Run a benchmark: progress on `err`, tables on `out`, files as asked for. Returns whether nothing was amiss.

    Raises AuricleError: nothing could be measured.
    """
    clips = of_kinds(load_clips(options.audio) if options.audio else embedded_clips(), options.kinds)
    with ExitStack() as stack:
        base_url, pid = options.url, options.pid
        if base_url is None:
            with err.status("Starting a server"):
                base_url, pid = stack.enter_context(started_server())
        progress = stack.enter_context(_progress(err))
        runner = _Runner(options, base_url, ServerProcesses(pid) if pid else None, clips, progress)
        runner.read_audio()
        asyncio.run(runner.find_capacity() if options.find_capacity else runner.compare_delays())
    out.print(tables.heading(options, base_url, runner.runs))
    tables.print_runs(out, runner.runs)
    if options.find_capacity:
        tables.print_capacity(out, options, runner.steps, runner.capacity)
    if options.json:
        options.json.write_text(json.dumps(runner.as_json(), indent=2, ensure_ascii=False) + "\n")
    if options.chart:
        from auricle.bench import charts  # takes long to load

        charts.draw(options, runner.runs, runner.steps, runner.capacity).savefig(options.chart)
    for path in filter(None, (options.json, options.chart)):
        err.print(f"Written: {path}", highlight=False, soft_wrap=True)
    return all(run.is_clean for run in runner.runs)


def _progress(err: Console) -> Progress:
    text = [TextColumn(column, markup=False) for column in _COLUMNS]
    times = (TimeElapsedColumn(), TextColumn("left", style="dim"), TimeRemainingColumn())
    # Drawn seldom: the generator must not be late for it.
    return Progress(text[0], BarColumn(), *text[1:], *times, console=err, transient=True, refresh_per_second=4)


def setup_of(options: Options, base_url: str, delay: str | None = None) -> Setup:
    """How recordings are played, as the options ask for it."""
    audio_format = options.audio_format
    chunk_samples = max(round(options.chunk_ms * audio_format.rate_hz / 1000), 1)
    return Setup(
        base_url=base_url,
        api_key=options.api_key,
        audio_input=options.audio_input(delay),
        chunk_bytes=chunk_samples * audio_format.bytes_per_sample,
        chunk_s=chunk_samples / audio_format.rate_hz,
        speed=options.speed,
        timeout_s=options.timeout_s,
    )


@dataclass
class _Runner:
    """Owns what all runs share: the coded audio, the server that is watched, and the reports so far."""

    options: Options
    base_url: str
    server: ServerProcesses | None
    clips: list[Clip]
    progress: Progress
    audio: dict[Path, bytes] = field(default_factory=dict)
    runs: list[RunReport] = field(default_factory=list)
    steps: list[CapacityStep] = field(default_factory=list)
    capacity: int | None = None
    lost: list[str] = field(default_factory=list)
    """Why silent sessions were closed."""

    def read_audio(self) -> None:
        """Read and code all recordings, so that nothing is left to do for that while they are played."""
        task = self.progress.add_task("Reading recordings", total=len(self.clips), note="")
        for clip in self.clips:
            if clip.path not in self.audio:
                self.audio[clip.path] = clip.wire_bytes(self.options.audio_format, self.options.trailing_silence_s)
            self.progress.advance(task)
        self.progress.remove_task(task)

    def _setup(self, delay: str | None) -> Setup:
        return setup_of(self.options, self.base_url, delay)

    async def compare_delays(self) -> None:
        """Play all recordings once with each delay, and some again if there are more sessions than recordings."""
        clips = list(islice(cycle(self.clips), max(len(self.clips), self.options.sessions)))
        audio_s = sum(len(self.audio[clip.path]) for clip in clips) / (1000 * self.options.audio_format.bytes_per_ms)
        for delay in self.options.delays:
            await probe(self._setup(delay))
        async with idle_sessions(self._setup(self.options.delays[0]), self.options.idle, self.lost.append):
            for delay in self.options.delays:
                name = f"Delay {delay}" if delay else "Playing"
                with _Task(self.progress, name, audio_s) as task:
                    self.runs.append(await self._run(delay, iter(clips), self.options.sessions, math.inf, task))

    async def find_capacity(self) -> None:
        """Play with ever more sessions until the server is too slow, then find the number between."""
        options = self.options
        search = CapacitySearch(options.sessions, options.max_sessions)
        await probe(self._setup(options.delays[0]))
        async with idle_sessions(self._setup(options.delays[0]), options.idle, self.lost.append):
            while (sessions := search.sessions) is not None:
                # Where it matters, the 95th percentile must not be one slow turn of a few.
                steady_s = max(options.step_s, _STEADY_AUDIO_S / sessions)
                step = await self._try(sessions, options.step_s if search.failed is None else steady_s)
                if not step.is_passed and step.is_scanty and step.run.wall_s < steady_s:
                    step = await self._try(sessions, steady_s)
                search.tell(sessions, step.is_passed)
        self.capacity = search.passed

    async def _try(self, sessions: int, step_s: float) -> CapacityStep:
        """One step of the search."""
        options = self.options
        audio_s = sessions * (step_s + options.ramp_s / 2)
        with _Task(self.progress, tables.counted(sessions, "session"), audio_s) as task:
            run = await self._run(options.delays[0], cycle(self.clips), sessions, step_s, task)
        step = CapacityStep.judged(run, options.p95_ms, is_by_hand=options.turns is None)
        self.steps.append(step)
        self.progress.console.print(tables.step_line(step), highlight=False)
        return step

    async def _run(
        self, delay: str | None, clips: Iterator[Clip], sessions: int, step_s: float, task: _Task
    ) -> RunReport:
        options, load, start_s = self.options, Load(), time.perf_counter()
        ramp_s = options.ramp_s / options.speed if options.speed else 0.0
        async with self._watched() as usage, task.following(load):
            await run_load(self._setup(delay), clips, self.audio, load, sessions, ramp_s, step_s)
        wall_s = time.perf_counter() - start_s
        report = RunReport(delay, sessions, options.idle, options.speed, load.audio_s, wall_s, usage)
        judge(report, load.records, (load.full_s, load.end_s) if math.isfinite(step_s) else None)
        for message in self.lost:
            report.add_error("silent_session_closed", message)
        self.lost.clear()
        return report

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[Usage | None]:
        if self.server is None:
            yield None
        else:
            async with self.server.watched() as usage:
                yield usage

    def as_json(self) -> dict[str, Any]:
        """The whole result."""
        options = self.options
        hidden = ("api_key", "json", "chart")
        return {
            "auricle": __version__,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "url": self.base_url,
            "is_own_server": options.url is None,
            "options": {name: _plain(value) for name, value in vars(options).items() if name not in hidden},
            "runs": [run.as_json() for run in self.runs],
            "capacity": {
                "sessions": self.capacity,
                "p95_limit_ms": options.p95_ms,
                "steps": [step.as_json() for step in self.steps],
            }
            if options.find_capacity
            else None,
        }


class _Task:
    """One line of the progress bar, which follows a load."""

    def __init__(self, progress: Progress, name: str, audio_s: float) -> None:
        self._progress = progress
        self._id: TaskID = progress.add_task(name, total=audio_s, note="")

    def __enter__(self) -> _Task:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.remove_task(self._id)

    @asynccontextmanager
    async def following(self, load: Load) -> AsyncIterator[None]:
        """Show during a block how much of a load's audio is sent."""

        async def follow() -> None:
            while True:
                note = tables.counted(len(load.records), "recording")
                if problems := sum(record.problem is not None for record in load.records):
                    note += f", {problems} failed"
                self._progress.update(self._id, completed=load.audio_s, note=note)
                await asyncio.sleep(_REFRESH_S)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value

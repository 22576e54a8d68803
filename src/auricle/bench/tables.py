"""What a benchmark comes to, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from auricle.bench.latency import MEASURES
from auricle.bench.options import Options
from auricle.bench.promises import PROMISES
from auricle.bench.report import CapacityStep, Percentiles, RunReport

_MAX_EXAMPLES = 3


def heading(options: Options, base_url: str, runs: Sequence[RunReport]) -> RenderableType:
    """What was measured, in a line or two."""
    whose = "given" if options.url else "started for this"
    speed = f"at {options.speed:g} times the real speed" if options.speed else "as fast as it goes"
    parts = [f"{counted(options.sessions, 'session')} at a time"] if runs else []
    parts += ["in real time" if options.speed == 1 else speed]
    parts += [f"{options.idle} silent beside"] if options.idle else []
    parts += [options.turn_detection.replace(":", " "), options.format, options.model]
    return Text.assemble((f"{base_url} ({whose})", "bold"), "\n", ", ".join(parts))


def print_runs(out: Console, runs: Sequence[RunReport]) -> None:
    """The tables of each run, and one that compares them if there are several."""
    for run in runs:
        out.print()
        if run.delay:
            out.rule(f"delay {run.delay}", align="left", style="dim")
        out.print(
            f"{counted(len(run.results), 'recording')}, {run.audio_s:.0f} s of audio in {run.wall_s:.0f} s",
            style="dim",
            highlight=False,
        )
        for table in (_accuracy(run), _latency(run)):
            if table.row_count:
                out.print()
                out.print(table)
        out.print()
        out.print(_verdict(run))
    if len(runs) > 1:
        out.print()
        out.print(_comparison(runs))


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, style="cyan", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _accuracy(run: RunReport) -> Table:
    table = _table("Accuracy", "kind", "clips", "words", "wrong", "missing", "too many", "WER %")
    rows = list(run.scores.items())
    if len(rows) > 1:
        rows.append(("all", run.score))
    for name, score in rows:
        counts = (score.clips, score.words, score.substitutions, score.deletions, score.insertions)
        table.add_row(name, *map(str, counts), _number(score.percent, 2), style="bold" if name == "all" else None)
    return table


def _latency(run: RunReport) -> Table:
    table = _table("Latency, ms", "from → to", "count", "p50", "p95", "p99", "max")
    for name, value in run.percentiles.items():
        table.add_row(MEASURES[name], *_cells(value))
    return table


def _cells(value: Percentiles) -> list[str]:
    return [str(value.count), *(f"{number:.0f}" for number in (value.p50, value.p95, value.p99, value.max))]


def _verdict(run: RunReport) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("Promises", _promises(run))
    if run.errors:
        lines = [f"{code}: {count} × {run.messages[code]}" for code, count in run.errors.items()]
        table.add_row("Errors", Text("\n".join(lines), style="red"))
    else:
        table.add_row("Errors", Text("none", style="green"))
    if run.usage:
        table.add_row(
            "Server",
            f"{run.usage.cpu_percent:.1f} % of a core, {run.cpu_percent_per_stream or 0:.2f} % per stream in real "
            f"time; {run.usage.memory_mib:.0f} MiB, at most {run.usage.peak_memory_mib:.0f}",
        )
    if run.late and run.held:
        text = f"late by p50 {run.late.p50:.1f}, p95 {run.late.p95:.1f}, max {run.late.max:.0f} ms"
        text += f"; held up by the server at most {run.held.max:.0f} ms"
        if not run.kept_up:
            text += "\nIt did not keep up: the load was lower than asked for, and latencies look longer than they are."
        table.add_row("Generator", Text(text, style="" if run.kept_up else "yellow"))
    if run.speed != 1:
        table.add_row("Note", "Not in real time, so latencies tell how a server copes with audio that comes too fast.")
    return table


def _promises(run: RunReport) -> Text:
    if not run.broken:
        return Text(f"kept: no {', no '.join(PROMISES.values())}", style="green")
    lines = [f"{PROMISES[name]}: {count}" for name, count in run.promises.items() if count]
    lines += [f"  {violation.item_id}: {violation.detail}" for violation in run.broken[:_MAX_EXAMPLES]]
    return Text("\n".join(lines), style="red")


def _comparison(runs: Sequence[RunReport]) -> Table:
    table = _table(
        "Accuracy against delay", "delay", "WER %", "first delta p50", "word p50", "word p95", "end p50", "end p95"
    )
    table.add_column("CPU %", justify="right")
    for run in runs:
        found = run.percentiles
        end = found.get("stop_to_completed") or found.get("commit_to_completed")
        word, first = found.get("word"), found.get("first_delta")
        table.add_row(
            run.delay or "default",
            _number(run.score.percent, 2),
            _number(_of(first, "p50")),
            _number(_of(word, "p50")),
            _number(_of(word, "p95")),
            _number(_of(end, "p50")),
            _number(_of(end, "p95")),
            _number(_of(run.usage, "cpu_percent"), 1),
        )
    return table


def print_capacity(out: Console, options: Options, steps: Sequence[CapacityStep], capacity: int | None) -> None:
    """The table of steps, in their order, and the result."""
    name = MEASURES[steps[0].measure]
    table = _table(f"{name}, ms", "sessions", "turns", "p50", "p95", "p99", "CPU %", "MiB", "late p95", "")
    table.columns[0].justify, table.columns[-1].justify = "right", "left"
    for step in steps:
        table.add_row(*_step_cells(step), style=None if step.is_passed else "yellow")
    out.print()
    out.print(table)
    out.print()
    if not capacity:
        out.print(f"Not even one session passed: {steps[-1].failure}.", style="bold yellow", highlight=False)
        return
    more = " or more (--max-sessions)" if all(step.is_passed for step in steps) else ""
    out.print(
        f"{counted(capacity, 'session')}{more} at a time in real time, {name} at most {options.p95_ms:g} ms (p95)",
        style="bold green",
        highlight=False,
    )


def step_line(step: CapacityStep) -> Text:
    """How a step went, to be shown while the search goes on."""
    p95 = f"p95 {step.latency.p95:.0f} ms" if step.latency else "no turns"
    line = f"{counted(step.run.sessions, 'session'):>13}: {p95}{'' if step.is_passed else f', {step.failure}'}"
    return Text(line, style="" if step.is_passed else "yellow")


def _step_cells(step: CapacityStep) -> list[str]:
    run, latency = step.run, step.latency
    numbers = _cells(latency)[:4] if latency else ["0", "–", "–", "–"]
    return [
        str(run.sessions),
        *numbers,
        _number(_of(run.usage, "cpu_percent")),
        _number(_of(run.usage, "peak_memory_mib")),
        _number(_of(run.late, "p95"), 1),
        step.failure or "passed",
    ]


def counted(number: int, noun: str) -> str:
    """So many of a thing."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _of(thing: object, name: str) -> float | None:
    """A number of a thing; None if there is no such thing."""
    return None if thing is None else float(getattr(thing, name))


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

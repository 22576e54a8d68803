"""The same weights in Auricle's server, in the stream of the model's own library, and in one offline pass.

    python benchmarks/compare.py --audio FOLDER [--kind clean] [--sessions 4] [--delay DELAY] [--json FILE]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. Each number is of this run and this machine, so
read the ratios. CPU is user and system time of all processes and threads, by the seconds of the recordings: what a
stream that speaks takes of one core. The silence that ends the last turn is sent to both streams, and not counted.

- **Auricle**: a server started for the run, `--sessions` recordings at a time in real time, as `auricle bench` does it.
- **vendor stream**: `Transcriber.create_stream` of `moonshine-voice`, as its options are by default, fed with the same
  chunks as fast as it takes them. Its latencies are in audio time, so they lack the time that it computes. It may
  change what it has shown: a word counts as told when it is in the text to stay, and a text as taken back when the
  next one does not begin with it.
- **vendor, 1 thread**: the same, forced to one thread by a variable that its library reads. By default it has
  several, whose waiting for each other is CPU time too (more than half of it, measured on two cores).
- **offline pass**: the whole recording in one greedy decode in one thread, by onnxruntime from the files as they are.
- **offline, our graphs**: the same with the graphs that the server has, which take half the time; the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import psutil

# The package loads its parts lazily, so this one comes without the microphone's, which would need PortAudio.
from moonshine_voice.transcriber import Error, ModelArch, Transcriber, TranscriptEvent
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from shipped import ShippedModel

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.bench.command import setup_of
from auricle.bench.corpus import Clip, load_clips, of_kinds, silence, wire_bytes
from auricle.bench.latency import Measure, align, matched_words
from auricle.bench.load import Load, run_load
from auricle.bench.options import Options
from auricle.bench.report import RunReport, judge
from auricle.bench.server import ServerProcesses, Usage
from auricle.bench.session_run import COMMITTED, COMPLETED, DELTA, Record
from auricle.engines.moonshine import MoonshineModel, embedded_folder
from auricle.local_server import started_server

CHUNK_S = 0.1
SINGLE_THREAD = "MOONSHINE_ORT_SINGLE_THREAD"
LATENCIES: dict[Measure, str] = {"word": "word latency", "first_delta": "first text"}
AT_MOST = {"vendor stream": 0.25, "vendor, 1 thread": None, "offline pass": 3.5, "offline, our graphs": None}
"""What Auricle's CPU time should be of the others' at most."""
MOST_OF_OTHERS_PERCENT = 10.0
RECORDED = "Recorded before for the vendor stream on clean: 30 % of a core, 10.4 % WER."
WORD = re.compile(r"\w+(?:'\w+)*")

Recording = tuple[Clip, Samples]
Shown = Sequence[tuple[float, str]]
"""All texts of a line in their order, each with the time when it was shown."""


@dataclass
class Contender:
    """One way to use the weights, and how it did."""

    report: RunReport
    taken_back: int | None = None
    """How often text that was shown was changed or taken away."""
    words_taken_back: int | None = None
    """The same without changes of case and punctuation."""
    others_percent: float = 0.0
    """Of one core, what other processes took meanwhile."""

    @property
    def cpu_percent(self) -> float:
        """Of one core, for a stream that speaks."""
        return self.report.cpu_percent_per_stream or math.nan

    def latency_ms(self, measure: Measure, percentile: str) -> float | None:
        """A percentile of a latency; None if there is none."""
        return getattr(self.report.percentiles.get(measure), percentile, None)

    def as_json(self) -> dict[str, Any]:
        """All that is known of it."""
        names = ("audio_s", "wall_s", "accuracy", "latency_ms", "errors", "results")
        report = self.report.as_json()
        return {
            "cpu_percent_per_stream": round(self.cpu_percent, 2),
            "wer_percent": self.report.score.percent,
            "taken_back": self.taken_back,
            "words_taken_back": self.words_taken_back,
            "others_percent": round(self.others_percent, 1),
        } | {name: report[name] for name in names}


def contender(usage: Usage, records: Sequence[Record], recordings: Sequence[Recording], sessions: int = 1) -> Contender:
    """Judge what was told of all recordings."""
    audio_s = sum(samples.size for _, samples in recordings) / SAMPLE_RATE
    report = RunReport(None, sessions, 0, 1.0, audio_s, usage.wall_s, usage)
    judge(report, records)
    return Contender(report)


@contextmanager
def metered(usage: Usage) -> Iterator[None]:
    """Add what a block costs in this process, native threads included."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    yield
    usage.cpu_s += time.process_time() - cpu_s
    usage.wall_s += time.perf_counter() - wall_s


def beside_others(measure: Callable[[], Contender]) -> Contender:
    """Measure, and note what other processes took meanwhile."""

    def others_s() -> float:
        machine = psutil.cpu_times()
        # Our own and our children's: the server's are counted in when it has ended.
        return machine.user + machine.system - sum(os.times()[:4])

    start_s, start_others_s = time.perf_counter(), others_s()
    result = measure()
    result.others_percent = 100 * (others_s() - start_others_s) / (time.perf_counter() - start_s)
    return result


def offline_pass(recordings: Sequence[Recording], progress: Progress, *, as_shipped: bool = False) -> Contender:
    """Each recording in one decode, by our graphs of the networks or by the files as they are."""
    ours, usage, records = MoonshineModel.embedded(threads=1), Usage(), []
    ours.warm_up()
    model = ShippedModel(embedded_folder()) if as_shipped else ours
    for clip, samples in progress.track(recordings, description="Offline pass"):
        with metered(usage):
            text = "".join(token.text for token in ours.tokens(model.decode(samples)))
        # Nothing is noted as sent: there is no latency where all audio is there from the start.
        record = Record(clip, CHUNK_S)
        tell(record, "all", [(0.0, text.strip())])
        records.append(record)
    return contender(usage, records, recordings)


def single_threaded(measure: Callable[[], Contender]) -> Contender:
    """Measure with one thread inside the vendor's library, which asks the environment each time it loads a model."""
    os.environ[SINGLE_THREAD] = "1"
    try:
        return measure()
    finally:
        del os.environ[SINGLE_THREAD]


def vendor_stream(recordings: Sequence[Recording], silence_s: float, progress: Progress) -> Contender:
    """Each recording in a stream of its own."""
    usage = Usage()
    records: list[Record] = []
    lines: list[Shown] = []
    words_s: list[float] = []
    with Transcriber(embedded_folder(), ModelArch.TINY) as transcriber:
        for clip, samples in progress.track(recordings, description="Vendor stream"):
            record = Record(clip, CHUNK_S)
            shown = feed(transcriber, np.append(samples, silence(silence_s)), record, usage)
            for line_id, texts in shown.items():
                tell(record, line_id, texts)
            records.append(record)
            lines += shown.values()
            words_s += word_latencies(record, shown.values())
    result = contender(usage, records, recordings)
    result.report.samples_s["word"] = words_s
    result.taken_back = sum(map(times_taken_back, lines))
    result.words_taken_back = sum(times_taken_back([(at_s, bare(text)) for at_s, text in line]) for line in lines)
    return result


def feed(
    transcriber: Transcriber, samples: Samples, record: Record, usage: Usage
) -> dict[str, list[tuple[float, str]]]:
    """Play audio to a stream, in audio time. Returns what it showed, by line."""
    shown: dict[str, list[tuple[float, str]]] = {}

    def listen(event: TranscriptEvent | Error) -> None:
        if isinstance(event, Error):
            record.problem = str(event.error)
        else:
            shown.setdefault(str(event.line.line_id), []).append((record.sent_s[-1], event.line.text))

    chunk_samples = round(CHUNK_S * SAMPLE_RATE)
    chunks = [samples[start : start + chunk_samples].tolist() for start in range(0, samples.size, chunk_samples)]
    with metered(usage), transcriber.create_stream() as stream:
        stream.add_listener(listen)
        stream.start()
        for index, chunk in enumerate(chunks):
            # A chunk is sent at the start of the time that it covers, as by `auricle bench`.
            record.sent_s.append(index * CHUNK_S)
            stream.add_audio(chunk, SAMPLE_RATE)
        stream.stop()
    return shown


def tell(record: Record, item_id: str, shown: Shown) -> None:
    """Note a line in the server's words, of which `auricle bench` knows how to judge them.

    What a line showed may change, and a delta may not, so the only delta is empty: it says when there was any text.
    """
    first_s = next((at_s for at_s, text in shown if text), shown[-1][0])
    end_s, text = shown[-1]
    record.events.append((first_s, {"type": DELTA, "item_id": item_id, "delta": ""}))
    record.events.append((end_s, {"type": COMMITTED, "item_id": item_id}))
    record.events.append((end_s, {"type": COMPLETED, "item_id": item_id, "transcript": text}))


def word_latencies(record: Record, lines: Iterable[Shown]) -> Iterator[float]:
    """Seconds of audio between the end of a word and the text since which it was shown, for all that were right."""
    told = [word for shown in lines for word in told_words(shown)]
    for said, told_s in matched_words(record.clip.words, told):
        if (sent_s := record.sent_at(said.end_s)) is not None:
            yield told_s - sent_s


def told_words(shown: Shown) -> list[tuple[str, float]]:
    """The words of the last text, each with the time of the first text since which none was without it."""
    words = bare(shown[-1][1]).split()
    times_s = [0.0] * len(words)
    standing = set(range(len(words)))
    for at_s, text in reversed(shown):
        standing &= {place for place, _ in align(words, bare(text).split())}
        for place in standing:
            times_s[place] = at_s
    return list(zip(words, times_s, strict=True))


def bare(text: str) -> str:
    """A text without case and punctuation."""
    return " ".join(WORD.findall(text.lower().replace("’", "'")))


def times_taken_back(shown: Shown) -> int:
    """How many texts do not begin with the one before."""
    return sum(not later.startswith(earlier) for (_, earlier), (_, later) in pairwise(shown))


async def auricle(options: Options, recordings: Sequence[Recording], progress: Progress) -> Contender:
    """Each recording in a session of its own, some at a time, in real time."""
    audio_format, silence_s = options.audio_format, options.trailing_silence_s
    audio = {
        clip.path: wire_bytes(np.append(samples, silence(silence_s)), audio_format) for clip, samples in recordings
    }
    clips = (clip for clip, _ in progress.track(recordings, description="Auricle"))
    load = Load()
    with started_server() as (base_url, pid):
        setup = setup_of(options, base_url, options.delay)
        async with ServerProcesses(pid).watched() as usage:
            await run_load(setup, clips, audio, load, options.sessions, options.ramp_s, math.inf)
    result = contender(usage, load.records, recordings, options.sessions)
    result.taken_back = result.words_taken_back = result.report.promises["taken_back"]
    return result


def results_table(results: dict[str, Contender]) -> Table:
    """A column for each contender."""
    table = new_table("", *results)

    def add_row(name: str, value_of: Callable[[Contender], float | None], digits: int = 0) -> None:
        table.add_row(name, *(number(value_of(result), digits) for result in results.values()))

    add_row("CPU, % of a core", attrgetter("cpu_percent"), 2)
    add_row("WER, %", attrgetter("report.score.percent"), 2)
    for measure, name in LATENCIES.items():
        for percentile in ("p50", "p95"):
            add_row(f"{name} {percentile}, ms", methodcaller("latency_ms", measure, percentile))
    add_row("text taken back", attrgetter("taken_back"))
    add_row("… not only punctuation", attrgetter("words_taken_back"))
    add_row("others' CPU, % of a core", attrgetter("others_percent"))
    return table


def ratios(results: dict[str, Contender]) -> list[dict[str, Any]]:
    """What Auricle's CPU time is of the others', beside the most that it should be."""
    ours = results["Auricle"].cpu_percent
    return [
        {"of": name, "ratio": round(ours / results[name].cpu_percent, 3), "at_most": at_most}
        for name, at_most in AT_MOST.items()
    ]


def ratios_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each ratio."""
    table = new_table("Auricle's CPU as a share of", "ratio", "at most", "")
    for row in rows:
        verdict = ""
        if row["at_most"] is not None:
            verdict = "[green]met[/]" if row["ratio"] <= row["at_most"] else "[red]missed[/]"
        table.add_row(row["of"], number(row["ratio"], 2), number(row["at_most"], 2), verdict)
    return table


def new_table(first: str, *columns: str) -> Table:
    """A table like those of `auricle bench`."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, style="cyan", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def number(value: float | None, digits: int = 0) -> str:
    """For a cell of a table."""
    return "–" if value is None else f"{value:.{digits}f}"


def compare(options: Options, out: Console, err: Console) -> tuple[dict[str, Contender], list[dict[str, Any]]]:
    """Measure and print all. One after the other, so that none is in another's way."""
    clips = of_kinds(load_clips(options.audio), options.kinds)
    recordings = [(clip, read_audio(clip.path)) for clip in clips]
    # Drawn only between two recordings: drawing all the time would count as CPU time of what is measured here.
    with Progress(console=err, transient=True, auto_refresh=False) as progress:

        def vendor() -> Contender:
            return vendor_stream(recordings, options.trailing_silence_s, progress)

        results = {
            "Auricle": beside_others(lambda: asyncio.run(auricle(options, recordings, progress))),
            "vendor stream": beside_others(vendor),
            "vendor, 1 thread": beside_others(lambda: single_threaded(vendor)),
            "offline pass": beside_others(lambda: offline_pass(recordings, progress, as_shipped=True)),
            "offline, our graphs": beside_others(lambda: offline_pass(recordings, progress)),
        }
    audio_s = results["offline pass"].report.audio_s
    interval_s = inspect.signature(Transcriber).parameters["update_interval"].default
    out.print(
        f"{len(recordings)} recordings ({options.kind}), {audio_s:.0f} s. CPU: % of a core for a stream that speaks"
    )
    out.print(f"Auricle: {options.sessions} sessions at a time, delay {options.delay or 'default'}; latencies in ms")
    out.print(f"vendor stream: moonshine-voice {version('moonshine-voice')}, an update every {interval_s:g} s")
    out.print(results_table(results))
    out.print(ratios_table(rows := ratios(results)))
    out.print(RECORDED, style="dim")
    for name, result in results.items():
        for code, message in result.report.messages.items():
            out.print(f"{name}: {result.report.errors[code]} × {code}: {message}", style="red", markup=False)
    if not results["Auricle"].report.kept_up:
        out.print("The load generator did not keep up: Auricle's latencies look longer than they are.", style="yellow")
    if max(result.others_percent for result in results.values()) > MOST_OF_OTHERS_PERCENT:
        out.print(
            "Other processes kept the cores busy: CPU times are too high, the vendor's most of all.", style="yellow"
        )
    return results, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean", help="kinds of recordings, separated by commas")
    parser.add_argument("--sessions", type=int, default=4, help="how many Auricle is played at a time")
    parser.add_argument("--delay", help="Auricle's delay; its default without")
    parser.add_argument("--json", type=Path, help="file for all numbers and transcripts")
    options = Options(**vars(parser.parse_args()))
    results, rows = compare(options, Console(highlight=False), Console(stderr=True))
    if options.json:
        whole = {"contenders": {name: result.as_json() for name, result in results.items()}, "ratios": rows}
        options.json.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

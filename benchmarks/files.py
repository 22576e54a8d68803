"""Whole recordings through `POST /v1/audio/transcriptions`: accuracy, speed, and what realtime sessions feel of it.

    python benchmarks/files.py --audio FOLDER [--kind clean] [--at-once N] [--sessions 4] [--hours 1]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. Each number is of this run and this machine, so
read the ratios.

1. All recordings of the kind, `--at-once` requests at a time (one for each core): word error rate and speed.
2. The same recordings by the embedded model's own library, `Transcriber.transcribe_without_streaming` of
   `moonshine-voice`: in one process as it comes, with its threads; and in as many processes as there are cores.
3. Realtime sessions that speak, without and with a long recording (`--hours`, the clips on end) that is transcribed
   beside them: the time from the end of speech to `completed`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import multiprocessing
import os
import time
import wave
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
from auricle.bench.command import setup_of
from auricle.bench.corpus import Clip, load_clips, of_kinds, silence, wire_bytes
from auricle.bench.load import Load, run_load
from auricle.bench.options import Options
from auricle.bench.report import RunReport, judge
from auricle.bench.scoring import Score
from auricle.bench.server import Usage
from auricle.engines.moonshine import embedded_folder
from auricle.local_server import started_server

Recording = tuple[Clip, Samples]
REALTIME_S = 60.0
"""How long each of the two realtime runs takes."""
out = Console(highlight=False)


def wav(samples: Samples) -> bytes:
    """A file with 16-bit samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes(encode(samples, AudioFormat("audio/pcm", SAMPLE_RATE)))
    return file.getvalue()


def scored(recordings: Sequence[Recording], texts: Sequence[str]) -> Score:
    """The word errors of all texts."""
    score = Score()
    for (clip, _), text in zip(recordings, texts, strict=True):
        score.add(clip.text, text, clip.scoring, clip.language)
    return score


async def through_server(base_url: str, recordings: Sequence[Recording], at_once: int) -> tuple[list[str], float]:
    """The text of each recording, and how long all took."""
    gate = asyncio.Semaphore(at_once)
    files = [wav(samples) for _, samples in recordings]
    async with httpx.AsyncClient(timeout=600) as client:

        async def text(file: bytes) -> str:
            async with gate:
                answer = await client.post(f"{base_url}/audio/transcriptions", files={"file": ("clip.wav", file)})
                return str(answer.raise_for_status().json()["text"])

        await asyncio.gather(*(text(file) for file in files[:at_once]))  # starts the processes
        start_s = time.perf_counter()
        texts = await asyncio.gather(*map(text, files))
        return list(texts), time.perf_counter() - start_s


def vendor_texts(recordings: Sequence[Samples]) -> list[str]:
    """What the model's own library makes of each recording. It is loaded anew for each call."""
    from moonshine_voice.transcriber import ModelArch, Transcriber

    with Transcriber(embedded_folder(), ModelArch.TINY) as transcriber:
        return [
            " ".join(line.text for line in transcriber.transcribe_without_streaming(samples.tolist()).lines)
            for samples in recordings
        ]


def vendor(recordings: Sequence[Recording], processes: int) -> tuple[list[str], float]:
    """The same by the model's own library, the recordings shared out to some processes."""
    samples = [samples for _, samples in recordings]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(vendor_texts, [samples[:1]] * processes, chunksize=1)  # imports and page cache
        start_s = time.perf_counter()
        shares = pool.map(vendor_texts, [samples[first::processes] for first in range(processes)], chunksize=1)
        wall_s = time.perf_counter() - start_s
    texts = [""] * len(samples)
    for first, share in enumerate(shares):
        texts[first::processes] = share
    return texts, wall_s


async def realtime(base_url: str, recordings: Sequence[Recording], sessions: int) -> RunReport:
    """Sessions that speak for a while, as `auricle bench` plays them."""
    options = Options(audio=Path(), sessions=sessions)
    audio = {
        clip.path: wire_bytes(np.append(samples, silence(options.trailing_silence_s)), options.audio_format)
        for clip, samples in recordings
    }
    load = Load()
    clips = cycle(clip for clip, _ in recordings)
    await run_load(setup_of(options, base_url, None), clips, audio, load, sessions, 2.0, REALTIME_S)
    report = RunReport(None, sessions, 0, 1.0, load.audio_s, REALTIME_S, Usage())
    judge(report, load.records)
    return report


async def beside_a_long_file(base_url: str, recordings: Sequence[Recording], sessions: int, hours: float) -> RunReport:
    """The same while a long recording is transcribed, from before the first session until after the last."""
    long_samples = round(hours * 3600 * SAMPLE_RATE)
    repeats = math.ceil(long_samples / sum(samples.size for _, samples in recordings))
    samples = np.concatenate([samples for _, samples in islice(cycle(recordings), repeats * len(recordings))])
    file = wav(samples[:long_samples])
    async with httpx.AsyncClient(timeout=3600) as client:
        url = f"{base_url}/audio/transcriptions"

        async def again_and_again() -> None:
            while True:
                (await client.post(url, files={"file": ("long.wav", file)})).raise_for_status()

        transcribing = asyncio.create_task(again_and_again())
        await asyncio.sleep(2)  # the upload, and the first block
        report = await realtime(base_url, recordings, sessions)
        if transcribing.done():
            transcribing.result()  # raises what went wrong
        transcribing.cancel()
        with suppress(asyncio.CancelledError):
            await transcribing
    return report


def measured(name: str, recordings: Sequence[Recording], run: Callable[[], tuple[list[str], float]]) -> list[str]:
    """A row of the table of speeds: name, times real time, word error rate."""
    texts, wall_s = run()
    audio_s = sum(samples.size for _, samples in recordings) / SAMPLE_RATE
    return [name, f"{audio_s / wall_s:.1f}", f"{scored(recordings, texts).percent:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean", help="kinds of recordings, separated by commas")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="requests at a time")
    parser.add_argument("--sessions", type=int, default=4, help="realtime sessions that speak")
    parser.add_argument("--hours", type=float, default=1.0, help="length of the recording beside them")
    arguments = parser.parse_args()
    clips = of_kinds(load_clips(arguments.audio), arguments.kind.split(","))
    recordings = [(clip, read_audio(clip.path)) for clip in clips]
    cores = os.cpu_count() or 1

    with started_server() as (base_url, _):
        ours = measured(
            f"Auricle, {arguments.at_once} at once",
            recordings,
            lambda: asyncio.run(through_server(base_url, recordings, arguments.at_once)),
        )
    rows = [
        ours,
        measured("vendor, 1 process", recordings, lambda: vendor(recordings, 1)),
        measured(f"vendor, {cores} processes", recordings, lambda: vendor(recordings, cores)),
    ]
    table = Table("", "× real time", "Auricle's / its speed", "WER, %", box=None)
    for name, speed, wer in rows:
        table.add_row(name, speed, f"{float(ours[1]) / float(speed):.2f}", wer)
    out.print(table)

    latency = Table("end of speech → completed, ms", "p50", "p95", box=None)
    with started_server() as (base_url, _):
        alone = asyncio.run(realtime(base_url, recordings, arguments.sessions))
        beside = asyncio.run(beside_a_long_file(base_url, recordings, arguments.sessions, arguments.hours))
    for name, report in (("alone", alone), (f"beside {arguments.hours:g} h of audio", beside)):
        percentiles = report.percentiles["stop_to_completed"]
        latency.add_row(name, f"{percentiles.p50:.0f}", f"{percentiles.p95:.0f}")
    out.print(latency)


if __name__ == "__main__":
    main()

"""What the server reaches through its socket, with the official OpenAI client: accuracy, latency, idle cost.

    python benchmarks/realtime.py --audio FOLDER [--url URL] [--only accuracy,latency,same,idle] [--verbose]

FOLDER holds a `manifest.jsonl` (an object a line: `file`, `seconds`, `kind`, `text`, perhaps `scoring`) and the files.
Without `--url` a server is started for the run, and its CPU time and memory are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from scoring import Score

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, AudioFormat, encode
from auricle.audio.resample import Resampler

PCM = AudioFormat("audio/pcm", 24_000)
ULAW = AudioFormat("audio/pcmu", 8_000)
WIRE_FORMATS = {"audio/pcm": {"type": "audio/pcm", "rate": 24_000}, "audio/pcmu": {"type": "audio/pcmu"}}
SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
CHUNK_MS = 100
TRAILING_SILENCE_S = 1.0
SAME_CLIP_SESSIONS = 8
IDLE_SESSIONS = 200
IDLE_S = 10.0


@dataclass(frozen=True)
class Clip:
    """A line of the manifest."""

    path: Path
    kind: str
    seconds: float
    text: str
    scoring: str | None
    is_doubtful: bool
    """The reference is not sure enough to be counted with the others."""

    @property
    def group(self) -> str:
        """The clips that its score counts with."""
        suffix = " digits" if self.scoring == "digits" else " (doubtful text)" if self.is_doubtful else ""
        return self.kind + suffix

    def data(self, audio_format: AudioFormat, silence_s: float) -> bytes:
        """The clip and silence after it, as bytes of the wire."""
        samples = np.concatenate([read_audio(self.path), np.zeros(round(silence_s * SAMPLE_RATE), np.float32)])
        resampler = Resampler(SAMPLE_RATE, audio_format.rate_hz)
        return encode(np.concatenate([resampler.resample(samples), resampler.flush()]), audio_format)


def load_clips(folder: Path) -> list[Clip]:
    """All clips of a folder's manifest."""
    lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return [
        Clip(
            path=folder / line["file"],
            kind=line["kind"],
            seconds=line["seconds"],
            text=line.get("text") or "",
            scoring=line.get("scoring"),
            is_doubtful="medium confidence" in line.get("text_source", ""),
        )
        for line in lines
    ]


@contextmanager
def running_server(url: str | None) -> Iterator[tuple[str, psutil.Process | None]]:
    """The base URL of the server to measure, and its process if it was started here."""
    if url:
        yield url, None
        return
    command = [sys.executable, "-m", "auricle", "serve", "--port", "0", "--log-level", "warning"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = next(match for line in process.stdout if (match := re.search(r"listens at (\S+)", line)))
        yield ready[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


class Session:
    """One session through the official client."""

    def __init__(self, connection: AsyncRealtimeConnection, audio_format: AudioFormat) -> None:
        self._connection = connection
        self._format = audio_format

    async def configure(self, turn_detection: dict | None) -> None:
        audio_input = {
            "format": WIRE_FORMATS[self._format.type],
            "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
            "turn_detection": turn_detection,
        }
        await self._connection.session.update(session={"type": "transcription", "audio": {"input": audio_input}})
        await self._next("session.updated")

    async def append(self, data: bytes) -> None:
        chunk_bytes = round(CHUNK_MS * self._format.bytes_per_ms)
        for start in range(0, len(data), chunk_bytes):
            chunk = base64.b64encode(data[start : start + chunk_bytes]).decode()
            await self._connection.input_audio_buffer.append(audio=chunk)

    async def _next(self, *kinds: str):
        async for event in self._connection:
            if event.type in kinds:
                return event
            if event.type == "error" and event.error.code != "input_audio_buffer_commit_empty":
                raise RuntimeError(event.error.message)
        raise RuntimeError("the connection has closed")

    async def transcribe_turns(self, data: bytes) -> list[str]:
        """The texts of the turns that the server finds. `clear` at the end shows when it has heard everything."""
        await self.append(data)
        await self._connection.input_audio_buffer.clear()
        open_items, texts, is_heard = set(), [], False
        while not is_heard or open_items:
            event = await self._next(
                "input_audio_buffer.cleared",
                "input_audio_buffer.committed",
                "conversation.item.input_audio_transcription.completed",
            )
            if event.type == "input_audio_buffer.cleared":
                is_heard = True
            elif event.type == "input_audio_buffer.committed":
                open_items.add(event.item_id)
            else:
                open_items.discard(event.item_id)
                texts.append(event.transcript)
        return texts

    async def transcribe_commit(self, data: bytes) -> tuple[str, float]:
        """The text of one manual commit, and the seconds from the commit to it."""
        await self.append(data)
        await asyncio.sleep(0.2)  # A microphone's audio has been heard when the commit comes; a burst's has not.
        start = time.perf_counter()
        await self._connection.input_audio_buffer.commit()
        event = await self._next("conversation.item.input_audio_transcription.completed")
        return event.transcript, time.perf_counter() - start


class Bench:
    """The measurements, each printing its own lines."""

    def __init__(self, base_url: str, api_key: str, server: psutil.Process | None, clips: list[Clip], verbose: bool):
        self._client = AsyncOpenAI(base_url=base_url, api_key=api_key)
        self._server = server
        self._clips = clips
        self._verbose = verbose

    def _connect(self):
        return self._client.realtime.connect(extra_query={"intent": "transcription"})

    async def _turns_of(self, clip: Clip, audio_format: AudioFormat) -> list[str]:
        async with self._connect() as connection:
            session = Session(connection, audio_format)
            await session.configure(SERVER_VAD)
            return await session.transcribe_turns(clip.data(audio_format, TRAILING_SILENCE_S))

    async def accuracy(self) -> None:
        """WER by kind; telephone clips go as G.711 µ-law at 8 kHz, all others as PCM at 24 kHz."""
        print(f"{'kind':<28}{'clips':>6}{'WER %':>8}")
        spoken = [clip for clip in self._clips if clip.kind not in ("noise", "nonenglish")]
        for group in dict.fromkeys(clip.group for clip in spoken):
            score = Score()
            for clip in (clip for clip in spoken if clip.group == group):
                text = " ".join(await self._turns_of(clip, ULAW if clip.kind == "telephone" else PCM))
                wer = score.add(clip.text, text, clip.scoring)
                if self._verbose and wer:
                    print(f"  {clip.path.name} {wer:.0f} %: {text}")
            print(f"{group:<28}{score.clips:>6}{score.percent:>8.2f}")
        noise = [clip for clip in self._clips if clip.kind == "noise"]
        for clip in noise:
            turns = await self._turns_of(clip, PCM)
            print(f"{clip.path.name:<42}{len(turns)} items, text: {' '.join(turns).strip() or 'none'}")

    async def latency(self) -> None:
        """Commit to `completed`, one session at a time, clips of at most 10 s."""
        times = []
        for clip in (clip for clip in self._clips if clip.kind == "clean" and clip.seconds <= 10):
            async with self._connect() as connection:
                session = Session(connection, PCM)
                await session.configure(None)
                _, seconds = await session.transcribe_commit(clip.data(PCM, 0))
                times.append(seconds * 1000)
        p95 = statistics.quantiles(times, n=20)[-1]
        p50 = statistics.median(times)
        print(f"commit to completed, {len(times)} clips of up to 10 s: p50 {p50:.0f} ms, p95 {p95:.0f} ms")

    async def same(self) -> None:
        """The same clip in many sessions at once gives the same text in each."""
        clips = [clip for clip in self._clips if clip.kind == "clean" and clip.seconds <= 10][:5]
        for clip in clips:
            texts = await asyncio.gather(*(self._turns_of(clip, PCM) for _ in range(SAME_CLIP_SESSIONS)))
            counts = Counter(" ".join(turns) for turns in texts)
            print(f"{clip.path.name:<42}{len(counts)} different text(s) in {SAME_CLIP_SESSIONS} sessions at once")

    async def idle(self) -> None:
        """What open sessions cost that say nothing."""
        if self._server is None:
            print("idle: only measured on a server that this script starts")
            return
        before = self._memory()
        connections = [await self._connect().enter() for _ in range(IDLE_SESSIONS)]
        await asyncio.sleep(1)
        cpu_s, memory = self._cpu_s(), self._memory()
        await asyncio.sleep(IDLE_S)
        load = 100 * (self._cpu_s() - cpu_s) / IDLE_S
        each = (memory - before) / IDLE_SESSIONS / 1024
        whole = memory / 2**20
        print(f"{IDLE_SESSIONS} idle sessions: {load:.1f} % of a core, {each:.0f} KB each; whole server {whole:.0f} MB")
        for connection in connections:
            await connection.close()

    def _processes(self) -> list[psutil.Process]:
        assert self._server is not None
        return [self._server, *self._server.children(recursive=True)]

    def _cpu_s(self) -> float:
        return sum(process.cpu_times().user + process.cpu_times().system for process in self._processes())

    def _memory(self) -> int:
        return sum(process.memory_info().rss for process in self._processes())


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--url", help="base URL of a running server, ending in /v1")
    parser.add_argument("--api-key", default="any")
    parser.add_argument("--only", default="idle,latency,same,accuracy", help="which measurements, separated by commas")
    parser.add_argument("--verbose", action="store_true", help="print every text that has an error")
    arguments = parser.parse_args()
    with running_server(arguments.url) as (base_url, process):
        bench = Bench(base_url, arguments.api_key, process, load_clips(arguments.audio), arguments.verbose)
        for name in arguments.only.split(","):
            await getattr(bench, name)()


if __name__ == "__main__":
    asyncio.run(main())

"""What the server reaches through its socket, with the official OpenAI client: accuracy, latency, idle cost.

`auricle bench` measures more, in real time and under load; this shows that the official client gets the same.

    python benchmarks/realtime.py --audio FOLDER [--url URL] [--only accuracy,latency,same,idle] [--verbose]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says.
Without `--url` a server is started for the run, and its CPU time and memory are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from auricle.audio.formats import AudioFormat
from auricle.bench.corpus import Clip, load_clips
from auricle.bench.scoring import Score
from auricle.bench.server import ServerProcesses
from auricle.local_server import started_server

PCM = AudioFormat("audio/pcm", 24_000)
ULAW = AudioFormat("audio/pcmu", 8_000)
WIRE_FORMATS = {"audio/pcm": {"type": "audio/pcm", "rate": 24_000}, "audio/pcmu": {"type": "audio/pcmu"}}
SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
CHUNK_MS = 100
TRAILING_SILENCE_S = 1.0
SAME_CLIP_SESSIONS = 8
IDLE_SESSIONS = 200
IDLE_S = 10.0


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

    def __init__(self, base_url: str, api_key: str, server: ServerProcesses | None, clips: list[Clip], verbose: bool):
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
            return await session.transcribe_turns(clip.wire_bytes(audio_format, TRAILING_SILENCE_S))

    async def accuracy(self) -> None:
        """WER by kind; telephone clips go as G.711 µ-law at 8 kHz, all others as PCM at 24 kHz."""
        print(f"{'kind':<28}{'clips':>6}{'WER %':>8}")
        spoken = [clip for clip in self._clips if clip.kind not in ("noise", "nonenglish")]
        for group in dict.fromkeys(clip.group for clip in spoken):
            score = Score()
            for clip in (clip for clip in spoken if clip.group == group):
                text = " ".join(await self._turns_of(clip, ULAW if clip.kind == "telephone" else PCM))
                wer = score.add(clip.text, text, clip.scoring, clip.language)
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
        for _, data in self._short_clips():
            async with self._connect() as connection:
                session = Session(connection, PCM)
                await session.configure(None)
                _, seconds = await session.transcribe_commit(data)
                times.append(seconds * 1000)
        p95 = statistics.quantiles(times, n=20)[-1]
        p50 = statistics.median(times)
        print(f"commit to completed, {len(times)} clips of up to 10 s: p50 {p50:.0f} ms, p95 {p95:.0f} ms")

    async def same(self) -> None:
        """The same clip in many sessions at once gives the same text in each."""
        for clip, _ in self._short_clips()[:5]:
            texts = await asyncio.gather(*(self._turns_of(clip, PCM) for _ in range(SAME_CLIP_SESSIONS)))
            counts = Counter(" ".join(turns) for turns in texts)
            print(f"{clip.path.name:<42}{len(counts)} different text(s) in {SAME_CLIP_SESSIONS} sessions at once")

    async def idle(self) -> None:
        """What open sessions cost that say nothing."""
        if self._server is None:
            print("idle: only measured on a server that this script starts")
            return
        _, before_mib = self._server.cpu_s_and_memory_mib()
        connections = [await self._connect().enter() for _ in range(IDLE_SESSIONS)]
        await asyncio.sleep(1)
        async with self._server.watched() as usage:
            await asyncio.sleep(IDLE_S)
        each_kib = (usage.memory_mib - before_mib) / IDLE_SESSIONS * 1024
        print(
            f"{IDLE_SESSIONS} idle sessions: {usage.cpu_percent:.1f} % of a core, {each_kib:.0f} KB each; "
            f"whole server {usage.memory_mib:.0f} MB"
        )
        for connection in connections:
            await connection.close()

    def _short_clips(self) -> list[tuple[Clip, bytes]]:
        """Clean clips of at most 10 s, and what is sent for each."""
        clean = [(clip, clip.wire_bytes(PCM, 0)) for clip in self._clips if clip.kind == "clean"]
        return [(clip, data) for clip, data in clean if len(data) <= 10_000 * PCM.bytes_per_ms]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--url", help="base URL of a running server, ending in /v1")
    parser.add_argument("--api-key", default="any")
    parser.add_argument("--only", default="idle,latency,same,accuracy", help="which measurements, separated by commas")
    parser.add_argument("--verbose", action="store_true", help="print every text that has an error")
    arguments = parser.parse_args()
    with nullcontext((arguments.url, None)) if arguments.url else started_server() as (base_url, pid):
        server = ServerProcesses(pid) if pid else None
        bench = Bench(base_url, arguments.api_key, server, load_clips(arguments.audio), arguments.verbose)
        for name in arguments.only.split(","):
            await getattr(bench, name)()


if __name__ == "__main__":
    asyncio.run(main())

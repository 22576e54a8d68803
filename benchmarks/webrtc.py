"""What a call over WebRTC costs beside a session over the socket: delay, errors, CPU.

    python benchmarks/webrtc.py --audio FOLDER [--calls 10] [--seconds 60] [--kind clean]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. The same recordings are spoken in real time, in
so many sessions at once, first over the socket and then over WebRTC, to a server that is started for it. Each session
speaks its own row of recordings, 20 ms at a time; calls send Opus.
"""

from __future__ import annotations

import argparse
import asyncio
import fractions
import json
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from rich.console import Console
from rich.table import Table

from auricle.audio.formats import AudioFormat
from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.bench.latency import latencies, transcript
from auricle.bench.scoring import Score
from auricle.bench.server import ServerProcesses
from auricle.bench.session_run import Record, SessionRun, Setup
from auricle.client import RealtimeClient
from auricle.local_server import started_server

CHUNK_S = 0.02
PAUSE_S = 1.0
"""Silence between recordings."""
RAMP_S = 2.0
PCM = AudioFormat("audio/pcm", 24_000)
SETTINGS = {
    "format": {"type": "audio/pcm", "rate": 24_000},
    "transcription": {"model": "gpt-4o-transcribe"},
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
}


class Microphone(MediaStreamTrack):
    """Hands on what is put into it, coded as browsers do: aiortc's own coding takes several times as long."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._packets: asyncio.Queue[av.Packet] = asyncio.Queue()
        self._samples = 0
        self._encoder = av.CodecContext.create("libopus", "w")
        self._encoder.bit_rate, self._encoder.format, self._encoder.layout = 32_000, "s16", "mono"
        self._encoder.sample_rate, self._encoder.time_base = PCM.rate_hz, fractions.Fraction(1, PCM.rate_hz)
        self._encoder.options = {"application": "voip", "compression_level": "5"}

    def put(self, data: bytes) -> None:
        samples = np.frombuffer(data, np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = PCM.rate_hz, self._samples, self._encoder.time_base
        self._samples += samples.size
        for packet in self._encoder.encode(frame):
            self._packets.put_nowait(packet)

    async def recv(self) -> av.Packet:
        return await self._packets.get()


class CallClient(RealtimeClient):
    """A client whose events go over a data channel and whose audio goes over a track."""

    def __init__(self) -> None:
        self.microphone = Microphone()
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTrack(self.microphone)
        self._channel = self.peer.createDataChannel("oai-events")
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self._channel.on("message", self._told.put_nowait)

    @classmethod
    @asynccontextmanager
    async def connect(cls, base_url: str, api_key: str | None) -> AsyncIterator[CallClient]:
        client = cls()
        await client.peer.setLocalDescription(await client.peer.createOffer())
        async with httpx.AsyncClient(timeout=30) as http:
            answer = await http.post(
                f"{base_url}/realtime/calls",
                content=client.peer.localDescription.sdp,
                headers={"Content-Type": "application/sdp", "Authorization": f"Bearer {api_key}"},
            )
        answer.raise_for_status()
        await client.peer.setRemoteDescription(RTCSessionDescription(sdp=answer.text, type="answer"))
        client._told.put_nowait(await client._told.get())  # the first event: the channel is open
        yield client
        await client.peer.close()

    async def send(self, event: dict[str, Any]) -> None:
        self._channel.send(json.dumps(event))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield json.loads(await self._told.get())

    async def append_bytes(self, data: bytes) -> None:
        self.microphone.put(data)


@dataclass
class Result:
    """What a transport cost."""

    delays_ms: list[float]
    """From the end of the silence that ends a turn to its `completed`."""
    wer_percent: float
    cpu_percent: float
    """Of a core, for each session."""
    problems: list[str]


@dataclass
class Row:
    """What one session says: recordings, one after the other."""

    text: str = ""
    audio: bytes = b""


def rows(clips: Sequence[Clip], sessions: int, seconds: float) -> list[Row]:
    """For each session its recordings, about so long together."""
    chance = random.Random(0)
    found = []
    for _ in range(sessions):
        row = Row()
        while len(row.audio) < 1000 * seconds * PCM.bytes_per_ms:
            clip = chance.choice(clips)
            row.text += f" {clip.text}"
            row.audio += clip.wire_bytes(PCM, PAUSE_S)
        found.append(row)
    return found


async def speak(connect: AbstractAsyncContextManager[RealtimeClient], setup: Setup, row: Row, delay_s: float) -> Record:
    """One session's row of recordings."""
    record = Record(Clip("row", Path(), "clean", row.text), CHUNK_S)
    await asyncio.sleep(delay_s)
    async with connect as client:
        run = SessionRun(client, setup, record)
        reading = asyncio.create_task(run.read())
        await run.configure()
        await run.send(row.audio, math.inf)
        await run.finish()
        reading.cancel()
    return record


async def measure(kind: type[RealtimeClient], base_url: str, server: ServerProcesses, plan: list[Row]) -> Result:
    """All sessions at once over one transport."""
    setup = Setup(base_url, "any", SETTINGS, round(1000 * CHUNK_S * PCM.bytes_per_ms), CHUNK_S, 1.0, 20.0)
    async with kind.connect(base_url, "any"):  # loads what is loaded once
        pass
    async with server.watched() as usage:
        records = await asyncio.gather(
            *(
                speak(kind.connect(base_url, "any"), setup, row, RAMP_S * index / len(plan))
                for index, row in enumerate(plan)
            )
        )
    score = Score()
    for record in records:
        score.add(record.clip.text, transcript(record))
    found = [latency for record in records for latency in latencies(record) if latency.measure == "stop_to_completed"]
    return Result(
        [1000 * latency.value_s for latency in found],
        score.percent,
        100 * usage.cpu_s / sum(record.audio_s for record in records),
        [record.problem for record in records if record.problem],
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean")
    parser.add_argument("--calls", type=int, default=10, help="sessions at once")
    parser.add_argument("--seconds", type=float, default=60, help="how long each speaks")
    arguments = parser.parse_args()
    clips = of_kinds(load_clips(arguments.audio), arguments.kind.split(","))
    plan = rows(clips, arguments.calls, arguments.seconds)
    table = Table(
        "transport", "turns", "end of speech → completed, ms", "p95", "WER %", "CPU of a session, % of a core"
    )
    with started_server() as (base_url, pid):
        for name, kind in (("socket", RealtimeClient), ("WebRTC", CallClient)):
            result = await measure(kind, base_url, ServerProcesses(pid), plan)
            delays_ms = np.percentile(result.delays_ms, [50, 95])
            table.add_row(
                f"{name}, {arguments.calls} at once",
                str(len(result.delays_ms)),
                *(f"{delay_ms:.0f}" for delay_ms in delays_ms),
                f"{result.wer_percent:.2f}",
                f"{result.cpu_percent:.1f}",
            )
            for problem in result.problems:
                print(f"{name}: {problem}")
    Console(width=120).print(table)


if __name__ == "__main__":
    asyncio.run(main())

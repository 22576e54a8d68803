"""A real WebRTC peer (aiortc) that calls the server over UDP, for tests. It believes as little as `wire.Wire`."""

from __future__ import annotations

import asyncio
import fractions
import json
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.rtp import is_rtcp
from av import AudioFrame
from conftest import RunningServer
from wire import CLEARED, COMMITTED, COMPLETED, DialectName, Event, check_order, parsed, session_patch

from auricle.audio.formats import SAMPLE_RATE, Samples

FRAME_S = 0.02
FRAME_SAMPLES = round(FRAME_S * SAMPLE_RATE)
SPEED = 4
"""How much faster than real time a peer speaks."""
RECEIVE_TIMEOUT_S = 20
IN_FLIGHT_S = 0.3
"""After this long packets have come that were sent: they don't wait for the channel, nor it for them."""


class Microphone(MediaStreamTrack):
    """A track that says what it is given and is silent otherwise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[Samples] = deque()
        self._said = asyncio.Event()
        self.frames_sent = 0
        self.is_on = asyncio.Event()
        """Cleared, nothing is sent at all."""
        self.is_on.set()

    async def say(self, samples: Samples) -> None:
        """Speak, and return when all is said."""
        padded = np.pad(samples, (0, -samples.size % FRAME_SAMPLES))
        self._frames.extend(padded.reshape(-1, FRAME_SAMPLES))
        self._said.clear()
        await self._said.wait()

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(FRAME_S / SPEED)
        await self.is_on.wait()
        samples = self._frames.popleft() if self._frames else np.zeros(FRAME_SAMPLES, np.float32)
        if not self._frames:
            self._said.set()
        frame = AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self.frames_sent * FRAME_SAMPLES
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self.frames_sent += 1
        return frame


class Caller:
    """One peer: its microphone, its data channel, and all events that it was told."""

    def __init__(self, dialect: DialectName = "ga", codec: str | None = None, loss: float = 0) -> None:
        """`codec` is the only one that is offered, such as PCMU; `loss` is the share of packets that get lost."""
        self.dialect: DialectName = dialect
        self.events: list[Event] = []
        self.location = ""
        self.microphone = Microphone()
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = self.peer.addTransceiver(self.microphone, direction="sendonly")
        if codec:
            known = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([known_codec for known_codec in known if known_codec.name == codec])
        self.sender = transceiver.sender
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("message", self._take)
        self.channel.on("close", lambda: self._take(None))
        self._told: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._loss = loss

    def _take(self, message: str | bytes | None) -> None:
        self._told.put_nowait(message)

    async def offer(self) -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return self.peer.localDescription.sdp

    async def accept(self, answer: httpx.Response) -> None:
        """Take the server's answer."""
        assert answer.status_code == 201, answer.text
        self.location = answer.headers["location"]
        await self.peer.setRemoteDescription(RTCSessionDescription(sdp=answer.text, type="answer"))
        if self._loss:
            lose_packets(self.sender, self._loss)

    def send(self, kind: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def update(self, **settings: Any) -> Event:
        """Change settings, given by their GA names. Returns the session."""
        kind = "session.update" if self.dialect == "ga" else "transcription_session.update"
        self.send(kind, session=session_patch(self.dialect, **settings))
        return (await self.until(kind + "d"))[-1]["session"]

    async def receive(self) -> Event | None:
        """The next event; None: the channel is closed."""
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            message = await self._told.get()
        if message is None:
            return None
        self.events.append(parsed(message, self.dialect))
        return self.events[-1]

    async def until(self, *kinds: str) -> list[Event]:
        """The events up to the next of one of these kinds. Fails on errors that are not waited for."""
        told: list[Event] = []
        while not told or told[-1]["type"] not in kinds:
            event = await self.receive()
            assert event is not None, "the call has ended"
            told.append(event)
            assert event["type"] != "error" or "error" in kinds, event
        return told

    async def until_closed(self) -> None:
        """Read on until the server ends the call."""
        while await self.receive() is not None:
            pass

    async def speak(self, samples: Samples) -> None:
        """Say something to its end."""
        await self.microphone.say(samples)

    async def finish(self) -> str:
        """Clear the buffer, wait until it is cleared and all that was committed has its text, and give all text."""
        await asyncio.sleep(IN_FLIGHT_S)
        self.send("input_audio_buffer.clear")
        while not self.of(CLEARED, "event_id") or set(self.of(COMMITTED, "item_id")) > set(
            self.of(COMPLETED, "item_id")
        ):
            assert await self.receive() is not None
        return " ".join(self.of(COMPLETED, "transcript"))

    def of(self, kind: str, name: str) -> list[Any]:
        """A field of all events of a kind."""
        return [event[name] for event in self.events if event["type"] == kind]

    async def vanish(self) -> None:
        """Be gone, without a word: no goodbye of any layer."""
        for transport in {self.sender.transport.transport, self.peer.sctp.transport.transport}:
            for protocol in transport._connection._protocols:
                protocol.transport.abort()


def lose_packets(sender: RTCRtpSender, share: float) -> None:
    """Lose a share of the audio packets that a peer sends, always the same ones."""
    transport = sender.transport
    chance, send = random.Random(0), transport._send_rtp

    async def send_some(data: bytes) -> None:
        if is_rtcp(data) or chance.random() >= share:
            await send(data)

    transport._send_rtp = send_some


@asynccontextmanager
async def client_of(server: RunningServer, key: str | None = "any-key") -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client whose paths are under the server's root."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=server.root_url, headers=headers, timeout=30) as client:
        yield client


async def post_offer(client: httpx.AsyncClient, offer: str, settings: Event | None, path: str) -> httpx.Response:
    """Send an offer: as a form if there are settings, else raw."""
    if settings is None:
        return await client.post(path, content=offer, headers={"Content-Type": "application/sdp"})
    return await client.post(path, files={"sdp": (None, offer), "session": (None, json.dumps(settings))})


@asynccontextmanager
async def call(
    server: RunningServer,
    dialect: DialectName = "ga",
    *,
    settings: Event | None = None,
    key: str | None = "any-key",
    codec: str | None = None,
    loss: float = 0,
    path: str = "/v1/realtime/calls",
) -> AsyncIterator[Caller]:
    """Call the server, and wait for its first event. When the block ends, all that it said must have been in order."""
    caller = Caller(dialect, codec, loss)
    try:
        async with client_of(server, key) as client:
            await caller.accept(await post_offer(client, await caller.offer(), settings, path))
        first = await caller.receive()
        assert first is not None
        assert first["type"].endswith("session.created")
        yield caller
    finally:
        await caller.peer.close()
    check_order(caller.events, dialect)


async def hang_up(server: RunningServer, location: str) -> httpx.Response:
    async with client_of(server) as client:
        return await client.post(location + "/hangup")


async def sessions(server: RunningServer) -> int:
    """How many are open."""
    async with client_of(server) as client:
        count: int = (await client.get("/health")).json()["sessions"]
        return count


async def until_sessions(server: RunningServer, count: int) -> None:
    """Wait until so many are open."""
    for _ in range(round(RECEIVE_TIMEOUT_S / 0.1)):
        if await sessions(server) == count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"there are {await sessions(server)} sessions")

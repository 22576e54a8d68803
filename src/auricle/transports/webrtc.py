"""Events over a WebRTC data channel, audio on a track. The only module that knows aiortc."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError
from aiortc.sdp import SessionDescription

from auricle.audio.formats import Samples
from auricle.audio.packets import PACKET_CODECS, packet_decoder
from auricle.audio.rtp import Packet, RtpAudio
from auricle.errors import ClientError, Unavailable
from auricle.transports.base import TransportClosed
from auricle.transports.ice import IceNetwork, use_network

if TYPE_CHECKING:
    from aiortc.rtp import RtpPacket

logger = logging.getLogger(__name__)

CONNECT_S = 30.0
"""How long a peer may take to connect and to open its data channel."""
TICK_S = 0.1
"""How often a track is looked at while no packets come."""
MAX_UNSENT_BYTES = 64 * 1024
"""Bytes that may wait in the data channel; then `send` waits."""
MAX_UNREAD_BYTES = 4 * 1024 * 1024
"""Samples and messages that may wait to be received: of samples a minute. Who sends more is no microphone."""
_MESSAGE_BYTES = 64
"""What a message costs beside its text."""
GOODBYE_S = 0.5
"""How long a peer has to confirm what it was sent last."""
_POLL_S = 0.01
CLOSE_S = 2.0
"""How long aiortc may take to close a connection."""
MAX_OFFER_LINES = 1_000
"""Lines of an offer without those that are ignored. What aiortc takes to read them grows with their square."""
MAX_MEDIA_SECTIONS = 16
"""Media sections of an offer: aiortc makes a connection of each before it bundles them."""
_NO_PORT = 9
"""What stands where a port must stand and none is meant (RFC 8829 §5.2.1)."""
_IGNORED_LINES = ("a=candidate:", "a=end-of-candidates", "a=rtcp-fb:")
"""The peer's addresses, and feedback, of which audio has none here."""


class WebRtcTransport:
    """A `Transport` over one peer connection. Made by `answer`; `close` frees all that it holds."""

    has_track = True

    def __init__(self) -> None:
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peer.on("connectionstatechange", self._on_state)
        self._peer.on("datachannel", self._on_channel)
        self._channel: RTCDataChannel | None = None
        self._track = _Track(self._put)
        self._unread: deque[str | bytes | Samples] = deque()
        self._unread_bytes = 0
        self._changed = asyncio.Event()
        """Something came, was sent, or ended."""
        self._lost: TransportClosed | None = None
        self._closing: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._time_limit = loop.call_later(CONNECT_S, self._lose, 1006, "The peer did not connect in time.")
        self._ticker = loop.call_later(TICK_S, self._tick, loop.time() + TICK_S)

    @classmethod
    async def answer(cls, offer: str, network: IceNetwork) -> tuple[WebRtcTransport, str]:
        """Answer a peer's SDP offer. Returns the answer's SDP too.

        Raises ClientError: the offer can't be used; Unavailable: no address or port is free.
        """
        transport = cls()
        try:
            return transport, await transport._answer(offer, network)
        except BaseException:
            await transport.close(1011, "")
            raise

    async def _answer(self, offer: str, network: IceNetwork) -> str:
        with _refusing():
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp=_usable(offer), type="offer"))
            audio, *others = sorted(self._peer.getTransceivers(), key=lambda transceiver: transceiver.kind != "audio")
            for other in others:  # a camera, or a second microphone
                other.direction = "inactive"
            answer = await self._peer.createAnswer()
        gatherer = audio.receiver.transport.transport.iceGatherer  # of everything, since everything is bundled
        use_network(gatherer._connection, network)
        await gatherer.gather()
        if not gatherer.getLocalCandidates():
            raise Unavailable("No UDP port is free for another call. Try again later.")
        # What is said by this name is how aiortc hands each packet on. Its own buffer holds a packet back until three
        # more are there, and after a loss waits for 16 and drops some of those that came.
        assert hasattr(audio.receiver, "_RTCRtpReceiver__jitter_buffer")
        setattr(audio.receiver, "_RTCRtpReceiver__jitter_buffer", self._track)  # noqa: B010
        self._track.codecs = {codec.payloadType or 0: codec.name.lower() for codec in audio._codecs}
        with _refusing():
            await self._peer.setLocalDescription(answer)
        described: str = self._peer.localDescription.sdp
        return described

    async def receive(self) -> str | bytes | Samples:
        while not self._unread:
            if self._lost:
                raise self._lost
            await self._change()
        message = self._unread.popleft()
        self._unread_bytes -= _size(message)
        return message

    async def send(self, message: str) -> None:
        while self._channel is None or self._channel.bufferedAmount > MAX_UNSENT_BYTES:
            if self._lost:
                raise self._lost
            await self._change()
        if self._lost or self._channel.readyState != "open":
            raise self._lost or TransportClosed(1006)
        try:
            self._channel.send(message)
        except ValueError:
            text = f"An event of {len(message.encode())} bytes is too large for this peer's data channel."
            raise ClientError("event_too_large", f"{text} A sideband socket takes it.") from None

    async def close(self, code: int, reason: str) -> None:
        self._lose(code, reason)
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._say_goodbye())
        # Whoever waits may be cancelled, and another one wait: that must not cut it short, since aiortc, once
        # interrupted in its `close`, waits in the next for an end that never comes.
        await asyncio.wait([self._closing])

    async def _say_goodbye(self) -> None:
        """Wait until the peer has what it was sent last, then free everything."""
        for _ in range(round(GOODBYE_S / _POLL_S)):
            if not self._has_unsent:
                break
            await asyncio.sleep(_POLL_S)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._peer.close()
        except (TimeoutError, *_UNUSABLE) as error:  # as after an offer that it could not answer
            logger.warning("A call's connection could not be closed: %r", error)

    @property
    def _has_unsent(self) -> bool:
        """Whether something of what was sent would not reach the peer if the association ended now."""
        sctp = self._peer.sctp
        if sctp is None or self._channel is None or self._channel.readyState != "open":
            return False
        return bool(self._channel.bufferedAmount or sctp._outbound_queue or sctp._sent_queue)

    def _put(self, message: str | bytes | Samples) -> None:
        if self._lost:
            return
        self._unread.append(message)
        self._unread_bytes += _size(message)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self._lose(1008, "The peer sends more than can be taken in.")
        self._changed.set()

    def _lose(self, code: int, reason: str) -> None:
        if self._lost is None:
            self._lost = TransportClosed(code, reason)
            self._time_limit.cancel()
            self._ticker.cancel()
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _tick(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        # If this comes late, packets that came in time may still lie in the socket: that is no silence of the sender's.
        if loop.time() < due_s + TICK_S:
            self._track.pass_time()
        if self._lost is None:  # by this very silence it may be
            self._ticker = loop.call_later(TICK_S, self._tick, loop.time() + TICK_S)

    # What aiortc tells

    def _on_state(self) -> None:
        # A peer that says goodbye closes the channel first.
        if self._peer.connectionState in ("failed", "closed"):
            self._lose(1006, "The connection to the peer is lost.")

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = MAX_UNSENT_BYTES
        channel.on("message", self._put)
        channel.on("bufferedamountlow", self._changed.set)
        channel.on("close", lambda: self._lose(1000, "The peer closed the data channel."))
        self._time_limit.cancel()
        self._changed.set()


class _Track:
    """Takes packets in the place of aiortc's jitter buffer, and puts out their audio."""

    def __init__(self, put: Callable[[Samples], None]) -> None:
        self.codecs: dict[int, str] = {}
        """Names by payload type."""
        self._put = put
        self._audio: RtpAudio | None = None
        self._payload_type = -1

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """Take a packet. Returns that no picture is missing, and that there is nothing to decode for aiortc."""
        if packet.payload_type != self._payload_type:
            self._payload_type = packet.payload_type
            self._audio = RtpAudio(packet_decoder(self.codecs[packet.payload_type]))
        assert self._audio is not None
        now_s = asyncio.get_running_loop().time()
        taken = Packet(packet.sequence_number, packet.timestamp, packet.payload)
        self._hand_on(self._audio.receive(taken, now_s))
        return False, None

    def pass_time(self) -> None:
        """Put in the silence of a track that sends nothing."""
        if self._audio:
            self._hand_on(self._audio.pass_time(asyncio.get_running_loop().time()))

    def _hand_on(self, samples: Samples) -> None:
        if samples.size:
            self._put(samples)


_UNUSABLE = (
    ValueError,
    LookupError,
    AssertionError,
    AttributeError,
    TypeError,
    InternalError,
    InvalidAccessError,
    InvalidStateError,
    OperationError,
    StopIteration,
    RuntimeError,  # which StopIteration becomes in a coroutine
)
"""What aiortc raises for offers that are malformed or that it can't answer."""


@contextmanager
def _refusing() -> Iterator[None]:
    """What aiortc raises within this block is about the offer: raises ClientError."""
    try:
        yield
    except _UNUSABLE as error:
        reason = str(error) or "it is malformed"
        raise ClientError("invalid_offer", f"The SDP offer can't be used: {reason}.") from None


def _usable(offer: str) -> str:
    """The offer without what must not be tried. Raises ValueError: it is too large, or not for us; or `_UNUSABLE`."""
    # Where the peer is, is nothing that we take its word for: it finds us, and its own checks tell where it is. A list
    # of addresses would have us send there, whoever that is; it would also be sorted anew with each that is added. And
    # there is no end of the candidates either, since a list with nothing in it would fail at once.
    lines = [line for line in offer.splitlines() if not line.startswith(_IGNORED_LINES)]
    if len(lines) > MAX_OFFER_LINES:
        raise ValueError(f"it has over {MAX_OFFER_LINES} lines")
    if "a=ice-lite" in lines:
        raise ValueError("its sender waits to be found (ice-lite), and so do we")
    parsed = SessionDescription.parse("\r\n".join(lines))
    _check_sections(parsed)
    for media in parsed.media:
        if media.rtcp_mux:  # which aiortc leaves out where there is no port
            media.rtcp_port = media.rtcp_port or _NO_PORT
        if media.kind in ("audio", "video"):
            media.direction = media.direction or "sendrecv"  # which it is if nothing is said (RFC 8866 §6.7)
        if media.kind != "audio":
            continue
        media.rtp.codecs = [codec for codec in media.rtp.codecs if codec.name.lower() in PACKET_CODECS]
        media.fmt = [codec.payloadType for codec in media.rtp.codecs]
        if not media.fmt:
            raise ValueError("its audio has no codec of " + ", ".join(PACKET_CODECS))
    return str(parsed)


def _check_sections(offer: SessionDescription) -> None:
    """Look for what aiortc would stumble over, in part only in a task of its own. Raises ValueError."""
    if len(offer.media) > MAX_MEDIA_SECTIONS:
        raise ValueError(f"it has over {MAX_MEDIA_SECTIONS} media sections")
    kinds = [media.kind for media in offer.media]
    if unknown := set(kinds) - {"audio", "video", "application"}:
        raise ValueError(f"it has a media section of an unknown kind, {min(unknown)}")
    if "audio" not in kinds:
        raise ValueError("it has no audio media section")
    if kinds.count("application") != 1:
        raise ValueError("it has no data channel, or more than one section for such")
    names = {media.rtp.muxId for media in offer.media}
    if "" in names or len(names) < len(offer.media):
        raise ValueError("its media sections have no names (a=mid) of their own")
    bundle = next((group for group in offer.group if group.semantic == "BUNDLE"), None)
    if bundle is None or names != set(bundle.items):
        raise ValueError("its media sections are not all bundled (a=group:BUNDLE), to go over one connection")
    if not all(media.dtls and media.dtls.fingerprints for media in offer.media):
        raise ValueError("it has no fingerprint to know its sender by")


def _size(message: str | bytes | Samples) -> int:
    return message.nbytes if isinstance(message, np.ndarray) else len(message) + _MESSAGE_BYTES

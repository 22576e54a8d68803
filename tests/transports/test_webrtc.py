"""The WebRTC transport by itself, with a real peer in the same loop: limits, ends, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aioice.ice
import numpy as np
import pytest
from aiortc import RTCSessionDescription
from calling import Caller

from auricle.errors import ClientError
from auricle.transports import webrtc
from auricle.transports.base import TransportClosed
from auricle.transports.ice import IceNetwork
from auricle.transports.webrtc import WebRtcTransport

LOOPBACK = IceNetwork("127.0.0.1", range(0, 1))


@asynccontextmanager
async def connected(**options) -> AsyncIterator[tuple[WebRtcTransport, Caller]]:
    """A transport and the peer at its other end, both closed after the block."""
    caller = Caller(**options)
    transport, answer = await WebRtcTransport.answer(await caller.offer(), LOOPBACK)
    try:
        await caller.peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
        yield transport, caller
    finally:
        await transport.close(1000, "")
        await caller.peer.close()


async def next_message(transport: WebRtcTransport) -> str | bytes:
    """The next message that is no audio."""
    while isinstance(message := await transport.receive(), np.ndarray):
        pass
    return message


async def ended(transport: WebRtcTransport) -> TransportClosed:
    """How the transport ends."""
    async with asyncio.timeout(10):
        try:
            while True:
                await transport.receive()
        except TransportClosed as closed:
            return closed


async def opened(caller: Caller) -> None:
    """Wait for the data channel."""
    while caller.channel.readyState != "open":  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_messages_go_both_ways_in_order():
    async with connected() as (transport, caller):
        await transport.send('{"a": 1}')
        assert json.loads(await caller._told.get()) == {"a": 1}
        for text in ("one", "", "three"):
            caller.channel.send(text)
        caller.channel.send(b"four")
        assert [await next_message(transport) for _ in range(4)] == ["one", "", "three", b"four"]


async def test_audio_comes_at_16_khz():
    async with connected() as (transport, caller):
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
        caller.microphone._frames.extend(tone.reshape(-1, 320))
        heard = np.zeros(0, np.float32)
        while np.trim_zeros(heard).size < 20_000:
            heard = np.concatenate([heard, await transport.receive()])
        loud = np.trim_zeros(heard)[1_600:17_600]
        # The peer makes stereo of it, each side at half the power.
        assert 0.23 < np.sqrt((loud**2).mean()) < 0.27
        assert abs(int(np.argmax(np.abs(np.fft.rfft(loud)))) * 16_000 / loud.size - 440) < 3


async def test_sending_waits_for_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch):
    async with connected() as (transport, caller):
        await opened(caller)
        # Nothing of the peer's arrives any more, so nothing is confirmed.
        monkeypatch.setattr(transport._peer.sctp, "_handle_data", _ignore)
        sent = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < 40:
                    await transport.send("x" * 10_000)
                    sent += 1
        assert 5 < sent < 40


async def _ignore(data: bytes) -> None:
    pass


async def test_a_message_too_large_for_the_peer_is_an_error_that_names_its_size():
    async with connected() as (transport, caller):
        await transport.send("{}")
        with pytest.raises(ClientError, match="262150 bytes") as error:
            await transport.send("x" * 262_150)
        assert error.value.code == "event_too_large"
        await transport.send("[]")
        assert [await caller._told.get() for _ in range(2)] == ["{}", "[]"]


async def test_a_second_channel_is_closed():
    async with connected() as (transport, caller):
        await transport.send("{}")
        second = caller.peer.createDataChannel("another")
        closed = asyncio.Event()
        second.on("close", closed.set)
        async with asyncio.timeout(10):
            await closed.wait()
        caller.channel.send("still here")
        assert await next_message(transport) == "still here"


async def test_a_peer_that_sends_more_than_is_read_is_let_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webrtc, "MAX_UNREAD_BYTES", 100_000)
    async with connected() as (transport, caller):
        await opened(caller)
        for _ in range(20):
            caller.channel.send("x" * 10_000)
        while transport._lost is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await ended(transport)).code == 1008


async def test_silence_that_is_too_much_ends_the_watch_for_silence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webrtc, "MAX_UNREAD_BYTES", 0)
    async with connected() as (transport, _):
        monkeypatch.setattr(transport._track, "pass_time", lambda: transport._put(np.zeros(160, np.float32)))
        transport._tick(asyncio.get_running_loop().time())
        assert transport._lost.code == 1008
        assert transport._ticker.cancelled()


async def test_a_peer_that_never_connects_is_let_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webrtc, "CONNECT_S", 0.1)
    caller = Caller()
    transport, _ = await WebRtcTransport.answer(await caller.offer(), LOOPBACK)
    assert (await ended(transport)).reason == "The peer did not connect in time."
    with pytest.raises(TransportClosed):
        await transport.send("{}")
    await transport.close(1006, "")
    await caller.peer.close()


async def test_a_peer_that_vanishes_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)
    async with connected() as (transport, caller):
        await transport.send("{}")
        await caller.vanish()
        assert (await ended(transport)).code == 1006


async def test_names_that_browsers_put_for_their_addresses_delay_nothing():
    caller = Caller()
    offer = await caller.offer()
    lines = [
        line.replace(line.split()[4], "0b2d4f6a-1c3e-4a5b-8d7f-9e0a1b2c3d4e.local")
        if line.startswith("a=candidate")
        else line
        for line in offer.splitlines()
    ]
    assert any(".local" in line for line in lines)
    transport, answer = await WebRtcTransport.answer("\r\n".join(lines) + "\r\n", LOOPBACK)
    assert not hasattr(aioice.ice._mdns, "lock") or aioice.ice._mdns.protocol is None
    await caller.peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    await transport.send("{}")
    assert await caller._told.get() == "{}"
    await transport.close(1000, "")
    await caller.peer.close()


async def test_a_peer_is_not_looked_for_at_the_addresses_that_it_names():
    caller = Caller()
    offer = await caller.offer()
    named = "".join(
        f"a=candidate:{i} 1 udp 2130706431 192.0.2.{i % 256} {1_000 + i} typ host\r\n" for i in range(10_000)
    )
    transport, answer = await WebRtcTransport.answer(offer.replace("a=ice-ufrag", named + "a=ice-ufrag", 1), LOOPBACK)
    ice = transport._peer.sctp.transport.transport
    assert ice.getRemoteCandidates() == []
    await caller.peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    await transport.send("{}")
    assert await caller._told.get() == "{}"
    assert {candidate.type for candidate in ice.getRemoteCandidates()} == {"prflx"}  # it came, and so is known
    await transport.close(1000, "")
    await caller.peer.close()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("a=ssrc:{i} cname:x\r\n", f"over {webrtc.MAX_OFFER_LINES} lines"),
        ("m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:x{i}\r\n", f"over {webrtc.MAX_MEDIA_SECTIONS} media sections"),
    ],
)
async def test_an_offer_that_is_too_large_is_refused(more: str, fault: str):
    count = webrtc.MAX_OFFER_LINES if "ssrc" in more else webrtc.MAX_MEDIA_SECTIONS - 1
    with pytest.raises(ClientError, match=fault) as error:
        await WebRtcTransport.answer(OFFER + "".join(more.format(i=i) for i in range(count)), LOOPBACK)
    assert error.value.code == "invalid_offer"


async def test_a_peer_that_waits_to_be_found_is_refused():
    with pytest.raises(ClientError, match="ice-lite"):
        await WebRtcTransport.answer(OFFER.replace("t=0 0", "t=0 0\r\na=ice-lite"), LOOPBACK)


async def test_an_offer_need_not_say_a_port_for_rtcp_nor_a_direction():
    assert "a=rtcp:" not in OFFER
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=rtcp-mux\r\na=mid:2\r\n"
    whole = OFFER.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + video + OFFER[OFFER.rindex("a=ice-ufrag") :]
    transport, answer = await WebRtcTransport.answer(whole, LOOPBACK)
    await transport.close(1000, "")
    assert answer.count("a=rtcp-mux\r\n") == 2


async def test_an_offer_without_a_fingerprint_is_refused():
    lines = [line for line in OFFER.splitlines() if not line.startswith("a=fingerprint")]
    with pytest.raises(ClientError, match="no fingerprint"):
        await WebRtcTransport.answer("\r\n".join(lines), LOOPBACK)


@pytest.mark.parametrize("bundle", ["", "a=group:BUNDLE 0\r\n", "a=group:BUNDLE 0 1 2\r\n"])
async def test_an_offer_that_is_not_bundled_is_refused(bundle: str):
    with pytest.raises(ClientError, match="not all bundled"):
        await WebRtcTransport.answer(OFFER.replace("a=group:BUNDLE 0 1\r\n", bundle), LOOPBACK)


async def test_a_close_that_is_interrupted_is_finished_by_the_next():
    async with connected() as (transport, _):
        await transport.send("{}")
        closing = asyncio.get_running_loop().create_task(transport.close(1000, ""))
        while transport._peer.signalingState != "closed":  # noqa: ASYNC110 - then aiortc is in the middle of it
            await asyncio.sleep(0)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(10):
            await transport.close(1011, "")
        assert transport._peer.connectionState == "closed"


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_connection_that_can_not_be_closed_is_logged_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
):
    monkeypatch.setattr(webrtc, "CLOSE_S", 0.05)
    caller = Caller()
    transport, _ = await WebRtcTransport.answer(await caller.offer(), LOOPBACK)
    close = transport._peer.close

    async def broken() -> None:
        if how == "hangs":
            await asyncio.Event().wait()
        raise AttributeError("gone")

    monkeypatch.setattr(transport._peer, "close", broken)
    async with asyncio.timeout(10):
        await transport.close(1000, "")
    [record] = caplog.records
    assert "could not be closed" in record.message
    await close()
    await caller.peer.close()


@pytest.mark.parametrize("how", ["we close", "the peer closes", "the peer is never there"])
async def test_nothing_is_left_behind(how: str):
    async def end_one() -> None:
        if how == "the peer is never there":
            caller = Caller()
            transport, _ = await WebRtcTransport.answer(await caller.offer(), LOOPBACK)
            await transport.close(1000, "")
            await caller.peer.close()
            return
        async with connected() as (transport, caller):
            await transport.send("{}")
            await transport.receive()
            if how == "the peer closes":
                await caller.peer.close()
                await ended(transport)

    await end_one()
    await asyncio.sleep(0.1)
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for _ in range(3):
        await end_one()
    await asyncio.sleep(0.1)
    assert len(asyncio.all_tasks()) <= tasks
    assert threading.active_count() <= threads


OFFER = """v=0
o=- 3988 3988 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111 0
c=IN IP4 0.0.0.0
a=sendrecv
a=mid:0
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:0 PCMU/8000
a=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 DE:F3:BB:64:0F:FC:22:BA:48:D6:47:E9:AD:66:AE:5C:2C:3C:AE:49:41:A0:FC:B3:F0:12:1B:76:6F:58:8F:76
a=setup:actpass
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:1
a=sctp-port:5000
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 DE:F3:BB:64:0F:FC:22:BA:48:D6:47:E9:AD:66:AE:5C:2C:3C:AE:49:41:A0:FC:B3:F0:12:1B:76:6F:58:8F:76
a=setup:actpass
""".replace("\n", "\r\n")

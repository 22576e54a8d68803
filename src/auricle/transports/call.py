"""A call's own transport and the sideband sockets beside it, as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from auricle.audio.formats import Samples
from auricle.errors import ClientError
from auricle.transports.base import Transport, TransportClosed
from auricle.transports.outbox import Outbox

MAX_SIDEBANDS = 8
"""Most sockets beside one call."""
GOODBYE_S = 1.0
"""How long a sideband has to read its last events."""


class _Sideband:
    """One socket beside a call: what waits for it, and how it ends."""

    def __init__(self, transport: Transport, max_outbox_bytes: int) -> None:
        self.transport = transport
        self._outbox = Outbox(max_outbox_bytes)
        self.end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def put(self, message: str) -> None:
        """Have a message sent, unless this ends already."""
        if self.end.done():
            return
        try:
            self._outbox.put(message)
        except OverflowError:
            self.stop(1008, "Too many events wait to be read by the client.")

    def stop(self, code: int, reason: str) -> None:
        """Have it closed after what it was sent."""
        if not self.end.done():
            self.end.set_result((code, reason))
            self._outbox.close()

    async def send_loop(self) -> None:
        """Send what is put until it is stopped or gone."""
        try:
            while (message := await self._outbox.take()) is not None:
                await self.transport.send(message)
        except TransportClosed as closed:
            self.stop(closed.code, closed.reason)


class CallTransport:
    """What several clients of one session say, merged, and what it says, to all of them.

    The call ends with its `main` transport; sidebands come and go, and a slow one is in nobody's way.
    """

    has_track = True

    def __init__(self, main: Transport, max_outbox_bytes: int) -> None:
        """`max_outbox_bytes`: the events that may wait for a sideband; then it is closed, and the call goes on."""
        self._main = main
        self._max_outbox_bytes = max_outbox_bytes
        self._sidebands: set[_Sideband] = set()
        self._received: asyncio.Queue[str | bytes | Samples | TransportClosed] = asyncio.Queue(1)
        self._reader = asyncio.get_running_loop().create_task(self._read_main())

    async def receive(self) -> str | bytes | Samples:
        message = await self._received.get()
        if isinstance(message, TransportClosed):
            raise message
        return message

    async def send(self, message: str) -> None:
        for sideband in self._sidebands:
            sideband.put(message)
        await self._main.send(message)

    async def close(self, code: int, reason: str) -> None:
        self._reader.cancel()
        for sideband in self._sidebands:
            # The codes of a lost connection can't be sent.
            sideband.stop(1000 if code in (1005, 1006) else code, reason)
        await self._main.close(code, reason)

    async def attend(self, transport: Transport, greeting: Sequence[str]) -> None:
        """Serve a sideband, first with the `greeting`, until it or the call ends. Raises ClientError: too many."""
        if len(self._sidebands) >= MAX_SIDEBANDS:
            raise ClientError("too_many_sidebands", f"A call has at most {MAX_SIDEBANDS} sideband sockets.", "call_id")
        sideband = _Sideband(transport, self._max_outbox_bytes)
        for message in greeting:
            sideband.put(message)
        self._sidebands.add(sideband)
        loop = asyncio.get_running_loop()
        sender, reader = loop.create_task(sideband.send_loop()), loop.create_task(self._read(sideband))
        try:
            code, reason = await sideband.end
            await asyncio.wait([sender], timeout=GOODBYE_S)
            await transport.close(code, reason)
        finally:
            self._sidebands.discard(sideband)
            sender.cancel()
            reader.cancel()

    async def _read_main(self) -> None:
        try:
            while True:
                await self._received.put(await self._main.receive())
        except TransportClosed as closed:
            await self._received.put(closed)

    async def _read(self, sideband: _Sideband) -> None:
        try:
            while True:
                await self._received.put(await sideband.transport.receive())
        except TransportClosed as closed:
            sideband.stop(closed.code, closed.reason)

"""A call with sidebands, with fakes in the place of all sockets."""

from __future__ import annotations

import asyncio

from auricle.transports.call import CallTransport


class FakeTransport:
    """A client that says nothing. What it is sent waits while it doesn't read."""

    has_track = False

    def __init__(self, *, reads: bool = True) -> None:
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()

    async def receive(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: str) -> None:
        await self.reads.wait()
        self.sent.append(message)

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_sideband_that_does_not_read_is_closed_and_the_call_goes_on():
    main, slow, quick = FakeTransport(), FakeTransport(reads=False), FakeTransport()
    call = CallTransport(main, max_outbox_bytes=1_000)
    loop = asyncio.get_running_loop()
    attended = [loop.create_task(call.attend(sideband, ["hello"])) for sideband in (slow, quick)]
    await settle()
    messages = [f"{i:03}" + "ä" * 49 for i in range(20)]  # of 101 bytes
    for message in messages:
        await call.send(message)
        await settle()
    slow.reads.set()
    await attended[0]
    assert slow.closed == (1008, "Too many events wait to be read by the client.")
    # What was on its way, nine that may wait, and the one that was too many; nothing is kept after that.
    assert slow.sent == ["hello", *messages[:10]]
    assert quick.sent == ["hello", *messages]
    assert main.sent == messages
    await call.close(1000, "bye")
    await attended[1]
    assert (quick.closed, main.closed) == ((1000, "bye"), (1000, "bye"))

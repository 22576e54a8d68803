"""The client of the command line, against a socket that plays the server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from fakes import PCM_16K
from websockets.asyncio.server import ServerConnection, serve

from auricle.audio.formats import Samples
from auricle.client import RealtimeClient


async def test_audio_that_breaks_off_is_told_as_what_it_is() -> None:
    """A microphone that is gone: not as the end of the connection, which only follows from it."""

    async def read(socket: ServerConnection) -> None:
        async for _ in socket:
            pass

    async def blocks() -> AsyncIterator[Samples]:
        yield np.zeros(1_600, np.float32)
        raise RuntimeError("The microphone is gone.")

    async with serve(read, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with RealtimeClient.connect(f"http://127.0.0.1:{port}/v1", None) as client:
            with pytest.raises(RuntimeError, match="The microphone is gone"):
                async for _ in client.stream(blocks(), PCM_16K.audio_format):
                    pass

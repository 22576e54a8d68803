"""A small client of the protocol (GA dialect), for the command line and the benchmarks."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from auricle.audio.formats import AudioFormat, Samples, encode
from auricle.errors import AuricleError

_LAST_COMMIT = "last_commit"
_CLOSE_TIMEOUT_S = 1.0


class RemoteError(AuricleError):
    """The server refused something, or is gone."""


def socket_url(base_url: str) -> str:
    """The socket's address for an API's base URL, such as `http://127.0.0.1:8000/v1`."""
    parts = urlsplit(base_url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/realtime", "intent=transcription", ""))


class RealtimeClient:
    """One session on a server."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._problem: Exception | None = None
        """Of the audio that is streamed: why there is no more of it."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, base_url: str, api_key: str | None) -> AsyncIterator[RealtimeClient]:
        """Open a session. Raises RemoteError: nobody answers there."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        url = socket_url(base_url)
        try:
            socket = await connect(
                url,
                additional_headers=headers,
                compression=None,
                max_size=None,
                close_timeout=_CLOSE_TIMEOUT_S,
                # A ping stands behind audio that was sent, for which a slow server may take longer than any limit.
                ping_timeout=None,
            )
        except (OSError, InvalidHandshake, InvalidURI, ValueError) as error:
            raise RemoteError(f"No connection to {url}: {error}") from None
        async with socket:
            yield cls(socket)

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event. If the server is gone, `events` tells so, after what the server said before it went."""
        with suppress(ConnectionClosed):
            await self._socket.send(json.dumps(event))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """All events. Raises RemoteError when the server closes."""
        try:
            while True:
                yield json.loads(await self._socket.recv())
        except ConnectionClosed as error:
            raise RemoteError(f"The server closed the connection: {error}") from None

    async def update(self, audio_input: dict[str, Any]) -> None:
        """Set fields of `session.audio.input`; the answer is `session.updated` or an `error`."""
        await self.send(
            {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio_input}}}
        )

    async def append(self, samples: Samples, audio_format: AudioFormat) -> None:
        """Send audio: float32 mono at the rate of `audio_format`."""
        await self.append_bytes(encode(samples, audio_format))

    async def append_bytes(self, data: bytes) -> None:
        """Send audio that is in the session's format already."""
        await self.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()})

    async def commit(self, event_id: str | None = None) -> None:
        """Make an item of the buffered audio. An `error` that this causes carries `event_id`."""
        await self.send({"type": "input_audio_buffer.commit"} | ({"event_id": event_id} if event_id else {}))

    async def clear(self) -> None:
        """Drop the buffered audio; answered with `cleared`, after all that the audio before it has caused."""
        await self.send({"type": "input_audio_buffer.clear"})

    async def stream(self, blocks: AsyncIterable[Samples], audio_format: AudioFormat) -> AsyncIterator[dict[str, Any]]:
        """Send audio as it comes and as fast as the server takes it. Yields all events, up to the last item's text.

        Raises RemoteError, also for an `error` event, and whatever `blocks` raises: then the session is closed.
        """
        sending = asyncio.create_task(self._send_all(blocks, audio_format))
        open_items: set[str] = set()
        is_all_committed = False
        try:
            async for event in self.events():
                match event["type"]:
                    case "input_audio_buffer.committed":
                        open_items.add(event["item_id"])
                    case "input_audio_buffer.cleared":
                        is_all_committed = True
                    case (
                        "conversation.item.input_audio_transcription.completed"
                        | "conversation.item.input_audio_transcription.failed"
                    ):
                        open_items.discard(event["item_id"])
                    case "error" if event["error"]["event_id"] == _LAST_COMMIT:
                        continue
                    case "error":
                        raise RemoteError(event["error"]["message"])
                yield event
                if is_all_committed and not open_items:
                    return
        except RemoteError:
            if self._problem:
                raise self._problem from None
            raise
        finally:
            sending.cancel()

    async def _send_all(self, blocks: AsyncIterable[Samples], audio_format: AudioFormat) -> None:
        try:
            async for block in blocks:
                await self.append(block, audio_format)
        except Exception as problem:  # nothing more will come, so `events` must end
            self._problem = problem
            await self._socket.close()
            return
        # Nothing may be left to commit, if the last turn ended by itself; `cleared` then marks the end all the same.
        await self.commit(_LAST_COMMIT)
        await self.clear()

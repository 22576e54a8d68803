"""What waits to be sent to one client."""

from __future__ import annotations

import asyncio
from collections import deque

SLOW_READER_S = 5.0
"""How long a client may leave half of its outbox unread while it goes on asking for more."""


class Outbox:
    """Messages on their way to the client, in order. Bounded, so that a slow reader costs nobody else anything."""

    def __init__(self, max_bytes: int) -> None:
        self._messages: deque[str] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closed = False
        self._changed = asyncio.Event()

    def put(self, message: str) -> None:
        """Add a message. Raises OverflowError: the client has not read for too long."""
        self._messages.append(message)
        self._bytes += len(message.encode())
        if self._bytes > self._max_bytes:
            raise OverflowError
        self._changed.set()
        if self._bytes > self._max_bytes / 2:
            self._has_room.clear()

    async def wait_for_room(self) -> None:
        """Return once less than half of the space is taken. Raises TimeoutError: the client doesn't read."""
        if not self._has_room.is_set():
            async with asyncio.timeout(SLOW_READER_S):
                await self._has_room.wait()

    def close(self) -> None:
        """Nothing more will be put; `take` gives what is left."""
        self._is_closed = True
        self._changed.set()

    async def take(self) -> str | None:
        """The next message, or None after the last."""
        while not self._messages:
            if self._is_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._bytes -= len(message.encode())
        if self._bytes <= self._max_bytes / 2:
            self._has_room.set()
        return message

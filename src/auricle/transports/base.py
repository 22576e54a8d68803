"""The interface of a transport."""

from __future__ import annotations

from typing import Protocol


class TransportClosed(Exception):
    """The other side is gone."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code} {reason}".strip())
        self.code = code
        """WebSocket close code (RFC 6455 §7.4), or what comes nearest."""
        self.reason = reason


class Transport(Protocol):
    """Carries messages between one client and its connection."""

    async def receive(self) -> str | bytes:
        """The client's next message. Raises TransportClosed."""
        ...

    async def send(self, message: str) -> None:
        """Send a message; waits while the client is slow to read. Raises TransportClosed."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye with a close code and a reason of at most 123 bytes. Does nothing if the client is gone."""
        ...

"""The interface of a transport."""

from __future__ import annotations

from typing import Protocol

from auricle.audio.formats import Samples


class TransportClosed(Exception):
    """The other side is gone."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code} {reason}".strip())
        self.code = code
        """WebSocket close code (RFC 6455 §7.4), or what comes nearest."""
        self.reason = reason


class Transport(Protocol):
    """Carries messages between one client and its connection."""

    has_track: bool
    """Whether audio comes on a track of its own, and so not in events."""

    async def receive(self) -> str | bytes | Samples:
        """The client's next message, or more of its track: float32 mono, 16 kHz. Raises TransportClosed."""
        ...

    async def send(self, message: str) -> None:
        """Send a message; waits while the client is slow to read.

        Raises TransportClosed, or ClientError: the message is too large for the way that it must go.
        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye with a close code and a reason of at most 123 bytes. Does nothing if the client is gone."""
        ...

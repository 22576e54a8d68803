"""What the routes share: the parts of a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from auricle.connection import Connection, ConnectionLimits
from auricle.errors import Unavailable
from auricle.http.auth import Authenticator
from auricle.protocol.config import ModelDirectory
from auricle.protocol.dialect import Dialect, DialectName
from auricle.recordings import RecordingTranscriber
from auricle.scheduler import BatchScheduler
from auricle.session.session import SessionLimits
from auricle.transports.call import CallTransport
from auricle.transports.ice import IceNetwork

CLOSE_S = 1.0
"""How long calls may take to free everything after their goodbye, when the server stops."""


@dataclass(frozen=True, slots=True)
class Call:
    """A session over WebRTC."""

    connection: Connection
    transport: CallTransport
    task: asyncio.Task[None]
    """Runs the connection and frees everything after it."""


@dataclass
class ServerState:
    """Made once by `create_app`; routes read it from `app.state`."""

    authenticator: Authenticator
    models: ModelDirectory
    scheduler: BatchScheduler
    session_limits: SessionLimits
    connection_limits: ConnectionLimits
    max_sessions: int
    max_lag_s: float
    """Longest wait for decoding at which others may join."""
    dialects: Mapping[DialectName, Dialect]
    recordings: RecordingTranscriber
    max_file_bytes: int
    """The largest recording that is taken in one request."""
    ice_network: IceNetwork | None
    """Where calls are reached; None: this server takes none."""
    calls: dict[str, Call] = field(default_factory=dict)
    """Those that go on, by id."""
    connections: set[Connection] = field(default_factory=set)
    is_draining: bool = False

    def check_room(self) -> None:
        """Raises Unavailable: there is no room for another session."""
        if self.is_draining:
            raise Unavailable("The server is shutting down.")
        if len(self.connections) >= self.max_sessions:
            raise Unavailable(f"All {self.max_sessions} sessions of this server are in use. Try again later.")
        self.check_lag(self.models.default)

    def check_lag(self, model: str) -> None:
        """Raises Unavailable: those who speak to this model now wait too long to be joined by another."""
        if self.scheduler.lag_s(model) > self.max_lag_s:
            raise Unavailable("The server has more speech to transcribe than it can. Try again in a few seconds.")

    async def drain(self, timeout_s: float) -> None:
        """Take no more sessions and bring those that are open to an end."""
        self.is_draining = True
        calls = [call.task for call in self.calls.values()]
        await asyncio.gather(*(connection.drain(timeout_s) for connection in self.connections))
        if calls:
            await asyncio.wait(calls, timeout=CLOSE_S)

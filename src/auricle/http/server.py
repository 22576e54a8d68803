"""Runs the web application: sockets, signals, start and end."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from auricle.http.state import ServerState
from auricle.http.tls import self_signed
from auricle.settings import Settings

logger = logging.getLogger(__name__)

DRAIN_S = 2.0
"""How long open items may take to finish when the server is told to stop."""

PING_S = 20.0
"""Seconds between pings, as at OpenAI's service."""
PONG_S = 60.0
"""How long a client may take to answer one: the answer stands in line behind all audio that it sent before."""


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket with this address, which listens once the server runs. Raises ValueError: the address can't be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ValueError(f"Can't listen on {host}, port {port}: {error.strerror}.") from None
    return bound


class Server(uvicorn.Server):
    """A uvicorn server that loads the models before its port opens and finishes open items before it ends."""

    def __init__(self, settings: Settings, app: FastAPI, on_ready: Callable[[str], None]) -> None:
        """`on_ready` is called with the API's base URL once the port is open.

        Raises OSError: there is no place to keep a certificate of our own.
        """
        certificate, key = settings.tls_cert, settings.tls_key
        if settings.tls:
            signed = self_signed(settings.state_dir / "tls", settings.host)
            certificate, key = signed.certificate, signed.key
            logger.info("Browsers will warn of the certificate %s, SHA-256 %s", certificate, signed.fingerprint)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                ws_max_size=settings.max_event_bytes,
                ws_ping_interval=PING_S,
                ws_ping_timeout=PONG_S,
                # Base64 of audio hardly shrinks, and clients that are offered compression spend their time on it.
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
            )
        )
        try:
            self.config.load()
        except ssl.SSLError as error:
            raise ValueError(f"TLS does not work with {certificate} and {key}: {error}") from None
        self._settings = settings
        self._state: ServerState = app.state.server
        self._on_ready = on_ready

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the models, then serve until a signal. Raises EngineError: a model can't be loaded."""
        try:
            await self._state.scheduler.start()
            await super().serve(sockets)
        finally:
            self._state.recordings.stop()
            await self._state.scheduler.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            self._on_ready(self._settings.model_copy(update={"port": port}).base_url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._state.drain(DRAIN_S)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end. Unlike uvicorn's own, it doesn't raise the signal again afterwards: ending so is no failure."""
        self.force_exit = self.should_exit
        self.should_exit = True

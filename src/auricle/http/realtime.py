"""The routes of the Realtime API: the socket, and the endpoints that make ephemeral keys for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, WebSocket
from pydantic import Field

from auricle.errors import AuricleError
from auricle.http.auth import EphemeralKey
from auricle.http.calls import attend_call
from auricle.http.opening import SUBPROTOCOL, choose_dialect, connect, initial_config
from auricle.http.requests import KeyedRoute, State, request_key
from auricle.http.state import ServerState
from auricle.ids import new_id
from auricle.protocol.beta import BetaSession, ClientSecretRequest
from auricle.protocol.config import SessionConfig, Setting
from auricle.protocol.dialect import DialectName
from auricle.protocol.events import ErrorEvent
from auricle.protocol.ga import GaSession
from auricle.transports.websocket import WebSocketTransport

logger = logging.getLogger(__name__)
router = APIRouter(route_class=KeyedRoute)


# Ephemeral keys


class ExpiresAfter(Setting):
    """When an ephemeral key ends."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(600, ge=10, le=7200)


class ClientSecretCreate(Setting):
    """What `client_secrets` takes."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: GaSession | None = None


class ClientSecret(Setting):
    """An ephemeral key with the session that it opens."""

    value: str
    expires_at: int = Field(description="Unix time, seconds")
    session: dict[str, Any]


@router.post("/v1/realtime/client_secrets", tags=["Realtime"])
async def create_client_secret(state: State, body: ClientSecretCreate | None = None) -> ClientSecret:
    """Make an ephemeral key (GA). A browser opens sessions with it, and never sees the API key."""
    body = body or ClientSecretCreate()
    patch = body.session.model_dump(exclude_unset=True) if body.session else {"type": "transcription"}
    value, expires_at, session = _ephemeral(state, "ga", patch, body.expires_after.seconds, "session")
    return ClientSecret(value=value, expires_at=expires_at, session=session)


@router.post("/v1/realtime/transcription_sessions", tags=["Realtime"])
async def create_transcription_session(state: State, body: BetaSession | None = None) -> dict[str, Any]:
    """Make a transcription session and an ephemeral key for it (beta)."""
    body = body or BetaSession()
    patch = {"input_audio_transcription": {}} | body.model_dump(exclude_unset=True)
    seconds = (body.client_secret or ClientSecretRequest()).expires_at.seconds
    value, expires_at, session = _ephemeral(state, "beta", patch, seconds, "")
    return session | {
        "modalities": body.modalities or ["audio", "text"],
        "client_secret": {"value": value, "expires_at": expires_at},
    }


def _ephemeral(
    state: ServerState, name: DialectName, patch: Mapping[str, Any], seconds: int, path: str
) -> tuple[str, int, dict[str, Any]]:
    dialect = state.dialects[name]
    config = dialect.update(SessionConfig(), patch, path)
    state.check_room()  # a key that opens no session would only be tried
    if config.transcription:
        state.scheduler.prepare(config.transcription.model)
    ephemeral = EphemeralKey(name, patch, int(time.time()) + seconds)
    # No session runs yet, so none has an end: the live service answers 0 here too.
    return state.authenticator.mint(ephemeral), ephemeral.expires_at, dialect.session_object(new_id("sess"), 0, config)


# The socket


@router.websocket("/v1/realtime")
@router.websocket("/openai/v1/realtime")
async def realtime(websocket: WebSocket) -> None:
    """Open a transcription session. As at OpenAI, whatever is wrong with the request is told after the upgrade."""
    state: ServerState = websocket.app.state.server
    subprotocols: list[str] = websocket.scope["subprotocols"]
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in subprotocols else None)
    transport = WebSocketTransport(websocket)
    try:
        ephemeral = state.authenticator.check(request_key(websocket.headers, subprotocols))
        if "call_id" in websocket.query_params:
            await attend_call(state, transport, websocket.query_params["call_id"], ephemeral)
            return
        dialect = choose_dialect(state, websocket.headers, subprotocols, ephemeral)
        config = initial_config(state.models, websocket.query_params, dialect, ephemeral)
        state.check_room()
    except AuricleError as error:
        await _refuse(state, transport, error)
        return
    connection = connect(state, transport, dialect, config)
    try:
        await connection.run()
    finally:
        state.connections.discard(connection)


async def _refuse(state: ServerState, transport: WebSocketTransport, error: AuricleError) -> None:
    """Tell the client why it gets no session, and close. Also told to the log: such a client often only tries again."""
    code = {401: 3000, 503: 1013}.get(error.status, 4000)
    logger.info("session refused", extra={"error": error.code, "code": code})
    for message in state.dialects["ga"].serialize(ErrorEvent.of(error), new_id):  # the same in both dialects
        await transport.send(message)
    await transport.close(code, error.type + (f".{error.code}" if error.code else ""))

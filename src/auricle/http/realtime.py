"""The routes of the Realtime API: the socket, and the endpoints that make ephemeral keys for it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response, WebSocket
from fastapi.routing import APIRoute
from pydantic import Field
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from auricle.connection import Connection
from auricle.errors import AuricleError, ClientError, Unavailable
from auricle.http.auth import EphemeralKey
from auricle.http.state import ServerState
from auricle.ids import new_id
from auricle.protocol.beta import BetaSession, ClientSecretRequest
from auricle.protocol.config import ModelDirectory, SessionConfig, Setting, Transcription
from auricle.protocol.dialect import Dialect, DialectName
from auricle.protocol.events import ErrorDetail, ErrorEvent
from auricle.protocol.ga import GaSession
from auricle.protocol.validation import one_of
from auricle.session.session import Session
from auricle.transports.websocket import WebSocketTransport

MAX_BODY_BYTES = 1024 * 1024
"""The largest body that a route here reads."""


class _StrictRequest(Request):
    """A request whose JSON is read as the socket's is: no NaN, and no half surrogates, which no answer could repeat."""

    _whole_body: bytes | None = None

    async def body(self) -> bytes:
        if self._whole_body is None:
            body = b""
            async for chunk in self.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    # The one kind of error that FastAPI lets through from here.
                    raise HTTPException(413, f"The request body is over {MAX_BODY_BYTES // 1024**2} MiB.")
            self._whole_body = body
        return self._whole_body

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class _KeyedRoute(APIRoute):
    """A route that wants an API key, and looks at it before it reads anything else of a request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_to_key(request: Request) -> Response:
            checked_key(request)
            return await answer(_StrictRequest(request.scope, request.receive))

        return answer_to_key


logger = logging.getLogger(__name__)
router = APIRouter(route_class=_KeyedRoute)

_SUBPROTOCOL = "realtime"
_SUBPROTOCOL_KEY = "openai-insecure-api-key."
_SUBPROTOCOL_BETA = "openai-beta.realtime-v1"


def request_key(headers: Headers, subprotocols: Sequence[str] = ()) -> str | None:
    """The key that a request shows: in `Authorization`, in Azure's `api-key`, or in a browser's subprotocols."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if "api-key" in headers:
        return headers["api-key"]
    for subprotocol in subprotocols:
        if subprotocol.startswith(_SUBPROTOCOL_KEY):
            return subprotocol.removeprefix(_SUBPROTOCOL_KEY)
    return None


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


def server_state(request: Request) -> ServerState:
    """The parts of the running server, for a route."""
    state: ServerState = request.app.state.server
    return state


def checked_key(request: Request) -> None:
    """Refuse a request without a valid API key. An ephemeral key is no API key: it can't make others."""
    key = request_key(request.headers)
    if server_state(request).authenticator.check(key) is not None:
        raise ClientError("invalid_api_key", "An ephemeral key opens sessions only; use an API key here.", status=401)


State = Annotated[ServerState, Depends(server_state)]


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
    await websocket.accept(_SUBPROTOCOL if _SUBPROTOCOL in subprotocols else None)
    transport = WebSocketTransport(websocket)
    try:
        ephemeral = state.authenticator.check(request_key(websocket.headers, subprotocols))
        dialect = _choose_dialect(state, websocket, ephemeral)
        config = _initial_config(state.models, websocket, dialect, ephemeral)
        state.check_room()
    except AuricleError as error:
        await _refuse(transport, error)
        return
    expires_at = int(time.time() + state.session_limits.max_session_s)
    session = Session(new_id("sess"), expires_at, config, state.session_limits, new_id)
    connection = Connection(transport, session, dialect, state.scheduler, state.connection_limits, new_id)
    state.connections.add(connection)
    try:
        await connection.run()
    finally:
        state.connections.discard(connection)


def _choose_dialect(state: ServerState, websocket: WebSocket, ephemeral: EphemeralKey | None) -> Dialect:
    """Beta if the header, a subprotocol or the ephemeral key says so, else GA. Raises ClientError: they contradict."""
    asks_for_beta = (
        "realtime=v1" in websocket.headers.get("openai-beta", "")
        or _SUBPROTOCOL_BETA in websocket.scope["subprotocols"]
    )
    if asks_for_beta and ephemeral and ephemeral.dialect == "ga":
        message = "API version mismatch. You cannot start a Realtime beta session with a GA client secret."
        raise ClientError("api_version_mismatch", message)
    return state.dialects["beta" if asks_for_beta else ephemeral.dialect if ephemeral else "ga"]


def _initial_config(
    models: ModelDirectory, websocket: WebSocket, dialect: Dialect, ephemeral: EphemeralKey | None
) -> SessionConfig:
    """The settings a session begins with. Raises ClientError: the query asks for something else."""
    if ephemeral is not None:
        return dialect.update(SessionConfig(), ephemeral.settings)
    intent, model = websocket.query_params.get("intent"), websocket.query_params.get("model")
    if intent is None and model is None:
        message = "You must provide a model parameter, for example ?intent=transcription&model=" + models.default
        raise ClientError("missing_model", message)
    if intent not in (None, "transcription"):
        raise ClientError(
            "invalid_value", f"Invalid value: '{intent}'. Supported values are: 'transcription'.", "intent"
        )
    if model is None:
        return SessionConfig()
    if models.find(model) is None:
        message = f'Model "{model}" is not supported in transcription mode. Supported are: {one_of(models.names)}.'
        raise ClientError("invalid_model", message, "model")
    return SessionConfig(transcription=Transcription(model=model)).with_default_turn_detection()


async def _refuse(transport: WebSocketTransport, error: AuricleError) -> None:
    """Tell the client why it gets no session, and close. Also told to the log: such a client often only tries again."""
    if isinstance(error, ClientError):
        detail = ErrorEvent.of(error).error
        code = 3000 if error.status == 401 else 4000
    else:
        assert isinstance(error, Unavailable)
        detail = ErrorDetail(type=error.type, code=error.code, message=str(error), param=None, event_id=None)
        code = 1013
    logger.info("session refused", extra={"error": detail.code, "code": code})
    await transport.send(json.dumps({"type": "error", "event_id": new_id("event"), "error": detail.model_dump()}))
    await transport.close(code, detail.type + (f".{detail.code}" if detail.code else ""))

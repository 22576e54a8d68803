"""Calls: sessions over WebRTC. The routes that begin and end them, and the sockets beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from auricle.errors import ClientError, Unavailable
from auricle.http.auth import EphemeralKey
from auricle.http.opening import choose_dialect, connect, initial_config
from auricle.http.requests import MAX_BODY_BYTES, EphemeralKeyedRoute, State, read_form, shown_key
from auricle.http.state import Call, ServerState
from auricle.ids import new_id
from auricle.protocol.config import SessionConfig
from auricle.protocol.dialect import DialectName
from auricle.transports.base import Transport
from auricle.transports.call import CallTransport

if TYPE_CHECKING:
    from auricle.transports.webrtc import WebRtcTransport

router = APIRouter(route_class=EphemeralKeyedRoute, tags=["Calls"])

_SDP = "application/sdp"
_SDP_ANSWER: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The SDP answer",
        "content": {_SDP: {"schema": {"type": "string"}}},
        "headers": {"Location": {"description": "The call", "schema": {"type": "string"}}},
    }
}
_SDP_BODY = {_SDP: {"schema": {"type": "string", "description": "The SDP offer"}}}
_FORM_BODY = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["sdp"],
            "additionalProperties": False,
            "properties": {
                "sdp": {"type": "string", "description": "The SDP offer"},
                "session": {"type": "string", "description": "The session's settings as JSON, as in `session.update`"},
            },
        }
    }
}


def _open_api(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/v1/realtime/calls",
    status_code=201,
    response_class=Response,
    responses=_SDP_ANSWER,
    openapi_extra=_open_api(_FORM_BODY | _SDP_BODY),
)
@router.post("/openai/v1/realtime/calls", include_in_schema=False)
async def create_call(request: Request, state: State) -> Response:
    """Begin a session over WebRTC (GA). Audio comes on a track, events go over a data channel."""
    offer, settings = await _read_offer(request)
    return await _begin(request, state, "ga", offer, settings, {"intent": "transcription", **request.query_params})


@router.post(
    "/v1/realtime",
    status_code=201,
    response_class=Response,
    responses=_SDP_ANSWER,
    openapi_extra=_open_api(_SDP_BODY),
)
@router.post("/openai/v1/realtime", include_in_schema=False)
async def create_beta_call(request: Request, state: State) -> Response:
    """Begin a session over WebRTC (beta), with `?intent=transcription` or `?model=`."""
    offer, settings = await _read_offer(request)
    return await _begin(request, state, "beta", offer, settings, request.query_params)


@router.post("/v1/realtime/calls/{call_id}/hangup", response_class=Response)
@router.post("/openai/v1/realtime/calls/{call_id}/hangup", include_in_schema=False)
async def hang_up_call(state: State, call_id: str) -> Response:
    """End a call, which is free then. Any key that opens sessions may, since nobody can guess a call's id."""
    call = _find(state, call_id)
    call.connection.hang_up()
    await asyncio.wait([call.task])
    return Response()


async def attend_call(state: ServerState, transport: Transport, call_id: str, ephemeral: EphemeralKey | None) -> None:
    """Serve a sideband socket until it or its call ends. Raises ClientError: it may not, or there is no such call."""
    if ephemeral is not None:
        message = "An ephemeral key opens sessions only; a sideband socket needs an API key."
        raise ClientError("invalid_api_key", message, status=401)
    call = _find(state, call_id)
    await call.transport.attend(transport, call.connection.introduce())


def _find(state: ServerState, call_id: str) -> Call:
    if call_id not in state.calls:
        raise ClientError("call_not_found", f"There is no call '{call_id}'; it may have ended.", "call_id", status=404)
    return state.calls[call_id]


async def _begin(
    request: Request,
    state: ServerState,
    path_dialect: DialectName,
    offer: str,
    settings: Mapping[str, Any] | None,
    query: Mapping[str, str],
) -> Response:
    """Answer an offer and run the call. Raises ClientError or Unavailable."""
    if state.ice_network is None:
        raise ClientError("webrtc_disabled", "This server takes no WebRTC calls; use its socket.", status=404)
    ephemeral = shown_key(request)
    dialect = choose_dialect(state, request.headers, (), ephemeral, path_dialect)
    config = (
        SessionConfig()
        if settings is not None and ephemeral is None
        else initial_config(state.models, query, dialect, ephemeral)
    )
    if settings is not None:
        config = dialect.update(config, settings)
    state.check_room()
    peer, answer = await (await asyncio.to_thread(_webrtc)).answer(offer, state.ice_network)
    try:
        state.check_room()  # others may have come meanwhile
    except Unavailable:
        await peer.close(1013, "")
        raise
    transport = CallTransport(peer, state.connection_limits.max_outbox_bytes)
    connection = connect(state, transport, dialect, config)
    call_id = new_id("rtc")

    async def run() -> None:
        try:
            await connection.run()
        finally:
            state.connections.discard(connection)
            del state.calls[call_id]
            # In case the goodbye took too long to come to it, and for a sideband that came meanwhile.
            await transport.close(1011, "")

    state.calls[call_id] = Call(connection, transport, asyncio.get_running_loop().create_task(run()))
    return Response(answer, 201, {"Location": f"/v1/realtime/calls/{call_id}"}, _SDP)


def _webrtc() -> type[WebRtcTransport]:
    """Most servers never take a call. The library takes a second to load, for which other sessions must not wait."""
    from auricle.transports.webrtc import WebRtcTransport

    return WebRtcTransport


async def _read_offer(request: Request) -> tuple[str, Mapping[str, Any] | None]:
    """The SDP offer of a request, to its last byte, and the settings that come with it. Raises ClientError."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == _SDP:
        try:
            return _text(await request.body(), "sdp"), None
        except ClientDisconnect:
            raise ClientError(None, "The client closed the request.", status=499) from None
    if content_type != "multipart/form-data":
        message = f"The request body must be an SDP offer ('{_SDP}') or a form ('multipart/form-data') with one."
        raise ClientError("invalid_content_type", message)
    async with read_form(request, MAX_BODY_BYTES, max_fields=10) as form:
        # Clients may name a part as if it were a file.
        parts = {
            name: _text(await part.read(), name) if isinstance(part, UploadFile) else part
            for name, part in form.multi_items()
        }
    if unknown := parts.keys() - {"sdp", "session"}:
        name = min(unknown)
        raise ClientError("unknown_parameter", f"Unknown parameter: '{name}'.", name)
    if "sdp" not in parts:
        raise ClientError("missing_required_parameter", "Missing required parameter: 'sdp'.", "sdp")
    return parts["sdp"], _settings(parts["session"]) if "session" in parts else None


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ClientError("invalid_value", f"Invalid '{name}': expected UTF-8.", name) from None


def _settings(text: str) -> Mapping[str, Any]:
    try:
        settings = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ClientError(
            "invalid_json", f"Invalid 'session': failed to parse JSON value. {error}", "session"
        ) from None
    if not isinstance(settings, dict):
        raise ClientError("invalid_type", "Invalid type for 'session': expected an object.", "session")
    return settings

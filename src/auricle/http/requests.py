"""How a request is read, and whose key it shows."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import FormData, Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from auricle.errors import ClientError
from auricle.http.auth import EphemeralKey
from auricle.http.state import ServerState

MAX_BODY_BYTES = 1024 * 1024
"""The largest body that a route reads."""

_SUBPROTOCOL_KEY = "openai-insecure-api-key."


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


def server_state(request: Request) -> ServerState:
    """The parts of the running server, for a route."""
    state: ServerState = request.app.state.server
    return state


def shown_key(request: Request) -> EphemeralKey | None:
    """What the request's key carries if it is an ephemeral one. Raises ClientError: it shows no valid key."""
    return server_state(request).authenticator.check(request_key(request.headers))


def _check_api_key(request: Request) -> None:
    """Refuse a request without a valid API key. An ephemeral key is no API key: it can't make others."""
    if shown_key(request) is not None:
        raise ClientError("invalid_api_key", "An ephemeral key opens sessions only; use an API key here.", status=401)


State = Annotated[ServerState, Depends(server_state)]


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


@asynccontextmanager
async def read_form(
    request: Request, max_bytes: int, max_fields: int, max_field_bytes: int = MAX_BODY_BYTES
) -> AsyncIterator[FormData]:
    """The parts of a form, their files on disk where they are large; they are gone when the block ends.

    Raises ClientError: it is no form of parts, broken, or larger than `max_bytes` (status 413); it has more than
    `max_fields`, or one without a filename of more than `max_field_bytes`; or the client leaves (status 499).
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        message = "The request body must be a form, sent with 'Content-Type: multipart/form-data'."
        raise ClientError("invalid_content_type", message)
    chunks = _limited(request.stream(), max_bytes)
    parser = MultiPartParser(
        request.headers, chunks, max_files=10, max_fields=max_fields, max_part_size=max_field_bytes
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: the header names no boundary
        raise ClientError("invalid_form", f"The form can't be read: {error}") from None
    except ClientDisconnect:
        raise ClientError(None, "The client closed the request.", status=499) from None
    try:
        yield form
    finally:
        await form.close()


async def _limited(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise ClientError(None, f"Maximum content size limit ({max_bytes}) exceeded.", status=413)
        yield chunk


class KeyedRoute(APIRoute):
    """A route that wants an API key, and looks at it before it reads anything else of a request."""

    check_key: Callable[[Request], object] = staticmethod(_check_api_key)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_to_key(request: Request) -> Response:
            self.check_key(request)
            return await answer(_StrictRequest(request.scope, request.receive))

        return answer_to_key


class EphemeralKeyedRoute(KeyedRoute):
    """A route that takes ephemeral keys too."""

    check_key = staticmethod(shown_key)

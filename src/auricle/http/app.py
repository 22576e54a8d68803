"""Builds the web application and everything in it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from auricle import __version__
from auricle.connection import ConnectionLimits
from auricle.engines.registry import model_directory, turn_judge
from auricle.engines.silero import SileroDetector
from auricle.errors import AuricleError, ClientError, Unavailable
from auricle.http import realtime, service
from auricle.http.auth import Authenticator
from auricle.http.state import ServerState
from auricle.protocol.beta import BetaDialect
from auricle.protocol.ga import GaDialect
from auricle.protocol.validation import client_error
from auricle.scheduler import BatchScheduler
from auricle.session.session import SessionLimits
from auricle.settings import Settings
from auricle.worker import Worker, WorkerSpec

DESCRIPTION = """Realtime speech-to-text for clients of OpenAI's Realtime transcription API.

The socket is `/v1/realtime?intent=transcription`; its events are described in the repository under `docs/protocol.md`.
"""


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    """The path of the field that is wrong."""
    code: str | None


class ErrorResponse(BaseModel):
    """OpenAI's envelope around an error."""

    error: ErrorBody


def create_app(settings: Settings) -> FastAPI:
    """The server as an ASGI application; `Server` runs it. Raises ValueError: a setting is wrong."""
    models = model_directory(settings.model, settings.aliases)
    worker = Worker(WorkerSpec(models, settings.threads, settings.decode_timeout_s))
    detector = SileroDetector.embedded()
    secret = settings.signing_secret
    state = ServerState(
        authenticator=Authenticator(settings.all_api_keys, secret.get_secret_value() if secret else None),
        models=models,
        scheduler=BatchScheduler(detector, worker, settings.max_batch, turn_judge()),
        session_limits=SessionLimits(
            max_session_s=settings.max_session_s, max_item_s=settings.max_item_s, kept_audio_s=settings.kept_audio_s
        ),
        connection_limits=ConnectionLimits(
            max_session_s=settings.max_session_s,
            max_backlog_s=settings.max_backlog_s,
            max_outbox_bytes=settings.max_outbox_bytes,
        ),
        max_sessions=settings.max_sessions,
        max_lag_s=settings.max_lag_s,
        dialects={"ga": GaDialect(models), "beta": BetaDialect(models)},
    )

    app = FastAPIOffline(
        title="Auricle",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        strict_content_type=False,  # a body without a Content-Type is read as JSON
        responses={"4XX": {"model": ErrorResponse, "description": "What is wrong with the request"}},
    )
    app.state.server = state
    app.include_router(realtime.router)
    app.include_router(service.keyed_router)
    app.include_router(service.router)
    app.add_exception_handler(AuricleError, _on_auricle_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    return app


def error_response(error: AuricleError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that failed."""
    body = ErrorResponse(error=ErrorBody(message=error.message, type=error.type, param=error.param, code=error.code))
    return JSONResponse(body.model_dump(), error.status, headers)


async def _on_auricle_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AuricleError)
    return error_response(error, {"Retry-After": "5"} if isinstance(error, Unavailable) else None)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    complaints = [{**complaint, "loc": complaint["loc"][1:]} for complaint in error.errors()]  # without "body"
    if complaints[0]["type"] == "json_invalid":
        return error_response(ClientError("invalid_json", "The request body is not valid JSON."))
    if isinstance(complaints[0]["input"], bytes):  # which FastAPI leaves unread where it is said to be something else
        message = "The request body must be JSON, sent with 'Content-Type: application/json'."
        return error_response(ClientError("invalid_type", message))
    return error_response(client_error(complaints))  # type: ignore[arg-type]


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    # The web framework logs it with its traceback.
    return error_response(AuricleError("The server had an error while processing your request."))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "unknown_url" if error.status_code == 404 else None
    message = f"{error.detail} ({request.method} {request.url.path})"
    return error_response(ClientError(code, message, status=error.status_code), dict(error.headers or {}))

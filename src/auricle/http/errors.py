"""What the client is told over HTTP when something is wrong: OpenAI's envelope around an error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from auricle.errors import AuricleError, ClientError, Unavailable
from auricle.protocol.validation import client_error


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


def answer_errors(app: FastAPI) -> None:
    """Have `app` answer all errors in the envelope."""
    app.add_exception_handler(AuricleError, _on_auricle_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)


def error_body(error: AuricleError) -> dict[str, Any]:
    """An error in the envelope."""
    body = ErrorBody(message=error.message, type=error.type, param=error.param, code=error.code)
    return ErrorResponse(error=body).model_dump()


def error_response(error: AuricleError, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that failed."""
    return JSONResponse(error_body(error), error.status, headers)


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

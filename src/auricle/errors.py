"""The error tree. Each error knows what the client is told.

- AuricleError
    - ClientError: the client's fault. An `error` event or an HTTP 4xx; the session goes on.
    - EngineError: a job failed. Its item ends with `…transcription.failed`; the session goes on.
    - Unavailable: no room now. HTTP 503, or close code 1013.

Anything else is a bug: logged once with its traceback, close code 1011.
"""

from __future__ import annotations


def _shortened(text: str, max_length: int) -> str:
    """A client's own words come back in errors, and need not all come back."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


class AuricleError(Exception):
    """Base of all errors that are expected. Its attributes are the fields of OpenAI's error object."""

    type = "server_error"
    code: str | None = None
    param: str | None = None
    """The path of the field that is wrong."""
    event_id: str | None = None
    """The id that the client gave to the faulty event, if any."""
    status = 500
    """HTTP status of the answer where the request was HTTP."""

    @property
    def message(self) -> str:
        return str(self)


class ClientError(AuricleError):
    """The client asked for something wrong."""

    type = "invalid_request_error"

    def __init__(
        self,
        code: str | None,
        message: str,
        param: str | None = None,
        *,
        event_id: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(_shortened(message, 2_000))
        self.code = code
        self.param = None if param is None else _shortened(param, 500)
        self.event_id = event_id
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is pickled by its message alone; this one comes out of other processes whole.
        return _rebuilt, (self.code, self.message, self.param, self.event_id, self.status)


def _rebuilt(code: str | None, message: str, param: str | None, event_id: str | None, status: int) -> ClientError:
    return ClientError(code, message, param, event_id=event_id, status=status)


class EngineError(AuricleError):
    """A model failed on a job. The message may be shown to the client."""

    code = "transcription_error"


class ModelUnavailable(EngineError):
    """A model that a session or request names can't be loaded. `param` is the wire's path to the name."""

    code = "model_unavailable"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unavailable(AuricleError):
    """The server can't take this on now; the client should come back later."""

    code = "server_overloaded"
    status = 503

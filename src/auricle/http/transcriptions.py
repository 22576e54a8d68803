"""`POST /v1/audio/transcriptions` and `/translations`: a whole recording to text, as OpenAI's API has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile

from auricle.audio.formats import SAMPLE_RATE
from auricle.errors import AuricleError, ClientError, Unavailable
from auricle.http.errors import error_body
from auricle.http.requests import KeyedRoute, State, read_form
from auricle.http.state import ServerState
from auricle.protocol.config import (
    MAX_KEYWORDS,
    MAX_PROMPT_LENGTH,
    ModelDirectory,
    ServerVad,
    Setting,
    Transcription,
    Translation,
)
from auricle.protocol.events import LogProb
from auricle.protocol.validation import validated
from auricle.recordings import Heard, Recording
from auricle.session.transcript import usage
from auricle.transcribe import DEFAULT_TURN_DETECTION, Segment
from auricle.transcript_formats import BY_DEFAULT, SUBTITLES, Granularity, plain, srt, verbose_json, vtt

router = APIRouter(route_class=KeyedRoute)

R = TypeVar("R")
Pieces = AsyncGenerator[Segment | Heard, None]


def _chunking(value: object) -> object:
    """`auto` and nothing mean our own way; a settings object may come as JSON."""
    if value in (None, "auto"):
        return DEFAULT_TURN_DETECTION
    return _parsed(value) if isinstance(value, str) else value


class TranscriptionRequest(Setting):
    """The form's fields besides the file. Numbers and booleans come as text."""

    model_config = ConfigDict(strict=False, extra="ignore")

    model: str = Field("", max_length=256, description="Empty: the server's default model")
    language: str | None = Field(None, max_length=256, description="ISO 639-1, such as `en`")
    languages: list[str] | None = Field(None, min_length=1, max_length=100)
    prompt: str | None = Field(None, max_length=MAX_PROMPT_LENGTH)
    keywords: list[str] | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(0, ge=0, le=1, description="Without effect: the likeliest text is taken")
    timestamp_granularities: list[Granularity] | None = None
    include: list[Literal["logprobs"]] | None = None
    stream: bool = False
    chunking_strategy: Annotated[ServerVad, BeforeValidator(_chunking)] = DEFAULT_TURN_DETECTION

    def options(self, kind: type[Transcription]) -> Transcription:
        """What the engine is told. Raises ClientError."""
        names = ("model", "language", "languages", "prompt", "keywords")
        return validated(TypeAdapter(kind), {name: getattr(self, name) for name in names})


_REQUEST = TypeAdapter(TranscriptionRequest)
_FORM_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "model": {"type": "string"},
                        "language": {"type": "string"},
                        "languages[]": {"type": "array", "items": {"type": "string"}},
                        "prompt": {"type": "string"},
                        "keywords[]": {"type": "array", "items": {"type": "string"}},
                        "response_format": {"enum": ["json", "text", "srt", "verbose_json", "vtt"]},
                        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
                        "timestamp_granularities[]": {"type": "array", "items": {"enum": ["word", "segment"]}},
                        "include[]": {"type": "array", "items": {"enum": ["logprobs"]}},
                        "stream": {"type": "boolean"},
                        "chunking_strategy": {"type": "string"},
                    },
                }
            }
        },
    }
}


_ROUTE: dict[str, Any] = {
    "tags": ["Audio"],
    "openapi_extra": _FORM_SCHEMA,
    "response_class": Response,
    "responses": {
        200: {"content": {"application/json": {}, "text/plain": {}, "text/vtt": {}, "text/event-stream": {}}}
    },
}


@router.post("/v1/audio/transcriptions", **_ROUTE)
async def create_transcription(state: State, request: Request) -> Response:
    """Turn a recording of any format into text."""
    return await _transcribe(state, request, Transcription)


@router.post("/v1/audio/translations", **_ROUTE)
async def create_translation(state: State, request: Request) -> Response:
    """Turn a recording of any format and language into English text."""
    return await _transcribe(state, request, Translation)


async def _transcribe(state: ServerState, request: Request, kind: type[Transcription]) -> Response:
    if state.is_draining:
        raise Unavailable("The server is shutting down.")
    with state.recordings.place():
        return await _in_place(state, request, kind)


async def _in_place(state: ServerState, request: Request, kind: type[Transcription]) -> Response:
    async with read_form(request, state.max_file_bytes, _MAX_FIELDS, _MAX_FIELD_BYTES) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            message = "Missing required parameter: 'file', a part of the form with a filename."
            raise ClientError("missing_required_parameter", message, "file")
        wanted = validated(_REQUEST, _fields(form))
        options = state.models.resolve(wanted.options(kind), "")
        if kind is Translation:
            state.models.check_translation(options.model, "model")
        _check(wanted)
        with_words = _with_words(wanted, state.models, options.model)
        pieces = state.recordings.transcribe(file.file, Recording(options, wanted.chunking_strategy, with_words))
        if wanted.stream:
            return await _stream(request, pieces, wanted, options)
        segments, seconds = await _unless_gone(request, _collect(pieces))
    return _answer(segments, seconds, wanted, options)


# What is asked for


def _fields(form: FormData) -> dict[str, Any]:
    """The form's text fields: `name[]` and the names of lists gather values, `name[key]` is a field of an object."""
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile) or not value:
            continue
        name, bracket, inner = key.partition("[")
        inner = inner.removesuffix("]")
        if inner:
            fields[name] = {**(fields[name] if isinstance(fields.get(name), dict) else {}), inner: _parsed(value)}
        elif bracket or name in _LISTS:
            fields[name] = [*(fields[name] if isinstance(fields.get(name), list) else ()), value]
        else:
            fields[name] = value
    return fields


_MAX_FIELDS = MAX_KEYWORDS + 200
_MAX_FIELD_BYTES = 4 * MAX_PROMPT_LENGTH
_LISTS = frozenset({"languages", "keywords", "include", "timestamp_granularities"})


def _parsed(text: str) -> object:
    """A number, boolean or object in JSON; any other text as it is."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


def _check(wanted: TranscriptionRequest) -> None:
    """Raises ClientError: fields contradict each other."""
    if wanted.stream and wanted.response_format not in ("json", "text"):
        raise _contradiction("stream", "'stream' goes with the response formats 'json' and 'text'", wanted)
    if wanted.include and wanted.response_format != "json":
        raise _contradiction("include", "'include' goes with the response format 'json'", wanted)
    if wanted.timestamp_granularities and wanted.response_format != "verbose_json":
        message = "'timestamp_granularities' goes with the response format 'verbose_json'"
        raise _contradiction("timestamp_granularities", message, wanted)


def _with_words(wanted: TranscriptionRequest, models: ModelDirectory, model: str) -> bool:
    """Whether it is to be found out when words were said: where that is asked for, and for subtitles where it can be.

    Raises ClientError: something is asked for that the model can't tell.
    """
    if wanted.include:
        models.check_logprobs(model, "include")
    if "word" in (wanted.timestamp_granularities or ()):
        models.check_word_times(model, "timestamp_granularities")
        return True
    return wanted.response_format in SUBTITLES and models.has_word_times(model)


def _contradiction(param: str, message: str, wanted: TranscriptionRequest) -> ClientError:
    return ClientError("invalid_value", f"{message}, not with '{wanted.response_format}'.", param)


# What is answered


async def _collect(pieces: Pieces) -> tuple[list[Segment], float]:
    """All segments of a recording, and its length in seconds."""
    segments, seconds = list[Segment](), 0.0
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Segment):
                segments.append(piece)
            else:
                seconds = piece.seconds
    return segments, seconds


async def _unless_gone(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """The result of `work`, which is given up when the client leaves. Nobody reads the answer then."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientError(None, "The client closed the request.", status=499)
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _tokens(segments: Sequence[Segment]) -> list[LogProb]:
    """The tokens of a text: those of its segments, with a space between."""
    tokens = list[LogProb]()
    for segment in segments:
        for index, token in enumerate(segment.tokens):
            text = token.token if index else " " * bool(tokens) + token.token.lstrip()
            tokens.append(token if text == token.token else _renamed(token, text))
    return tokens


def _renamed(token: LogProb, text: str) -> LogProb:
    return LogProb(token=text, logprob=token.logprob, bytes=list(text.encode()))


def _usage(segments: Sequence[Segment], seconds: float, options: Transcription) -> dict[str, Any]:
    return usage(options, round(seconds * SAMPLE_RATE), _tokens(segments)).model_dump()


def _answer(
    segments: Sequence[Segment], seconds: float, wanted: TranscriptionRequest, options: Transcription
) -> Response:
    match wanted.response_format:
        case "text":
            return PlainTextResponse(plain(segments) + "\n")
        case "srt":
            return PlainTextResponse(srt(segments))
        case "vtt":
            return Response(vtt(segments), media_type="text/vtt")
        case "verbose_json":
            granularities = wanted.timestamp_granularities or BY_DEFAULT
            translated = isinstance(options, Translation)
            return JSONResponse(verbose_json(segments, seconds, options.language, granularities, translated=translated))
    body: dict[str, Any] = {"text": plain(segments)}
    if wanted.include:
        body["logprobs"] = [token.model_dump() for token in _tokens(segments)]
    return JSONResponse(body | {"usage": _usage(segments, seconds, options)})


async def _stream(request: Request, pieces: Pieces, wanted: TranscriptionRequest, options: Transcription) -> Response:
    """Server-sent events. What is wrong before the first of them is still an answer of its own."""
    first = await _unless_gone(request, _next(pieces))

    async def events() -> AsyncIterator[str]:
        segments, seconds = list[Segment](), 0.0
        try:
            async with aclosing(pieces):
                async for piece in _chained(first, pieces):
                    if isinstance(piece, Heard):
                        seconds = piece.seconds
                        continue
                    segments.append(piece)
                    yield _event(_delta(segments, wanted))
            yield _event(_done(segments, seconds, wanted, options))
        except AuricleError as error:
            yield "event: error\n" + _event(error_body(error))

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _next(pieces: Pieces) -> Segment | Heard:
    return await anext(pieces)


async def _chained(first: Segment | Heard, rest: Pieces) -> AsyncIterator[Segment | Heard]:
    yield first
    async for piece in rest:
        yield piece


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _delta(segments: Sequence[Segment], wanted: TranscriptionRequest) -> dict[str, Any]:
    """What the last segment adds."""
    body: dict[str, Any] = {"type": "transcript.text.delta", "delta": " " * (len(segments) > 1) + segments[-1].text}
    if wanted.include:
        own = len(segments[-1].tokens)
        body["logprobs"] = [token.model_dump() for token in _tokens(segments[-2:])[-own:]]
    return body


def _done(
    segments: Sequence[Segment], seconds: float, wanted: TranscriptionRequest, options: Transcription
) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "transcript.text.done", "text": plain(segments)}
    if wanted.include:
        body["logprobs"] = [token.model_dump() for token in _tokens(segments)]
    return body | {"usage": _usage(segments, seconds, options)}

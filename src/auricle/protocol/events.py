"""Client and server events, shared by both dialects.

Field names are the wire's own. What a dialect writes in its own way (the session object, renamed events) is in
`ga.py` and `beta.py`.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from auricle.errors import AuricleError
from auricle.protocol.config import SessionConfig

MAX_EVENT_ID_LENGTH = 512
MAX_APPEND_BYTES = 15 * 1024 * 1024


class ClientEventBase(BaseModel):
    """Base of what a client can say."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    event_id: str | None = Field(None, max_length=MAX_EVENT_ID_LENGTH)
    """Chosen by the client; comes back in the error that the event causes."""


def _from_base64(audio: Any) -> Any:
    if not isinstance(audio, str):
        return audio
    if len(audio) // 4 * 3 > MAX_APPEND_BYTES:
        message = f"Invalid 'audio': at most {MAX_APPEND_BYTES // 1024**2} MiB of audio are taken at a time."
        raise PydanticCustomError("string_above_max_length", message)
    expected = "Invalid 'audio'. Expected base64-encoded audio bytes in the session's format"
    try:
        data = binascii.a2b_base64(audio, strict_mode=True)
    except ValueError:  # also what is not ASCII
        raise PydanticCustomError("invalid_value", f"{expected} but got an invalid value.") from None
    if not data:
        raise PydanticCustomError("invalid_value", f"{expected} but got empty bytes.")
    return data


class Append(ClientEventBase):
    """More audio."""

    type: Literal["input_audio_buffer.append"] = "input_audio_buffer.append"
    audio: Annotated[bytes, BeforeValidator(_from_base64)]
    """Audio in the session's format; base64 on the wire."""


class Commit(ClientEventBase):
    """Make an item of the buffered audio."""

    type: Literal["input_audio_buffer.commit"] = "input_audio_buffer.commit"


class Clear(ClientEventBase):
    """Drop the buffered audio."""

    type: Literal["input_audio_buffer.clear"] = "input_audio_buffer.clear"


class RetrieveItem(ClientEventBase):
    """Ask for an item."""

    type: Literal["conversation.item.retrieve"] = "conversation.item.retrieve"
    item_id: str = Field(max_length=MAX_EVENT_ID_LENGTH)


class DeleteItem(ClientEventBase):
    """Forget an item."""

    type: Literal["conversation.item.delete"] = "conversation.item.delete"
    item_id: str = Field(max_length=MAX_EVENT_ID_LENGTH)


class UpdateSession(ClientEventBase):
    """Change the session's settings; on the wire `session.update` or `transcription_session.update`."""

    apply: Callable[[SessionConfig], SessionConfig]
    """The settings afterwards, made by the dialect. Raises ClientError, and then nothing changes."""
    model_param: str | None = None
    """The wire's path to the model's name."""


BufferEvent = Append | Commit | Clear | RetrieveItem | DeleteItem
ClientEvent = BufferEvent | UpdateSession

CONVERSATION_EVENTS = frozenset(
    {
        "conversation.item.create",
        "conversation.item.truncate",
        "output_audio_buffer.clear",
        "response.cancel",
        "response.create",
    }
)
"""Events of sessions that answer; they have no meaning in a transcription session."""


class ServerEventBase(BaseModel):
    """Base of what the server says. The `event_id` is added when an event is written down."""

    model_config = ConfigDict(frozen=True)


class SessionEvent(ServerEventBase):
    """The whole state of the session's settings."""

    session_id: str
    expires_at: int
    """Unix time, seconds."""
    config: SessionConfig


class SessionCreated(SessionEvent):
    """First event of every connection."""


class SessionUpdated(SessionEvent):
    """An update was accepted."""


class SpeechStarted(ServerEventBase):
    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(ServerEventBase):
    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


class Committed(ServerEventBase):
    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


class Cleared(ServerEventBase):
    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class InputAudio(ServerEventBase):
    """The one content part of an item."""

    type: Literal["input_audio"] = "input_audio"
    transcript: str | None
    audio: str | None = Field(None, exclude_if=lambda value: value is None)
    """Base64 in the session's format; only where it was asked for."""


class Item(ServerEventBase):
    """One utterance in the conversation."""

    id: str
    type: Literal["message"] = "message"
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"
    content: tuple[InputAudio]


class ItemAdded(ServerEventBase):
    """A new item; on the wire `conversation.item.created`, or `.added` and `.done`."""

    previous_item_id: str | None
    item: Item


class ItemRetrieved(ServerEventBase):
    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: Item


class ItemDeleted(ServerEventBase):
    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class LogProb(ServerEventBase):
    token: str
    logprob: float
    bytes: list[int]
    """The token's UTF-8 bytes."""


class SpokenWord(ServerEventBase):
    """A word and when it was said: an extension."""

    word: str
    """With the punctuation that goes with it."""
    start: float
    """Seconds since the session began."""
    end: float
    logprob: float | None = Field(None, exclude_if=lambda value: value is None)


class TranscriptionDelta(ServerEventBase):
    """More text of an item. What was said in a delta is never taken back."""

    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: Literal[0] = 0
    delta: str
    logprobs: list[LogProb] | None = Field(None, exclude_if=lambda value: value is None)


class InputTokenDetails(ServerEventBase):
    text_tokens: int
    audio_tokens: int


class TokenUsage(ServerEventBase):
    """Usage as OpenAI's gpt-4o family counts it."""

    type: Literal["tokens"] = "tokens"
    total_tokens: int
    input_tokens: int
    input_token_details: InputTokenDetails
    output_tokens: int


class DurationUsage(ServerEventBase):
    """Usage as models billed by the minute count it."""

    type: Literal["duration"] = "duration"
    seconds: int


class SpokenLanguage(ServerEventBase):
    code: str
    """ISO 639-1."""


class TranscriptionCompleted(ServerEventBase):
    """The whole text of an item: all its deltas joined."""

    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: Literal[0] = 0
    transcript: str
    usage: TokenUsage | DurationUsage
    logprobs: list[LogProb] | None = Field(None, exclude_if=lambda value: value is None)
    words: list[SpokenWord] | None = Field(None, exclude_if=lambda value: value is None)
    """An extension: only where it was asked for and the times are known."""
    languages: list[SpokenLanguage] | None = Field(None, exclude_if=lambda value: value is None)
    """Those of the text, in their order; absent where the engine tells none."""


class TranscriptionError(ServerEventBase):
    type: str
    code: str | None
    message: str
    param: str | None = None


class TranscriptionFailed(ServerEventBase):
    """An item will have no text. The session goes on."""

    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: Literal[0] = 0
    error: TranscriptionError


class ErrorDetail(ServerEventBase):
    type: str
    code: str | None
    message: str
    param: str | None
    event_id: str | None
    """The id that the client gave to the event that caused the error."""


class ErrorEvent(ServerEventBase):
    """Something went wrong. The session goes on unless the connection closes right after."""

    type: Literal["error"] = "error"
    error: ErrorDetail

    @classmethod
    def of(cls, error: AuricleError, event_id: str | None = None) -> ErrorEvent:
        """The event that tells the client of an error; `event_id` is that of the client's event, if it is known."""
        detail = ErrorDetail(
            type=error.type,
            code=error.code,
            message=error.message,
            param=error.param,
            event_id=event_id or error.event_id,
        )
        return cls(error=detail)


ServerEvent = (
    SessionCreated
    | SessionUpdated
    | SpeechStarted
    | SpeechStopped
    | Committed
    | Cleared
    | ItemAdded
    | ItemRetrieved
    | ItemDeleted
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | ErrorEvent
)

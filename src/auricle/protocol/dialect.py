"""What the two dialects have in common: how text becomes an event, and an event text.

A dialect is the only thing that knows the wire's form of the session object. It has no state.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import from_json

from auricle.errors import ClientError
from auricle.protocol.config import (
    ModelDirectory,
    NoiseReduction,
    SessionConfig,
    Transcription,
    TurnDetection,
    merged,
)
from auricle.protocol.events import (
    CONVERSATION_EVENTS,
    MAX_EVENT_ID_LENGTH,
    Append,
    BufferEvent,
    Clear,
    ClientEvent,
    Commit,
    DeleteItem,
    RetrieveItem,
    ServerEvent,
    UpdateSession,
)
from auricle.protocol.validation import joined_path, one_of, validated

DialectName = Literal["ga", "beta"]

_BUFFER_EVENTS: dict[str, TypeAdapter[BufferEvent]] = {
    "input_audio_buffer.append": TypeAdapter(Append),
    "input_audio_buffer.commit": TypeAdapter(Commit),
    "input_audio_buffer.clear": TypeAdapter(Clear),
    "conversation.item.retrieve": TypeAdapter(RetrieveItem),
    "conversation.item.delete": TypeAdapter(DeleteItem),
}


class _Update(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    event_id: str | None = Field(None, max_length=MAX_EVENT_ID_LENGTH)
    session: dict[str, Any]


_UPDATE: TypeAdapter[_Update] = TypeAdapter(_Update)


class Dialect(ABC):
    """One way of writing the protocol down: events for the connection, session objects for the REST routes too."""

    name: ClassVar[DialectName]
    update_type: ClassVar[str]
    """The client event that changes settings."""
    transcription_path: ClassVar[str]
    """Where the transcription settings stand in the session object."""

    def __init__(self, models: ModelDirectory) -> None:
        self.models = models

    @abstractmethod
    def settings_object(self, config: SessionConfig) -> dict[str, Any]:
        """The settings as a client would give them in an update: turn detection only if it was ever given."""

    @abstractmethod
    def config_from(self, settings: Mapping[str, Any], path: str) -> SessionConfig:
        """The opposite of `settings_object`. `path` is where the object stands on the wire. Raises ClientError."""

    @abstractmethod
    def session_object(self, session_id: str, expires_at: int, config: SessionConfig) -> dict[str, Any]:
        """The whole session as the server tells it; `expires_at` is Unix time in seconds."""

    @abstractmethod
    def event_bodies(self, event: ServerEvent) -> list[dict[str, Any]]:
        """What is sent for an event, without `event_id`: mostly one object, for a new item perhaps two."""

    def parse(self, message: str | bytes) -> ClientEvent:
        """The event in a message. Raises ClientError with the event's id, where it has one."""
        if isinstance(message, bytes):
            raise ClientError("invalid_event", "Expected a text WebSocket message; binary frames are not supported.")
        try:
            event = from_json(message, allow_inf_nan=False)
        except ValueError as error:
            raise ClientError("invalid_json", f"Invalid event: failed to parse JSON value. {error}") from None
        if not isinstance(event, dict):
            raise ClientError("invalid_event", "Invalid event: expected a JSON object.")
        try:
            return self._event(event)
        except ClientError as error:
            event_id = event.get("event_id")
            is_proper = isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_LENGTH
            error.event_id = event_id if is_proper else None
            raise

    def _event(self, event: dict[str, Any]) -> ClientEvent:
        kind = event.get("type")
        if kind is None:
            raise ClientError("invalid_event", "The 'type' field is missing.")
        if not isinstance(kind, str):
            raise ClientError("invalid_type", "Invalid type for 'type': expected a string.", "type")
        if kind == self.update_type:
            update = validated(_UPDATE, event)
            return UpdateSession(
                event_id=update.event_id,
                apply=partial(self.update, patch=update.session),
                model_param=f"session.{self.transcription_path}.model",
            )
        if kind in _BUFFER_EVENTS:
            return validated(_BUFFER_EVENTS[kind], event)
        if kind in CONVERSATION_EVENTS:
            raise ClientError("invalid_parameter", f"'{kind}' is not available in a transcription session.", "type")
        supported = one_of([self.update_type, *_BUFFER_EVENTS])
        raise ClientError("invalid_value", f"Invalid value: '{kind}'. Supported values are: {supported}.", "type")

    def resolved(self, transcription: Transcription | None, param: str) -> Transcription | None:
        """The transcription settings with their model checked. Raises ClientError."""
        return transcription and self.models.resolve(transcription, param)

    def detected(self, turn_detection: TurnDetection | None, param: str) -> TurnDetection | None:
        """The turn detection, if there is a model for it. Raises ClientError."""
        self.models.check_turn_detection(turn_detection, param)
        return turn_detection

    def reduced(self, noise_reduction: NoiseReduction | None, param: str) -> NoiseReduction | None:
        """The noise reduction, if there is a model for it. Raises ClientError."""
        self.models.check_noise_reduction(noise_reduction, param)
        return noise_reduction

    def update(self, config: SessionConfig, patch: Mapping[str, Any], path: str = "session") -> SessionConfig:
        """`config` with a client's changes merged into it. Raises ClientError, its param under `path`."""
        config = self.config_from(merged(self.settings_object(config), patch), path)
        if config.include and config.transcription:
            self.models.check_include(config.include, config.transcription.model, joined_path(path, "include"))
        return config.with_default_turn_detection()

    def serialize(self, event: ServerEvent, new_id: Callable[[str], str]) -> list[str]:
        """The messages that tell the client of an event, each with an id of its own from `new_id("event")`."""
        return [
            json.dumps({"type": body.pop("type"), "event_id": new_id("event"), **body}, ensure_ascii=False)
            for body in self.event_bodies(event)
        ]

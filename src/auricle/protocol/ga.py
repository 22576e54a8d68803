"""The GA dialect: nested session object with a `type`, `session.*` events, `conversation.item.added` and `.done`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from auricle.protocol.config import (
    Include,
    InputFormat,
    NoiseReduction,
    Pcm,
    SessionConfig,
    Setting,
    Transcription,
    TurnDetection,
)
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import ItemAdded, ServerEvent, SessionCreated, SessionEvent
from auricle.protocol.validation import WRONG_SESSION_KIND, validated


class AudioInput(Setting):
    """`session.audio.input`."""

    format: InputFormat | None = None
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = None


class Audio(Setting):
    """`session.audio`."""

    input: AudioInput = AudioInput()


class GaSession(Setting):
    """The settings of a transcription session, as `session.update` and `client_secrets` take them."""

    type: Literal["transcription"]
    audio: Audio = Audio()
    include: list[Include] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_conversations(cls, settings: Any) -> Any:
        # Conversations have other fields, so without this the client would hear of those and not of the reason.
        if isinstance(settings, Mapping):
            if settings.get("type") == "realtime":
                message = "Passing a realtime session update event to a transcription session is not allowed."
                raise PydanticCustomError(WRONG_SESSION_KIND, message)
            if "model" in settings:
                message = (
                    "You must not provide a model parameter for transcription sessions: it is 'transcription.model'."
                )
                raise PydanticCustomError(WRONG_SESSION_KIND, message)
        return settings


_SESSION: TypeAdapter[GaSession] = TypeAdapter(GaSession)


class GaDialect(Dialect):
    """OpenAI's current form of the protocol."""

    name = "ga"
    update_type = "session.update"
    transcription_path = "audio.input.transcription"

    def settings_object(self, config: SessionConfig) -> dict[str, Any]:
        audio_input: dict[str, Any] = {
            "format": config.format.model_dump(),
            "transcription": config.transcription and config.transcription.model_dump(),
            "noise_reduction": config.noise_reduction and config.noise_reduction.model_dump(),
        }
        if config.turn_detection_given:
            audio_input["turn_detection"] = config.turn_detection and config.turn_detection.model_dump()
        return {"audio": {"input": audio_input}, "include": config.include}

    def config_from(self, settings: Mapping[str, Any], path: str) -> SessionConfig:
        session = validated(_SESSION, settings, path)
        audio_input = session.audio.input
        return SessionConfig(
            format=audio_input.format or Pcm(),
            transcription=self.resolved(audio_input.transcription, f"{path}.{self.transcription_path}"),
            noise_reduction=self.reduced(audio_input.noise_reduction, f"{path}.audio.input.noise_reduction"),
            turn_detection=self.detected(audio_input.turn_detection, f"{path}.audio.input.turn_detection"),
            turn_detection_given="turn_detection" in audio_input.model_fields_set,
            include=session.include,
        )

    def session_object(self, session_id: str, expires_at: int, config: SessionConfig) -> dict[str, Any]:
        settings = self.settings_object(config.model_copy(update={"turn_detection_given": True}))
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session_id,
            "expires_at": expires_at,
            **settings,
        }

    def event_bodies(self, event: ServerEvent) -> list[dict[str, Any]]:
        match event:
            case SessionEvent():
                kind = "session.created" if isinstance(event, SessionCreated) else "session.updated"
                return [
                    {"type": kind, "session": self.session_object(event.session_id, event.expires_at, event.config)}
                ]
            case ItemAdded():
                body = event.model_dump(mode="json")
                return [{"type": kind, **body} for kind in ("conversation.item.added", "conversation.item.done")]
            case _:
                return [event.model_dump(mode="json")]

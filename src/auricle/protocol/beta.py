"""The beta dialect: flat session object, `transcription_session.*` events, `conversation.item.created`.

OpenAI closed it in 2026; clients written before still speak it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from auricle.protocol.config import (
    G711,
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
from auricle.protocol.events import ItemAdded, ItemRetrieved, ServerEvent, SessionCreated, SessionEvent
from auricle.protocol.validation import joined_path, validated

BetaFormat = Literal["pcm16", "g711_ulaw", "g711_alaw"]

_FORMATS: dict[BetaFormat, InputFormat] = {
    "pcm16": Pcm(),
    "g711_ulaw": G711(type="audio/pcmu"),
    "g711_alaw": G711(type="audio/pcma"),
}
_NAMES: dict[str, BetaFormat] = {input_format.type: name for name, input_format in _FORMATS.items()}


class ExpiresAt(Setting):
    """When an ephemeral key ends."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(60, ge=10, le=7200)


class ClientSecretRequest(Setting):
    """What a client can ask of the ephemeral key that comes with a session."""

    expires_at: ExpiresAt = ExpiresAt()


class BetaSession(Setting):
    """The settings of a transcription session, as `transcription_session.update` takes them."""

    input_audio_format: BetaFormat | None = None
    input_audio_transcription: Transcription | None = None
    input_audio_noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = None
    include: list[Include] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    client_secret: ClientSecretRequest | None = None


_SESSION: TypeAdapter[BetaSession] = TypeAdapter(BetaSession)


class BetaDialect(Dialect):
    """The form that the protocol had until 2026."""

    name = "beta"
    update_type = "transcription_session.update"
    transcription_path = "input_audio_transcription"

    def settings_object(self, config: SessionConfig) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "input_audio_noise_reduction": config.noise_reduction and config.noise_reduction.model_dump(),
            "input_audio_format": _NAMES[config.format.type],
            "input_audio_transcription": config.transcription and config.transcription.model_dump(),
            "include": config.include,
        }
        if config.turn_detection_given:
            settings["turn_detection"] = config.turn_detection and config.turn_detection.model_dump()
        return settings

    def config_from(self, settings: Mapping[str, Any], path: str) -> SessionConfig:
        session = validated(_SESSION, settings, path)
        return SessionConfig(
            format=_FORMATS[session.input_audio_format or "pcm16"],
            transcription=self.resolved(session.input_audio_transcription, joined_path(path, self.transcription_path)),
            noise_reduction=self.reduced(
                session.input_audio_noise_reduction, joined_path(path, "input_audio_noise_reduction")
            ),
            turn_detection=self.detected(session.turn_detection, joined_path(path, "turn_detection")),
            turn_detection_given="turn_detection" in session.model_fields_set,
            include=session.include,
        )

    def session_object(self, session_id: str, expires_at: int, config: SessionConfig) -> dict[str, Any]:
        settings = self.settings_object(config.model_copy(update={"turn_detection_given": True}))
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "expires_at": expires_at,
            **settings,
            "client_secret": None,
        }

    def event_bodies(self, event: ServerEvent) -> list[dict[str, Any]]:
        match event:
            case SessionEvent():
                kind = "transcription_session." + ("created" if isinstance(event, SessionCreated) else "updated")
                return [
                    {"type": kind, "session": self.session_object(event.session_id, event.expires_at, event.config)}
                ]
            case ItemAdded():
                return [_with_object({"type": "conversation.item.created", **event.model_dump(mode="json")})]
            case ItemRetrieved():
                return [_with_object(event.model_dump(mode="json"))]
            case _:
                return [event.model_dump(mode="json")]


def _with_object(body: dict[str, Any]) -> dict[str, Any]:
    """The event with its item marked as one, which only this dialect does."""
    item = body["item"]
    return {**body, "item": {"id": item["id"], "object": "realtime.item", **item}}

"""The model that a session asks for: which one is being loaded, and the update that waits for it."""

from __future__ import annotations

from dataclasses import dataclass

from auricle.errors import EngineError, ModelUnavailable
from auricle.protocol.config import SessionConfig
from auricle.protocol.events import ErrorEvent, UpdateSession
from auricle.session.jobs import LoadModel


@dataclass(frozen=True, slots=True)
class _Held:
    """An update that waits."""

    event: UpdateSession
    before: SessionConfig
    after: SessionConfig

    @property
    def changes_model(self) -> bool:
        return _model(self.after) != _model(self.before)


class ModelLoading:
    """Owned by one session. Of several jobs that are out, only the newest counts."""

    def __init__(self) -> None:
        self._asked: str | None = None
        """The model of the job that is out."""
        self._held: _Held | None = None

    @property
    def holds_update(self) -> bool:
        """Whether an update waits, and with it all that came after."""
        return self._held is not None

    def begin(self, config: SessionConfig) -> list[LoadModel]:
        """The job that gets the model of these settings ready, where they name one and it isn't out already."""
        model = _model(config)
        if model is None or model == self._asked:
            return []
        self._asked = model
        return [LoadModel(model)]

    def hold(self, event: UpdateSession, before: SessionConfig, after: SessionConfig) -> list[LoadModel] | None:
        """Have an update wait, and return the job that it waits for, if that isn't out. None: it need not wait."""
        held = _Held(event, before, after)
        if _model(after) is None or not (held.changes_model or _model(after) == self._asked):
            return None
        self._held = held
        return self.begin(after)

    def end(self, job: LoadModel, error: EngineError | None) -> tuple[list[ErrorEvent], SessionConfig | None]:
        """A job is done, or has failed. Returns what is to be told, and the settings of the update that waited for it.

        An update that names a model which can't be loaded is refused.
        """
        if job.model != self._asked:  # another model has been asked for since
            return [], None
        held, self._held, self._asked = self._held, None, None
        settings = held.after if held else None
        if error is None:
            return [], settings
        if held and held.changes_model:
            refusal = ModelUnavailable(str(error), held.event.model_param)
            return [ErrorEvent.of(refusal, held.event.event_id)], None
        return [ErrorEvent.of(ModelUnavailable(str(error)))], settings


def _model(config: SessionConfig) -> str | None:
    return config.transcription.model if config.transcription else None

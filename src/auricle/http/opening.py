"""How a session begins, over whatever transport: its dialect, its settings, its connection."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers

from auricle.connection import Connection
from auricle.errors import ClientError
from auricle.http.auth import EphemeralKey
from auricle.http.state import ServerState
from auricle.ids import new_id
from auricle.protocol.config import ModelDirectory, SessionConfig, Transcription
from auricle.protocol.dialect import Dialect, DialectName
from auricle.protocol.validation import one_of
from auricle.session.session import Session
from auricle.transports.base import Transport

SUBPROTOCOL = "realtime"
_SUBPROTOCOL_BETA = "openai-beta.realtime-v1"


def choose_dialect(
    state: ServerState,
    headers: Headers,
    subprotocols: Sequence[str],
    ephemeral: EphemeralKey | None,
    path_dialect: DialectName | None = None,
) -> Dialect:
    """Beta if the header, a subprotocol or the ephemeral key says so, else GA.

    `path_dialect` is what the request's path says, if it does. Raises ClientError: they contradict.
    """
    asks_for_beta = "realtime=v1" in headers.get("openai-beta", "") or _SUBPROTOCOL_BETA in subprotocols
    asked: DialectName | None = "beta" if asks_for_beta else path_dialect
    if asked and ephemeral and ephemeral.dialect != asked:
        names = {"ga": "GA", "beta": "beta"}
        message = f"You cannot start a Realtime {names[asked]} session with a {names[ephemeral.dialect]} client secret."
        raise ClientError("api_version_mismatch", f"API version mismatch. {message}")
    return state.dialects[asked or (ephemeral.dialect if ephemeral else "ga")]


def initial_config(
    models: ModelDirectory, query: Mapping[str, str], dialect: Dialect, ephemeral: EphemeralKey | None
) -> SessionConfig:
    """The settings a session begins with. Raises ClientError: the query asks for something else."""
    if ephemeral is not None:
        return dialect.update(SessionConfig(), ephemeral.settings)
    intent, model = query.get("intent"), query.get("model")
    if intent is None and model is None:
        message = "You must provide a model parameter, for example ?intent=transcription&model=" + models.default
        raise ClientError("missing_model", message)
    if intent not in (None, "transcription"):
        raise ClientError(
            "invalid_value", f"Invalid value: '{intent}'. Supported values are: 'transcription'.", "intent"
        )
    if model is None:
        return SessionConfig()
    if models.find(model) is None:
        message = f'Model "{model}" is not supported in transcription mode. Supported are: {one_of(models.names)}.'
        raise ClientError("invalid_model", message, "model")
    return SessionConfig(transcription=Transcription(model=model)).with_default_turn_detection()


def connect(state: ServerState, transport: Transport, dialect: Dialect, config: SessionConfig) -> Connection:
    """A connection with a new session, counted among those that are open; whoever runs it takes it out again."""
    expires_at = int(time.time() + state.session_limits.max_session_s)
    session = Session(new_id("sess"), expires_at, config, state.session_limits, new_id)
    connection = Connection(
        transport, session, dialect, state.scheduler, state.connection_limits, new_id, state.check_lag
    )
    state.connections.add(connection)
    return connection

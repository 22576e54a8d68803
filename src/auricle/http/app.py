"""Builds the web application and everything in it."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from auricle import __version__
from auricle.connection import ConnectionLimits
from auricle.engines.base import ModelSpec
from auricle.engines.registry import Catalog, catalog, denoised_detector, turn_judge
from auricle.engines.silero import SileroDetector
from auricle.http import calls, playground, realtime, service, transcriptions
from auricle.http.auth import Authenticator
from auricle.http.errors import ErrorResponse, answer_errors
from auricle.http.origins import OriginPolicy, guard_origins, own_names
from auricle.http.state import ServerState
from auricle.protocol.beta import BetaDialect
from auricle.protocol.ga import GaDialect
from auricle.recordings import RecordingLimits, RecordingTranscriber
from auricle.scheduler import BatchScheduler, Residence
from auricle.session.session import SessionLimits
from auricle.settings import Settings
from auricle.transports.ice import IceNetwork
from auricle.worker import Worker, WorkerSpec

DESCRIPTION = """Realtime speech-to-text for clients of OpenAI's Realtime transcription API.

The socket is `/v1/realtime?intent=transcription`; its events are described in the repository under `docs/protocol.md`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The server as an ASGI application; `Server` runs it. Raises ValueError: a setting is wrong."""
    app = FastAPIOffline(
        title="Auricle",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        strict_content_type=False,  # a body without a Content-Type is read as JSON
        responses={"4XX": {"model": ErrorResponse, "description": "What is wrong with the request"}},
    )
    app.state.server = _server_state(settings)
    app.include_router(realtime.router)
    app.include_router(transcriptions.router)
    app.include_router(calls.router)
    app.include_router(service.keyed_router)
    app.include_router(service.router)
    app.include_router(playground.router)
    answer_errors(app)
    wants_key = bool(settings.all_api_keys)
    guard_origins(app, OriginPolicy(settings.allowed_origins, own_names(settings.host), wants_key=wants_key))
    return app


def _server_state(settings: Settings) -> ServerState:
    """All parts of the server."""
    offered = catalog(settings)
    models = offered.directory
    secret = settings.signing_secret
    return ServerState(
        authenticator=Authenticator(settings.all_api_keys, secret.get_secret_value() if secret else None),
        models=models,
        scheduler=_scheduler(settings, offered),
        session_limits=SessionLimits(
            max_session_s=settings.max_session_s, max_item_s=settings.max_item_s, kept_audio_s=settings.kept_audio_s
        ),
        connection_limits=ConnectionLimits(
            max_session_s=settings.max_session_s,
            max_backlog_s=settings.max_backlog_s,
            max_outbox_bytes=settings.max_outbox_bytes,
            model_wait_s=settings.model_wait_s,
        ),
        max_sessions=settings.max_sessions,
        max_lag_s=settings.max_lag_s,
        recordings=RecordingTranscriber(
            offered,
            RecordingLimits(
                processes=settings.file_processes,
                max_waiting=settings.max_waiting_files,
                max_recording_s=settings.max_file_s,
            ),
        ),
        max_file_bytes=settings.max_file_bytes,
        dialects={"ga": GaDialect(models), "beta": BetaDialect(models)},
        ice_network=IceNetwork(settings.host, settings.udp_ports, [str(host) for host in settings.webrtc_host])
        if settings.webrtc
        else None,
    )


def _scheduler(settings: Settings, offered: Catalog) -> BatchScheduler:
    workers = {name: Worker(worker_spec(settings, spec)) for name, spec in offered.specs.items()}
    residences = {name: residence(settings, spec) for name, spec in offered.specs.items()}
    return BatchScheduler(
        SileroDetector.embedded(), offered.directory, workers, turn_judge(), denoised_detector(), residences
    )


def worker_spec(settings: Settings, spec: ModelSpec) -> WorkerSpec:
    """How a model's process runs."""
    return WorkerSpec(spec, spec.settings.threads or settings.threads, settings.decode_timeout_s)


def residence(settings: Settings, spec: ModelSpec) -> Residence:
    """When a model is in memory: the default one, and those that are loaded at the start, always."""
    if spec.name == settings.model or spec.settings.load == "start":
        return Residence(at_start=True)
    return Residence(idle_s=spec.settings.idle_s or settings.model_idle_s)

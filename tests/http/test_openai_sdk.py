"""The official SDK against a real server process: sync and async, GA and beta, with real speech."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from clips import ALAW, PCM_24K, ULAW, appends, wire_bytes
from conftest import RunningServer
from openai import APIStatusError, AsyncOpenAI, AuthenticationError, OpenAI
from openai.types.beta.realtime import TranscriptionSession
from openai.types.realtime import RealtimeTranscriptionSessionCreateResponse
from pydantic import ValidationError
from wire import (
    ADDED,
    CLEARED,
    COMMITTED,
    COMPLETED,
    CREATED,
    DELETED,
    DELTA,
    FIRST_WORDS,
    ITEM_CREATED,
    RETRIEVED,
    STARTED,
    UPDATED,
    DialectName,
    Event,
    check_event,
    check_order,
    check_session,
    kinds,
    open_wire,
    opening,
    parsed,
    session_patch,
    spoken,
)
from words import word_error_rate

from auricle.audio.formats import AudioFormat

# The SDK's sync client still opens its socket in a way that `websockets` has deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager:DeprecationWarning")

FORMATS = {
    "pcm": (PCM_24K, {"type": "audio/pcm", "rate": 24_000}),
    "ulaw": (ULAW, {"type": "audio/pcmu"}),
    "alaw": (ALAW, {"type": "audio/pcma"}),
}
VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
MAX_WER = 0.08


def chunks(audio_format: AudioFormat) -> Iterator[str]:
    """The opening and a second of silence, as the `audio` of appends."""
    return appends(wire_bytes(spoken(opening()), audio_format), 24_000)


class Record:
    """All events of a connection, each checked strictly as it comes."""

    def __init__(self, dialect: DialectName) -> None:
        self.dialect: DialectName = dialect
        self.events: list[Event] = []

    def take(self, message: bytes) -> Event:
        self.events.append(parsed(message.decode(), self.dialect))
        return self.events[-1]

    @property
    def is_complete(self) -> bool:
        """Whether the buffer was cleared at last and all that was committed before has its text."""
        told = kinds(self.events)
        return CLEARED in told and told.count(COMMITTED) == told.count(COMPLETED)

    def check_words(self) -> None:
        check_order(self.events, self.dialect)
        text = " ".join(event["transcript"] for event in self.events if event["type"] == COMPLETED)
        assert word_error_rate(FIRST_WORDS, text) <= MAX_WER, text


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    websocket_url = server.base_url.replace("http", "ws", 1)
    with OpenAI(api_key="any-key", base_url=server.base_url, websocket_base_url=websocket_url, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: RunningServer) -> AsyncIterator[AsyncOpenAI]:
    websocket_url = server.base_url.replace("http", "ws", 1)
    async with AsyncOpenAI(api_key="any-key", base_url=server.base_url, websocket_base_url=websocket_url) as client:
        yield client


def connected(client: Any, dialect: DialectName) -> Any:
    """The SDK's own way to a transcription session: in beta it insists on a model."""
    if dialect == "ga":
        return client.realtime.connect(extra_query={"intent": "transcription"})
    return client.beta.realtime.connect(model="gpt-4o-transcribe", extra_query={"intent": "transcription"})


def updater(connection: Any, dialect: DialectName) -> Any:
    """The SDK's helper that updates the session."""
    return connection.session if dialect == "ga" else connection.transcription_session


# Transcription


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("turn_detection", [VAD, None], ids=["server_vad", "manual"])
def test_sync_client_transcribes(
    client: OpenAI, dialect: DialectName, wire_format: str, turn_detection: dict[str, Any] | None
) -> None:
    audio_format, on_wire = FORMATS[wire_format]
    settings = {
        "format": on_wire,
        "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
        "turn_detection": turn_detection,
    }
    record = Record(dialect)
    with connected(client, dialect) as connection:
        assert record.take(connection.recv_bytes())["type"] == CREATED[dialect]
        updater(connection, dialect).update(session=session_patch(dialect, **settings))
        for audio in chunks(audio_format):
            connection.input_audio_buffer.append(audio=audio)
        if turn_detection is None:
            connection.input_audio_buffer.commit()
        connection.input_audio_buffer.clear()
        while not record.is_complete:
            record.take(connection.recv_bytes())
    record.check_words()
    assert kinds(record.events).count(UPDATED[dialect]) == 1
    assert kinds(record.events).count(STARTED) == kinds(record.events).count(COMMITTED) - (turn_detection is None)


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("turn_detection", [VAD, None], ids=["server_vad", "manual"])
async def test_async_client_transcribes(
    async_client: AsyncOpenAI, dialect: DialectName, turn_detection: dict[str, Any] | None
) -> None:
    record = Record(dialect)
    async with connected(async_client, dialect) as connection:
        settings = session_patch(dialect, transcription={"model": "whisper-1"}, turn_detection=turn_detection)
        await updater(connection, dialect).update(session=settings)

        async def send() -> None:
            for audio in chunks(PCM_24K):
                await connection.input_audio_buffer.append(audio=audio)
            if turn_detection is None:
                await connection.input_audio_buffer.commit()
            await connection.input_audio_buffer.clear()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            while not record.is_complete:
                record.take(await connection.recv_bytes())
    record.check_words()


async def test_two_async_sessions_at_once_get_their_own_words(async_client: AsyncOpenAI) -> None:
    async def transcribe(dialect: DialectName) -> None:
        record = Record(dialect)
        async with connected(async_client, dialect) as connection:
            settings = session_patch(dialect, transcription={"model": "whisper-1"}, turn_detection=VAD)
            await updater(connection, dialect).update(session=settings)
            for audio in chunks(PCM_24K):
                await connection.input_audio_buffer.append(audio=audio)
                await asyncio.sleep(0)
            await connection.input_audio_buffer.clear()
            while not record.is_complete:
                record.take(await connection.recv_bytes())
        record.check_words()

    async with asyncio.TaskGroup() as group:
        group.create_task(transcribe("ga"))
        group.create_task(transcribe("beta"))


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_sdk_gives_our_events_its_own_types(client: OpenAI, dialect: DialectName) -> None:
    """What a program sees that reads attributes: no event falls back to a type that isn't its own."""
    seen: dict[str, str] = {}
    texts: list[str] = []
    with connected(client, dialect) as connection:
        patch = session_patch(dialect, transcription={"model": "gpt-4o-transcribe"}, turn_detection=None)
        updater(connection, dialect).update(session=patch)
        for audio in chunks(PCM_24K):
            connection.input_audio_buffer.append(audio=audio)
        connection.input_audio_buffer.commit()
        for event in connection:
            seen[event.type] = type(event).__name__
            if event.type == COMPLETED:
                texts.append(event.transcript)
                assert event.usage.type == "tokens"
                connection.conversation.item.retrieve(item_id=event.item_id)
            if event.type == RETRIEVED:
                assert event.item.content[0].transcript == texts[0]
                connection.conversation.item.delete(item_id=event.item.id)
            if event.type == DELETED:
                connection.input_audio_buffer.commit(event_id="mine")
            if event.type == "error":
                assert (event.error.code, event.error.event_id) == ("input_audio_buffer_commit_empty", "mine")
                break
    assert word_error_rate(FIRST_WORDS, texts[0]) <= MAX_WER
    assert seen[COMMITTED] == "InputAudioBufferCommittedEvent"
    assert seen[DELTA] == "ConversationItemInputAudioTranscriptionDeltaEvent"
    assert seen[COMPLETED] == "ConversationItemInputAudioTranscriptionCompletedEvent"
    assert seen[RETRIEVED] == "ConversationItemRetrieved"
    if dialect == "ga":
        assert seen[CREATED["ga"]] == "SessionCreatedEvent"
        assert seen[ADDED] == "ConversationItemAdded"
    else:
        assert seen[UPDATED["beta"]] == "TranscriptionSessionUpdatedEvent"
        assert seen[ITEM_CREATED] == "ConversationItemCreatedEvent"


def test_event_handlers_of_the_sdk_are_called(client: OpenAI) -> None:
    texts: list[str] = []
    with connected(client, "ga") as connection:

        def completed(event: Any) -> None:
            texts.append(event.transcript)
            connection.close()

        connection.on(COMPLETED, completed)
        patch = session_patch("ga", transcription={"model": "gpt-4o-transcribe"}, turn_detection=None)
        connection.session.update(session=patch)
        for audio in chunks(PCM_24K):
            connection.input_audio_buffer.append(audio=audio)
        connection.input_audio_buffer.commit()
        connection.dispatch_events()
    assert word_error_rate(FIRST_WORDS, texts[0]) <= MAX_WER


# Ephemeral keys


def test_client_secret_opens_the_session_it_was_made_for(client: OpenAI, server: RunningServer) -> None:
    patch = session_patch(
        "ga",
        format={"type": "audio/pcmu"},
        transcription={"model": "gpt-4o-mini-transcribe", "prompt": "Dickens"},
        turn_detection={"type": "server_vad", "silence_duration_ms": 640},
        noise_reduction={"type": "near_field"},
        include=["item.input_audio_transcription.logprobs"],
    )
    raw = client.realtime.client_secrets.with_raw_response.create(
        expires_after={"anchor": "created_at", "seconds": 100},
        session=patch,  # type: ignore[arg-type]
    )
    body = json.loads(raw.text)
    assert set(body) == {"value", "expires_at", "session"}
    check_session(body["session"], "ga")
    assert body["session"]["expires_at"] == 0
    assert 0 < body["expires_at"] - time.time() <= 100
    secret = raw.parse()
    assert secret.value.startswith("ek_")
    assert isinstance(secret.session, RealtimeTranscriptionSessionCreateResponse)
    with OpenAI(api_key=secret.value, base_url=server.base_url) as browser, connected(browser, "ga") as connection:
        created = parsed(connection.recv_bytes().decode(), "ga")["session"]
    assert created["audio"] == body["session"]["audio"]
    assert created["include"] == ["item.input_audio_transcription.logprobs"]
    assert created["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 640
    assert created["audio"]["input"]["transcription"]["prompt"] == "Dickens"
    assert created["id"] != body["session"]["id"]


def test_socket_with_a_client_secret_alone_transcribes(client: OpenAI, server: RunningServer) -> None:
    """Browsers send no query and no update: the secret's session applies in full, more than once."""
    patch = session_patch("ga", transcription={"model": "gpt-4o-transcribe"}, turn_detection=None)
    secret = client.realtime.client_secrets.create(session=patch)  # type: ignore[arg-type]
    for _ in range(2):
        with open_wire(server.socket_url, query="", key=secret.value) as wire:
            wire.append(opening())
            wire.commit()
            wire.until(COMPLETED)
        assert word_error_rate(FIRST_WORDS, wire.text) <= MAX_WER


def test_client_secret_without_a_body_has_the_defaults(client: OpenAI) -> None:
    secret = client.realtime.client_secrets.create()
    assert 590 < secret.expires_at - time.time() <= 600
    assert isinstance(secret.session, RealtimeTranscriptionSessionCreateResponse)
    assert secret.session.audio is not None
    assert secret.session.audio.input is not None
    assert secret.session.audio.input.transcription is None


def test_beta_transcription_session_is_as_the_sdk_types_it(client: OpenAI, server: RunningServer) -> None:
    raw = client.beta.realtime.transcription_sessions.with_raw_response.create(
        input_audio_format="g711_alaw",
        input_audio_transcription={"model": "gpt-4o-transcribe", "language": "en"},
        turn_detection={"type": "server_vad", "silence_duration_ms": 640},
        include=["item.input_audio_transcription.logprobs"],
    )
    body = json.loads(raw.text)
    check_session(body, "beta")
    session = TranscriptionSession.model_validate(body, strict=True)
    assert session.client_secret.value.startswith("ek_")
    assert 50 < session.client_secret.expires_at - time.time() <= 60
    assert session.modalities == ["audio", "text"]
    with open_wire(
        server.socket_url, "beta", query="", key=session.client_secret.value, expects_beta_by_header=False
    ) as wire:
        created = wire.receive()["session"]
        wire.append(spoken(opening()), ALAW)
        wire.finish()
    assert word_error_rate(FIRST_WORDS, wire.text) <= MAX_WER
    told = {"id", "client_secret", "modalities", "expires_at"}
    assert {k: v for k, v in created.items() if k not in told} == {k: v for k, v in body.items() if k not in told}


def test_beta_transcription_session_without_a_body_has_the_defaults(client: OpenAI) -> None:
    session = client.beta.realtime.transcription_sessions.create()
    assert session.input_audio_format == "pcm16"
    assert session.turn_detection is not None
    assert session.turn_detection.type == "server_vad"
    assert session.turn_detection.silence_duration_ms == 200
    assert session.input_audio_transcription is not None
    assert session.input_audio_transcription.model


def test_beta_client_takes_the_lifetime_of_its_secret(client: OpenAI) -> None:
    session = client.beta.realtime.transcription_sessions.create(
        client_secret={"expires_at": {"anchor": "created_at", "seconds": 300}}
    )
    assert 290 < session.client_secret.expires_at - time.time() <= 300


# Other endpoints


def test_models_can_be_listed_and_retrieved(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"moonshine/tiny-en", "gpt-4o-transcribe", "whisper-1", "gpt-transcribe", "gpt-realtime-whisper"} <= set(
        names
    )
    assert client.models.retrieve("moonshine/tiny-en").id == "moonshine/tiny-en"
    with pytest.raises(APIStatusError) as refused:
        client.models.retrieve("nobody/knows-it")
    assert (refused.value.status_code, refused.value.code) == (404, "model_not_found")


def test_sdk_raises_its_own_errors_for_ours(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as refused:
        client.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": 9})
    assert (refused.value.status_code, refused.value.code) == (400, "integer_below_min_value")
    assert refused.value.param == "expires_after.seconds"
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="ek_forged").models.list()


def test_health_tells_how_many_sessions_are_open(server: RunningServer) -> None:
    before = httpx.get(f"{server.root_url}/health").json()
    assert before["status"] == "ok"
    with open_wire(server.socket_url) as wire:
        wire.receive()
        assert httpx.get(f"{server.root_url}/health").json()["sessions"] == before["sessions"] + 1


# The checks themselves

_GOOD: dict[str, Any] = {
    "type": COMPLETED,
    "event_id": "event_" + "a" * 21,
    "item_id": "item_1",
    "content_index": 0,
    "transcript": "Hello.",
    "usage": {"type": "duration", "seconds": 1},
}


@pytest.mark.parametrize(
    "change",
    [
        {"usage": None},
        {"usage": {"type": "duration", "seconds": 1, "minutes": 0}},
        {"usage": {"type": "duration", "seconds": "1"}},
        {"transcript": None},
        {"surprise": 1},
        {"event_id": "event_1"},
        {"content_index": 1},
        {"logprobs": [{"token": "a", "logprob": -1.0}]},
        {"type": "conversation.item.input_audio_transcription.complete"},
    ],
    ids=str,
)
def test_strict_check_refuses_a_faulty_event(change: dict[str, Any]) -> None:
    check_event(copy.deepcopy(_GOOD), "ga")
    check_event(copy.deepcopy(_GOOD), "beta")
    for dialect in ("ga", "beta"):
        with pytest.raises((AssertionError, ValidationError)):
            check_event(copy.deepcopy(_GOOD) | change, dialect)


def test_strict_check_refuses_an_event_of_the_other_dialect() -> None:
    with pytest.raises(AssertionError):
        check_event({"type": ITEM_CREATED, "event_id": "event_" + "a" * 21, "previous_item_id": None, "item": {}}, "ga")

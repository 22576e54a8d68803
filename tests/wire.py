"""A raw client of the socket that believes nothing: every event is parsed strictly and the order of all is checked.

"Strictly" means three things:

- the official SDK's own pydantic type for the event takes it without any conversion;
- it has no key that this type doesn't know, but for those in `SDK_LACKS`;
- it has exactly the keys of the protocol reference, since the SDK declares many as optional that are always there.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
from clips import PCM_24K, appends, silence, two_cities, wire_bytes
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent, RealtimeTranscriptionSessionCreateResponse
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from auricle.audio.formats import AudioFormat, Samples

Event = dict[str, Any]
DialectName = Literal["ga", "beta"]

RECEIVE_TIMEOUT_S = 20
MAX_OUTBOUND_BYTES = 1024 * 1024
"""What clients on the `websockets` library take by default."""

TRANSCRIPTION = "conversation.item.input_audio_transcription"
DELTA, COMPLETED, FAILED = f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed", f"{TRANSCRIPTION}.failed"
STARTED, STOPPED = "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"
COMMITTED, CLEARED = "input_audio_buffer.committed", "input_audio_buffer.cleared"
ADDED, DONE = "conversation.item.added", "conversation.item.done"
ITEM_CREATED, RETRIEVED, DELETED = (
    "conversation.item.created",
    "conversation.item.retrieved",
    "conversation.item.deleted",
)
CREATED = {"ga": "session.created", "beta": "transcription_session.created"}
UPDATED = {"ga": "session.updated", "beta": "transcription_session.updated"}
UPDATE = {"ga": "session.update", "beta": "transcription_session.update"}
ITEM_EVENTS = {"ga": [ADDED, DONE], "beta": [ITEM_CREATED]}

FIRST_WORDS = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity."
)
"""What is said in `opening()`."""
BEST_OF_TIMES = "It was the best of times, it was the worst of times."
"""What is said in `best_of_times()`."""
LOGPROBS = "item.input_audio_transcription.logprobs"
WORDS = "item.input_audio_transcription.words"
MODEL = {"model": "gpt-4o-transcribe"}
VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
LIVE_VAD = VAD | {"silence_duration_ms": 200}
"""What the live service sets where nothing was asked for."""


def opening() -> Samples:
    """13.2 s of speech, which are two turns where 500 ms of silence end one."""
    return two_cities()[: 13 * 16_000 + 3_200]


def best_of_times() -> Samples:
    """4.8 s of speech, which are one turn where 500 ms of silence end one."""
    return two_cities()[: 4 * 16_000 + 12_800]


def spoken(samples: Samples, pause_s: float = 1.0) -> Samples:
    """Speech with the silence after it that ends a turn."""
    return np.concatenate([samples, silence(pause_s)])


# Parsing


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    """The members of the SDK's union of server events, by the literal of their `type`."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0]: member for member in members}


_EVENT_TYPES: dict[DialectName, dict[str, type[BaseModel]]] = {
    "ga": _by_type(RealtimeServerEvent),
    "beta": _by_type(BetaServerEvent),
}

SDK_LACKS: dict[str, str] = {
    # GA: the SDK types the session of `session.created` and `.updated` as the request that made it. These three keys
    # are in its response type, `RealtimeTranscriptionSessionCreateResponse`, against which the session is checked too.
    "ga session.id": "in the response type only",
    "ga session.object": "in the response type only",
    "ga session.expires_at": "in the response type only",
    # Beta: `TranscriptionSession` was never completed. Recorded traffic of the service has these keys.
    "beta session.id": "reference 3.1",
    "beta session.object": "reference 3.1",
    "beta session.expires_at": "reference 3.1",
    "beta session.include": "reference 3.1",
    "beta session.input_audio_noise_reduction": "reference 3.1",
    # The SDK's response types know server_vad only; requests may ask for semantic_vad and have to see what they set.
    "ga session.audio.input.turn_detection.eagerness": "a field of semantic_vad in the request type",
    # Both dialects have the same transcription object (reference 3.4); beta's type stopped growing before these came.
    "beta session.input_audio_transcription.languages": "in GA's type",
    "beta session.input_audio_transcription.keywords": "in GA's type",
    "beta session.input_audio_transcription.delay": "in GA's type",
    "beta session.turn_detection.eagerness": "a field of semantic_vad in the request type",
    "ga.words": "an extension",
    "beta.words": "an extension",
    # It stopped growing before this came, too.
    "beta.languages": "reference 5",
}
"""Keys that we send and the SDK's types don't declare, and why they are right all the same."""

_COMMON = {"type", "event_id"}
_KEYS: dict[str, set[str]] = {
    "session.created": {"session"},
    "session.updated": {"session"},
    "transcription_session.created": {"session"},
    "transcription_session.updated": {"session"},
    STARTED: {"audio_start_ms", "item_id"},
    STOPPED: {"audio_end_ms", "item_id"},
    COMMITTED: {"previous_item_id", "item_id"},
    CLEARED: set(),
    ITEM_CREATED: {"previous_item_id", "item"},
    ADDED: {"previous_item_id", "item"},
    DONE: {"previous_item_id", "item"},
    RETRIEVED: {"item"},
    DELETED: {"item_id"},
    DELTA: {"item_id", "content_index", "delta"},
    COMPLETED: {"item_id", "content_index", "transcript", "usage"},
    FAILED: {"item_id", "content_index", "error"},
    "error": {"error"},
}
"""The keys of each event in the reference, section 5."""
_OPTIONAL_KEYS: dict[str, set[str]] = {DELTA: {"logprobs"}, COMPLETED: {"logprobs", "words", "languages"}}
_ONLY_IN: dict[DialectName, set[str]] = {
    "ga": {"session.created", "session.updated", ADDED, DONE},
    "beta": {"transcription_session.created", "transcription_session.updated", ITEM_CREATED},
}

GA_SESSION_KEYS = {"type", "object", "id", "expires_at", "audio", "include"}
GA_INPUT_KEYS = {"format", "transcription", "noise_reduction", "turn_detection"}
BETA_SESSION_KEYS = {
    "id",
    "object",
    "expires_at",
    "input_audio_noise_reduction",
    "turn_detection",
    "input_audio_format",
    "input_audio_transcription",
    "client_secret",
    "include",
}


def parsed(message: str | bytes, dialect: DialectName) -> Event:
    """The event in a message of the server. Fails if it isn't one to the letter."""
    assert isinstance(message, str), "the server sent a binary frame"
    assert len(message.encode()) < MAX_OUTBOUND_BYTES
    event: Event = json.loads(message)
    check_event(event, dialect)
    return event


def check_event(event: Event, dialect: DialectName) -> None:
    """Fail unless the SDK and the reference agree with every key and type of a server event."""
    kind = event["type"]
    assert kind in _KEYS, f"unknown event {kind}"
    assert kind not in _ONLY_IN["beta" if dialect == "ga" else "ga"], f"{kind} is not said in {dialect}"
    keys = set(event) - _OPTIONAL_KEYS.get(kind, set())
    assert keys == _COMMON | _KEYS[kind], f"{kind} has the keys {sorted(event)}"
    assert re.fullmatch(r"event_[\w-]{21}", event["event_id"])
    if "session" in event:
        check_session(event["session"], dialect)
    if "item" in event:
        _check_item(event["item"], dialect)
    if kind == "error":
        assert set(event["error"]) == {"type", "code", "message", "param", "event_id"}
    if kind == FAILED:
        assert set(event["error"]) == {"type", "code", "message", "param"}
    if "content_index" in event:
        assert event["content_index"] == 0
    _check_by_sdk(event, dialect)


def check_session(session: Event, dialect: DialectName) -> None:
    """Fail unless a session object is whole and its parts are as the reference has them."""
    assert re.fullmatch(r"sess_[\w-]{21}", session["id"])
    assert session["object"] == "realtime.transcription_session"
    assert isinstance(session["expires_at"], int)
    if dialect == "ga":
        assert set(session) == GA_SESSION_KEYS
        assert set(session["audio"]) == {"input"}
        assert set(session["audio"]["input"]) == GA_INPUT_KEYS
        assert session["type"] == "transcription"
        response = _without_extensions(session)
        model = RealtimeTranscriptionSessionCreateResponse.model_validate(response, strict=True)
        _refuse_unknown_keys(model, "ga session")
    else:
        assert set(session) - {"modalities"} == BETA_SESSION_KEYS


def _check_item(item: Event, dialect: DialectName) -> None:
    keys = {"id", "type", "status", "role", "content"} | ({"object"} if dialect == "beta" else set())
    assert set(item) == keys
    assert (item["type"], item["status"], item["role"]) == ("message", "completed", "user")
    assert re.fullmatch(r"item_[\w-]{21}", item["id"])
    [part] = item["content"]
    assert set(part) - {"audio"} == {"type", "transcript"}
    assert part["type"] == "input_audio"


def _check_by_sdk(event: Event, dialect: DialectName) -> None:
    if "session" in event and dialect == "ga":
        event = event | {"session": _without_extensions(event["session"])}
    elif "session" in event:
        event = _as_beta_sdk_has_it(event)
    model = _EVENT_TYPES[dialect][event["type"]].model_validate(event, strict=True)
    _refuse_unknown_keys(model, dialect)


def _without_extensions(session: Event) -> Event:
    """OpenAI's PCM has 24 kHz and nothing else, and words have no times. We take more, and then echo what was set."""
    session = copy.deepcopy(session)
    if session["include"] is not None:
        session["include"] = [entry for entry in session["include"] if entry != WORDS]
    if session["audio"]["input"]["format"]["type"] == "audio/pcm":
        assert 8_000 <= session["audio"]["input"]["format"]["rate"] <= 48_000
        session["audio"]["input"]["format"]["rate"] = 24_000
    return session


def _as_beta_sdk_has_it(event: Event) -> Event:
    """What the SDK's only beta session event would be.

    It has no type for `transcription_session.created`, which is the same but for its name; it requires a client secret,
    which the service sends as null on the socket (reference 3.1); it knows three models.
    """
    event = copy.deepcopy(event)
    event["type"] = "transcription_session.updated"
    assert event["session"]["client_secret"] is None
    event["session"]["client_secret"] = {"value": "", "expires_at": 0}
    if event["session"]["input_audio_transcription"] is not None:
        event["session"]["input_audio_transcription"]["model"] = "whisper-1"
    return event


def _refuse_unknown_keys(model: BaseModel, path: str) -> None:
    for key in model.model_extra or {}:
        assert f"{path}.{key}" in SDK_LACKS, f"the SDK knows no {path}.{key}"
    for name in type(model).model_fields:
        value = getattr(model, name)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseModel):
                child_path = f"{path.split(' ')[0]} session" if name == "session" else f"{path}.{name}"
                _refuse_unknown_keys(child, child_path)


# Order


def check_order(events: Sequence[Event], dialect: DialectName) -> None:
    """Fail unless the events of a connection keep the rules of the reference, section 6, and of its 8.10 item 3."""
    assert len({event["event_id"] for event in events}) == len(events)
    if events and events[0]["type"] != "error":
        assert events[0]["type"] == CREATED[dialect]
    assert [event["type"] for event in events[1:]].count(CREATED[dialect]) == 0
    previous_id: str | None = None
    deleted = False
    for event in events:
        deleted = deleted or event["type"] == DELETED
        if event["type"] == COMMITTED:
            if not deleted:
                assert event["previous_item_id"] == previous_id
            previous_id = event["item_id"]
    committed = [event["item_id"] for event in events if event["type"] == COMMITTED]
    for item_id in committed:
        of_item = [event for event in events if _item_id(event) == item_id]
        _check_order_of_item(of_item, dialect, may_be_cut=item_id == committed[-1])
    _check_no_text_is_mixed(events)
    _check_clock([event for event in events if event["type"] in (STARTED, STOPPED)])


def _item_id(event: Event) -> str | None:
    return event["item"]["id"] if "item" in event else event.get("item_id")


_LETTERS = {STARTED: "s", STOPPED: "e", COMMITTED: "c", ADDED: "a", DONE: "d", ITEM_CREATED: "i", DELTA: "t"}


def _check_order_of_item(events: Sequence[Event], dialect: DialectName, may_be_cut: bool) -> None:
    """`may_be_cut`: the client may have left before it was told all of the item."""
    told = [event for event in events if event["type"] not in (RETRIEVED, DELETED)]
    kinds = [event["type"] for event in told]
    pattern = "".join(_LETTERS.get(kind, "f") for kind in kinds)
    # A turn that is committed by hand has begun and not stopped; deltas may come while the audio still comes in.
    if may_be_cut:
        rest = "(a(dt*f?)?)?" if dialect == "ga" else "(it*f?)?"
    else:
        rest = "adt*f?" if dialect == "ga" else "it*f?"
    assert re.fullmatch(rf"(s?t*|st*et*)ct*{rest}", pattern), kinds
    if kinds[-1] == COMPLETED:
        deltas = [event["delta"] for event in told if event["type"] == DELTA]
        assert "".join(deltas) == told[-1]["transcript"]
        assert all(deltas)


def _check_no_text_is_mixed(events: Sequence[Event]) -> None:
    """Clients gather deltas in one text: none may come before the item before it is finished.

    An item's first delta may come before its commit; what a clear abandons is finished too.
    """
    open_id = None
    committed: set[str] = set()
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == COMMITTED:
            committed.add(event["item_id"])
        elif event["type"] == DELTA:
            assert open_id in (None, event["item_id"]), "a delta came amid another item's"
            open_id = event["item_id"]
            assert open_id in texts or not event["delta"][0].isspace(), "a text begins with a space"
            texts[open_id] = texts.get(open_id, "") + event["delta"]
        elif event["type"] == CLEARED and open_id not in committed:
            open_id = None
        elif event["type"] in (COMPLETED, FAILED, DELETED):
            assert event["type"] == DELETED or open_id in (None, event["item_id"])
            open_id = None


def _check_clock(events: Sequence[Event]) -> None:
    times = [event.get("audio_start_ms", event.get("audio_end_ms")) for event in events]
    assert times == sorted(times), "the clock went back"
    assert all(event["audio_end_ms"] % 32 == 0 for event in events if event["type"] == STOPPED)


# Talking


class Wire:
    """One connection, seen by a client that keeps everything it was told."""

    def __init__(self, socket: ClientConnection, dialect: DialectName) -> None:
        self.socket = socket
        self.dialect: DialectName = dialect
        self.events: list[Event] = []
        """All events so far."""

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def append(self, samples: Samples, audio_format: AudioFormat = PCM_24K, chunk_bytes: int = 48_000) -> None:
        """Send audio."""
        for audio in appends(wire_bytes(samples, audio_format), chunk_bytes):
            self.send("input_audio_buffer.append", audio=audio)

    def append_bytes(self, data: bytes) -> None:
        self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def commit(self, **fields: Any) -> None:
        self.send("input_audio_buffer.commit", **fields)

    def clear(self) -> None:
        self.send("input_audio_buffer.clear")

    def retrieve(self, item_id: str) -> Event:
        """Ask for an item and wait for it."""
        self.send("conversation.item.retrieve", item_id=item_id)
        return self.until(RETRIEVED)[-1]["item"]

    def send_update(self, event_id: str | None = None, **settings: Any) -> None:
        """Change settings, given by their GA names (`format`, `transcription`, `noise_reduction`, `turn_detection`,
        `include`)."""
        extra = {"event_id": event_id} if event_id else {}
        self.send(UPDATE[self.dialect], session=session_patch(self.dialect, **settings), **extra)

    def update(self, **settings: Any) -> Event:
        """Change settings and wait for the answer. Returns the session."""
        self.send_update(**settings)
        return self.until(UPDATED[self.dialect])[-1]["session"]

    def receive(self) -> Event:
        """The next event."""
        event = parsed(self.socket.recv(RECEIVE_TIMEOUT_S), self.dialect)
        self.events.append(event)
        return event

    def until(self, *kinds: str) -> list[Event]:
        """The events up to the next of one of these kinds. Fails on errors that are not waited for."""
        told: list[Event] = []
        while not told or told[-1]["type"] not in kinds:
            told.append(self.receive())
            assert told[-1]["type"] != "error" or "error" in kinds, told[-1]
        return told

    def finish(self) -> list[Event]:
        """Clear the buffer, then wait until it is cleared and all that was committed has its text."""
        seen = len(self.events)
        self.clear()
        while not (any(event["type"] == CLEARED for event in self.events[seen:]) and self.is_told_all):
            assert self.receive()["type"] != "error", self.events[-1]
        return self.events[seen:]

    @property
    def is_told_all(self) -> bool:
        """Whether every committed item has its end."""
        committed = {event["item_id"] for event in self.events if event["type"] == COMMITTED}
        return committed == {event["item_id"] for event in self.events if event["type"] in (COMPLETED, FAILED)}

    def goodbye(self) -> tuple[int, str]:
        """Read on until the server closes. Returns its code and reason."""
        closed: ConnectionClosed | None = None
        while closed is None:
            try:
                self.receive()
            except ConnectionClosed as error:
                closed = error
        assert closed.rcvd is not None, "the connection broke without a close frame"
        return closed.rcvd.code, closed.rcvd.reason

    @property
    def transcripts(self) -> list[str]:
        return [event["transcript"] for event in self.events if event["type"] == COMPLETED]

    @property
    def text(self) -> str:
        return " ".join(self.transcripts)


@contextmanager
def open_wire(
    socket_url: str,
    dialect: DialectName = "ga",
    *,
    query: str = "intent=transcription",
    key: str | None = "any-key",
    headers: dict[str, str] | None = None,
    subprotocols: Sequence[str] | None = None,
    expects_beta_by_header: bool = True,
    **options: Any,
) -> Iterator[Wire]:
    """Connect. When the block ends without an exception, all that the server said must have been in order."""
    headers = dict(headers or {})
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if dialect == "beta" and expects_beta_by_header:
        headers["OpenAI-Beta"] = "realtime=v1"
    url = f"{socket_url}?{query}" if query else socket_url
    with connect(
        url,
        additional_headers=headers,
        subprotocols=subprotocols,  # type: ignore[arg-type]
        max_size=options.pop("max_size", MAX_OUTBOUND_BYTES),
        max_queue=options.pop("max_queue", None),
        compression=None,
        **options,
    ) as socket:
        wire = Wire(socket, dialect)
        yield wire
    check_order(wire.events, dialect)


def session_patch(dialect: DialectName, **settings: Any) -> Event:
    """The `session` of an update in a dialect, from settings with GA's names and values."""
    if dialect == "ga":
        session: Event = {"type": "transcription"}
        if "include" in settings:
            session["include"] = settings.pop("include")
        if settings:
            session["audio"] = {"input": settings}
        return session
    formats = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
    if "format" in settings:
        settings["format"] = formats[settings["format"]["type"]]
    return {_BETA_NAMES.get(name, name): value for name, value in settings.items()}


_BETA_NAMES = {
    "format": "input_audio_format",
    "transcription": "input_audio_transcription",
    "noise_reduction": "input_audio_noise_reduction",
}


def settings_of(session: Event, dialect: DialectName) -> Event:
    """A session's settings by GA's names, from the object of either dialect."""
    if dialect == "ga":
        return {**session["audio"]["input"], "include": session["include"]}
    types = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
    named = {name: session[_BETA_NAMES.get(name, name)] for name in (*GA_INPUT_KEYS, "include")}
    kind = types[named["format"]]
    return named | {"format": {"type": kind, "rate": 24_000} if kind == "audio/pcm" else {"type": kind}}


def kinds(events: Iterable[Event]) -> list[str]:
    return [event["type"] for event in events]

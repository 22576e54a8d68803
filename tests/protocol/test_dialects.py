"""Both dialects: settings there and back, events in and out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import MODELS, numbered_ids, wire_item
from pydantic import BaseModel

from auricle.errors import ClientError
from auricle.protocol import events
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import (
    G711,
    LOGPROBS,
    MAX_KEYWORDS,
    MAX_PROMPT_LENGTH,
    ModelDirectory,
    ModelInfo,
    NoiseReduction,
    Pcm,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
)
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import (
    Append,
    Clear,
    Commit,
    Committed,
    DeleteItem,
    DurationUsage,
    ErrorEvent,
    ItemAdded,
    ItemRetrieved,
    RetrieveItem,
    SessionCreated,
    SessionUpdated,
    TranscriptionCompleted,
    TranscriptionDelta,
    UpdateSession,
)
from auricle.protocol.ga import GaDialect

GA, BETA = GaDialect(MODELS), BetaDialect(MODELS)
both = pytest.mark.parametrize("dialect", [GA, BETA], ids=["ga", "beta"])

TRANSCRIPTION = Transcription(
    model="whisper-1", language="de", prompt="Guten Tag", languages=["de"], keywords=["Wort"], delay="low"
)
EXAMPLES: dict[str, list[Any]] = {
    "format": [G711(type="audio/pcmu"), G711(type="audio/pcma")],
    "transcription": [TRANSCRIPTION],
    "noise_reduction": [NoiseReduction(type="far_field", strength=0.5)],
    "turn_detection": [
        None,
        ServerVad(threshold=0.7, prefix_padding_ms=1, silence_duration_ms=2),
        SemanticVad(type="semantic_vad", eagerness="low"),
    ],
    "turn_detection_given": [True],
    "include": [[LOGPROBS]],
}
"""Values other than the default for each field of SessionConfig. A new field needs one."""


def through(dialect: Dialect, config: SessionConfig) -> SessionConfig:
    """Told by a client and understood."""
    settings = json.loads(json.dumps(dialect.settings_object(config)))
    if dialect.name == "ga":
        settings["type"] = "transcription"
    return dialect.config_from(settings, "session").with_default_turn_detection()


@both
@pytest.mark.parametrize("field", SessionConfig.model_fields)
def test_every_setting_goes_there_and_back(dialect: Dialect, field: str) -> None:
    assert field in EXAMPLES, "give the new field an example"
    for value in EXAMPLES[field]:
        settings = {"turn_detection_given": field.startswith("turn_detection"), field: value}
        config = SessionConfig(**settings)
        assert getattr(config, field) != SessionConfig.model_fields[field].default
        assert through(dialect, config) == config


@both
@pytest.mark.parametrize("field", SessionConfig.model_fields)
def test_every_setting_is_told_in_the_session_object(dialect: Dialect, field: str) -> None:
    if field == "turn_detection_given":
        return  # Not on the wire: what is said is said.
    plain = dialect.session_object("sess_1", 5, SessionConfig())
    for value in EXAMPLES[field]:
        told = dialect.session_object("sess_1", 5, SessionConfig(**{field: value}))
        assert told != plain
        assert told.keys() == plain.keys()


@both
@pytest.mark.parametrize("example", [TRANSCRIPTION, *EXAMPLES["noise_reduction"], *EXAMPLES["turn_detection"][1:]])
def test_every_field_of_a_setting_is_told(dialect: Dialect, example: BaseModel) -> None:
    """The examples leave no field at its default, and the session object has them all."""
    told = json.dumps(
        [dialect.session_object("sess_1", 5, SessionConfig(**{field: example})) for field in _fields_of(example)]
    )
    for name, info in type(example).model_fields.items():
        if info.exclude or name == "type":
            continue
        assert getattr(example, name) != info.default, f"give {name} an example"
        assert f'"{name}": {json.dumps(getattr(example, name))}' in told


def _fields_of(example: BaseModel) -> list[str]:
    return [field for field, values in EXAMPLES.items() if example in values]


@both
def test_settings_without_a_word_are_the_defaults(dialect: Dialect) -> None:
    assert through(dialect, SessionConfig()) == SessionConfig()


def test_any_rate_of_pcm_goes_there_and_back_in_ga() -> None:
    config = SessionConfig(format=Pcm(rate=16_000))
    assert through(GA, config) == config


def test_the_ga_session_object() -> None:
    assert GA.session_object("sess_1", 5, SessionConfig()) == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "sess_1",
        "expires_at": 5,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                },
            }
        },
        "include": None,
    }


def test_the_beta_session_object() -> None:
    assert BETA.session_object("sess_1", 5, SessionConfig()) == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "expires_at": 5,
        "input_audio_format": "pcm16",
        "input_audio_transcription": None,
        "input_audio_noise_reduction": None,
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
        },
        "client_secret": None,
        "include": None,
    }


@both
def test_a_model_alone_is_echoed_with_language_and_prompt(dialect: Dialect) -> None:
    config = SessionConfig(transcription=Transcription(model="whisper-1"))
    told = dialect.session_object("sess_1", 5, config)
    transcription = told["audio"]["input"]["transcription"] if dialect is GA else told["input_audio_transcription"]
    assert transcription == {"model": "whisper-1", "language": None, "prompt": None}


def updated(dialect: Dialect, config: SessionConfig, **fields: Any) -> SessionConfig:
    """After an update of GA's names, in either dialect."""
    if dialect.name == "ga":
        return dialect.update(config, {"type": "transcription", "audio": {"input": fields}})
    names = {"transcription": "input_audio_transcription", "noise_reduction": "input_audio_noise_reduction"}
    return dialect.update(config, {names.get(name, name): value for name, value in fields.items()})


@both
def test_updates_add_up(dialect: Dialect) -> None:
    config = updated(dialect, SessionConfig(), transcription={"model": "whisper-1", "language": "de"})
    config = updated(dialect, config, transcription={"prompt": "hi"})
    config = updated(dialect, config, turn_detection={"type": "server_vad", "threshold": 0.7})
    config = updated(dialect, config, turn_detection={"type": "server_vad", "silence_duration_ms": 500})
    config = updated(dialect, config, noise_reduction={"type": "near_field"})
    assert config == SessionConfig(
        transcription=Transcription(model="whisper-1", language="de", prompt="hi"),
        turn_detection=ServerVad(threshold=0.7, silence_duration_ms=500),
        turn_detection_given=True,
        noise_reduction=NoiseReduction(type="near_field", strength=1.0),
    )
    config = updated(dialect, config, transcription=None, turn_detection=None, noise_reduction=None)
    assert config == SessionConfig(turn_detection=None, turn_detection_given=True)


@both
def test_a_bare_server_vad_is_filled_with_defaults(dialect: Dialect) -> None:
    assert updated(dialect, SessionConfig(), turn_detection={"type": "server_vad"}).turn_detection == ServerVad()
    semantic = updated(dialect, SessionConfig(), turn_detection={"type": "semantic_vad"}).turn_detection
    assert semantic == SemanticVad(type="semantic_vad", eagerness="auto")


@pytest.mark.parametrize(
    ("kind", "name", "param"),
    [
        (GaDialect, "turn_detection", "session.audio.input.turn_detection.type"),
        (BetaDialect, "turn_detection", "session.turn_detection.type"),
        (GaDialect, "noise_reduction", "session.audio.input.noise_reduction.type"),
        (BetaDialect, "noise_reduction", "session.input_audio_noise_reduction.type"),
    ],
)
def test_what_needs_a_model_of_its_own_is_refused_without_it(kind: type[Dialect], name: str, param: str) -> None:
    asked, extra = {
        "turn_detection": ("semantic_vad", "semantic"),
        "noise_reduction": ("far_field", "denoise"),
    }[name]
    models = ModelDirectory([ModelInfo("m", ("en",))], {}, "m", can_judge_turns=False, can_reduce_noise=False)
    with pytest.raises(ClientError, match=rf"'{asked}'.*install auricle\[{extra}\]") as caught:
        updated(kind(models), SessionConfig(), **{name: {"type": asked}})
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)
    assert getattr(updated(kind(models), SessionConfig(), **{name: None}), name) is None


@both
def test_the_model_decides_on_turn_detection_until_it_is_given(dialect: Dialect) -> None:
    config = updated(dialect, SessionConfig(), transcription={"model": "gpt-realtime-whisper"})
    assert config.turn_detection is None
    config = updated(dialect, config, transcription={"model": "whisper-1"})
    assert config.turn_detection == ServerVad()
    config = updated(dialect, config, turn_detection={"type": "server_vad"})
    config = updated(dialect, config, transcription={"model": "gpt-live-transcribe"})
    assert config.turn_detection == ServerVad()


@both
def test_an_update_leaves_the_old_settings_alone(dialect: Dialect) -> None:
    before = SessionConfig(transcription=TRANSCRIPTION)
    copy = before.model_copy(deep=True)
    updated(dialect, before, transcription={"prompt": "other"})
    assert before == copy


# Client events


@both
@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, Append(audio="AAAA")),
        ({"type": "input_audio_buffer.commit", "event_id": "e"}, Commit(event_id="e")),
        ({"type": "input_audio_buffer.clear", "event_id": None}, Clear()),
        ({"type": "conversation.item.retrieve", "item_id": "item_1"}, RetrieveItem(item_id="item_1")),
        ({"type": "conversation.item.delete", "item_id": "item_1"}, DeleteItem(item_id="item_1")),
        ({"type": "input_audio_buffer.commit", "extra": 1}, Commit()),
    ],
)
def test_client_events_are_understood(dialect: Dialect, message: dict, event: object) -> None:
    assert dialect.parse(json.dumps(message)) == event


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (GA, {"type": "session.update", "session": {"type": "transcription", "include": [LOGPROBS]}}),
        (BETA, {"type": "transcription_session.update", "session": {"include": [LOGPROBS]}}),
    ],
)
def test_an_update_is_applied_when_its_turn_comes(dialect: Dialect, message: dict) -> None:
    event = dialect.parse(json.dumps({**message, "event_id": "e"}))
    assert isinstance(event, UpdateSession)
    assert event.event_id == "e"
    assert event.apply(SessionConfig()).include == [LOGPROBS]


@both
@pytest.mark.parametrize(
    ("message", "code", "param", "text"),
    [
        ("{", "invalid_json", None, "Invalid event: failed to parse JSON value."),
        ("", "invalid_json", None, "Invalid event: failed to parse JSON value."),
        ('{"type": NaN}', "invalid_json", None, "Invalid event"),
        ("[" * 10_000, "invalid_json", None, "Invalid event"),
        (b"{}", "invalid_event", None, "Expected a text WebSocket message; binary frames are not supported."),
        ("[]", "invalid_event", None, "Invalid event"),
        ('"session.update"', "invalid_event", None, "Invalid event"),
        ("{}", "invalid_event", None, "The 'type' field is missing."),
        ('{"type": "foo"}', "invalid_value", "type", "Invalid value: 'foo'. Supported values are: '"),
        ('{"type": "response.create"}', "invalid_parameter", "type", ""),
        ('{"type": "conversation.item.create", "item": {}}', "invalid_parameter", "type", ""),
        (
            '{"type": "input_audio_buffer.append"}',
            "missing_required_parameter",
            "audio",
            "Missing required parameter: 'audio'.",
        ),
        ('{"type": "input_audio_buffer.append", "audio": 1}', "invalid_type", "audio", "Invalid type for 'audio'"),
        ('{"type": "conversation.item.delete"}', "missing_required_parameter", "item_id", ""),
        ('{"type": "input_audio_buffer.commit", "event_id": 1}', "invalid_type", "event_id", ""),
    ],
)
def test_messages_that_are_no_events_are_refused(
    dialect: Dialect, message: str | bytes, code: str, param: str | None, text: str
) -> None:
    with pytest.raises(ClientError) as caught:
        dialect.parse(message)
    assert (caught.value.code, caught.value.param, caught.value.event_id) == (code, param, None)
    assert caught.value.message.startswith(text)


@both
@pytest.mark.parametrize("kind", ["[]", "{}", "5", "true", '["session.update"]'])
def test_a_type_that_is_no_string_is_refused(dialect: Dialect, kind: str) -> None:
    with pytest.raises(ClientError):
        dialect.parse(f'{{"type": {kind}}}')


@both
@pytest.mark.parametrize(
    "fields",
    [
        {"type": "foo"},
        {},
        {"type": "response.create"},
        {"type": "input_audio_buffer.append"},
        {"type": "conversation.item.retrieve", "item_id": None},
    ],
)
def test_the_event_id_comes_back_in_the_error(dialect: Dialect, fields: dict) -> None:
    with pytest.raises(ClientError) as caught:
        dialect.parse(json.dumps({**fields, "event_id": "my-1"}))
    assert ErrorEvent.of(caught.value).error.event_id == "my-1"


@both
def test_an_update_needs_a_session(dialect: Dialect) -> None:
    for session in ({}, {"session": None}, {"session": "x"}):
        with pytest.raises(ClientError) as caught:
            dialect.parse(json.dumps({"type": dialect.update_type, **session}))
        assert caught.value.param == "session"


@both
def test_event_ids_are_at_most_512_characters(dialect: Dialect) -> None:
    assert dialect.parse(json.dumps({"type": "input_audio_buffer.commit", "event_id": "e" * 512}))
    with pytest.raises(ClientError) as caught:
        dialect.parse(json.dumps({"type": "input_audio_buffer.commit", "event_id": "e" * 513}))
    assert (caught.value.code, caught.value.param) == ("string_above_max_length", "event_id")


def test_each_dialect_refuses_the_update_of_the_other() -> None:
    for dialect, kind in ((GA, "transcription_session.update"), (BETA, "session.update")):
        with pytest.raises(ClientError) as caught:
            dialect.parse(json.dumps({"type": kind, "session": {}}))
        assert (caught.value.code, caught.value.param) == ("invalid_value", "type")


# Server events


def written(dialect: Dialect, event: events.ServerEvent) -> list[dict[str, Any]]:
    return [json.loads(message) for message in dialect.serialize(event, numbered_ids())]


@both
def test_session_events_have_the_name_of_the_dialect(dialect: Dialect) -> None:
    prefix = "session" if dialect is GA else "transcription_session"
    for event, kind in ((SessionCreated, "created"), (SessionUpdated, "updated")):
        config = SessionConfig(transcription=TRANSCRIPTION)
        (message,) = written(dialect, event(session_id="sess_1", expires_at=5, config=config))
        assert message == {
            "type": f"{prefix}.{kind}",
            "event_id": "event_1",
            "session": dialect.session_object("sess_1", 5, config),
        }


def test_a_new_item_is_added_and_done_in_ga() -> None:
    item = {
        "id": "item_2",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    assert written(GA, ItemAdded(previous_item_id="item_1", item=wire_item("item_2"))) == [
        {"type": f"conversation.item.{kind}", "event_id": f"event_{n}", "previous_item_id": "item_1", "item": item}
        for n, kind in ((1, "added"), (2, "done"))
    ]


def test_a_new_item_is_created_in_beta() -> None:
    (message,) = written(BETA, ItemAdded(previous_item_id=None, item=wire_item("item_1")))
    assert message["type"] == "conversation.item.created"
    assert message["previous_item_id"] is None
    assert message["item"]["object"] == "realtime.item"


def test_only_the_beta_marks_a_retrieved_item() -> None:
    event = ItemRetrieved(item=wire_item("item_1", "Yes", "AAAA"))
    (ga,), (beta,) = written(GA, event), written(BETA, event)
    assert beta["item"].pop("object") == "realtime.item"
    assert ga == beta
    assert ga["item"]["content"] == [{"type": "input_audio", "transcript": "Yes", "audio": "AAAA"}]


@both
def test_null_stays_and_what_was_not_asked_for_is_left_out(dialect: Dialect) -> None:
    (committed,) = written(dialect, Committed(previous_item_id=None, item_id="item_1"))
    assert committed == {
        "type": "input_audio_buffer.committed",
        "event_id": "event_1",
        "previous_item_id": None,
        "item_id": "item_1",
    }
    (delta,) = written(dialect, TranscriptionDelta(item_id="item_1", delta="é"))
    assert delta == {
        "type": "conversation.item.input_audio_transcription.delta",
        "event_id": "event_1",
        "item_id": "item_1",
        "content_index": 0,
        "delta": "é",
    }
    (completed,) = written(
        dialect,
        TranscriptionCompleted(item_id="item_1", transcript="", usage=DurationUsage(seconds=1), logprobs=[]),
    )
    assert completed["logprobs"] == []
    assert completed["usage"] == {"type": "duration", "seconds": 1}


@both
def test_an_error_has_all_its_fields(dialect: Dialect) -> None:
    (message,) = written(dialect, ErrorEvent.of(ClientError("some_code", "Words.", event_id="my-1")))
    assert message == {
        "type": "error",
        "event_id": "event_1",
        "error": {
            "type": "invalid_request_error",
            "code": "some_code",
            "message": "Words.",
            "param": None,
            "event_id": "my-1",
        },
    }


@both
def test_the_largest_session_fits_in_what_clients_take(dialect: Dialect) -> None:
    """A control character takes six in JSON, more than any other."""
    name = "\x01" * 256
    config = SessionConfig(
        transcription=Transcription(
            model=name,
            language=name,
            prompt="\x01" * MAX_PROMPT_LENGTH,
            keywords=[name] * MAX_KEYWORDS,
            languages=[name] * 100,
        )
    )
    (message,) = dialect.serialize(SessionUpdated(session_id="sess", expires_at=0, config=config), lambda kind: kind)
    assert len(message.encode()) < 2**20


@pytest.mark.parametrize(
    "event",
    [
        {"type": "x" * 5_000_000},
        {"type": "conversation.item.retrieve", "item_id": "x" * 5_000_000},
        {"type": "input_audio_buffer.clear", "event_id": "x" * 5_000_000},
    ],
    ids=["type", "item_id", "event_id"],
)
def test_what_is_too_long_does_not_come_back_whole(event: dict) -> None:
    with pytest.raises(ClientError) as caught:
        GA.parse(json.dumps(event))
    (message,) = GA.serialize(ErrorEvent.of(caught.value), lambda kind: kind)
    assert len(message) < 3_000


@pytest.mark.parametrize(
    ("field", "value"), [("silence_duration_ms", 10**400), ("prefix_padding_ms", 10**9), ("prefix_padding_ms", -1)]
)
def test_lengths_of_time_have_bounds(field: str, value: int) -> None:
    patch = {"type": "transcription", "audio": {"input": {"turn_detection": {"type": "server_vad", field: value}}}}
    with pytest.raises(ClientError) as caught:
        GA.update(SessionConfig(), patch)
    assert caught.value.code == ("integer_below_min_value" if value < 0 else "integer_above_max_value")
    assert caught.value.param == f"session.audio.input.turn_detection.{field}"

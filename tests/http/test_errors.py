"""Every error of a running session: its code, param and event id, and the session alive and unchanged after it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import RunningServer
from wire import (
    CLEARED,
    COMMITTED,
    COMPLETED,
    CREATED,
    LIVE_VAD,
    LOGPROBS,
    MODEL,
    UPDATE,
    UPDATED,
    VAD,
    DialectName,
    Wire,
    best_of_times,
    kinds,
    open_wire,
    session_patch,
    settings_of,
)
from words import said

both_dialects = pytest.mark.parametrize("dialect", ["ga", "beta"])

APPEND, COMMIT = "input_audio_buffer.append", "input_audio_buffer.commit"
RETRIEVE, DELETE = "conversation.item.retrieve", "conversation.item.delete"
MAX_APPEND_BYTES = 15 * 1024 * 1024

_BETA_PATHS = {
    "session.audio.input.format": "session.input_audio_format",
    "session.audio.input.transcription": "session.input_audio_transcription",
    "session.audio.input.noise_reduction": "session.input_audio_noise_reduction",
    "session.audio.input.turn_detection": "session.turn_detection",
}


def in_dialect(param: str | None, dialect: DialectName) -> str | None:
    """The path of a setting, given as GA has it."""
    if dialect == "beta" and param:
        for ga_path, beta_path in _BETA_PATHS.items():
            param = param.replace(ga_path, beta_path)
    return param


def settled(wire: Wire) -> dict[str, Any]:
    """Settings that are not the defaults, so that a reset would be seen."""
    session = wire.update(
        transcription=MODEL | {"language": "en", "prompt": "Dickens"},
        turn_detection=VAD,
        noise_reduction={"type": "far_field"},
        include=[LOGPROBS],
    )
    return settings_of(session, wire.dialect)


def check_refused(wire: Wire, message: str | bytes, code: str, params: Sequence[str | None], event_id: Any) -> str:
    """Send a message and fail unless it is refused and changes nothing. Returns the error's message."""
    before = settled(wire)
    seen = len(wire.events)
    wire.socket.send(message)
    event = wire.until("error")[-1]
    assert len(wire.events) == seen + 1
    error = event["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["code"], error["event_id"]) == (code, event_id), error
    assert error["param"] in params, error
    assert settings_of(wire.update(), wire.dialect) == before
    wire.clear()
    assert kinds(wire.until(CLEARED)) == [CLEARED]
    return error["message"]


# Messages that are no events

NO_EVENTS = {
    "binary frame": (b'{"type": "input_audio_buffer.clear"}', "invalid_event", None),
    "empty binary frame": (b"", "invalid_event", None),
    "no JSON": ("hello", "invalid_json", None),
    "empty text": ("", "invalid_json", None),
    "half of JSON": ('{"type": "input_audio_buffer.clear"', "invalid_json", None),
    "single quotes": ("{'type': 'input_audio_buffer.clear'}", "invalid_json", None),
    "NaN": ('{"type": "session.update", "session": {"x": NaN}}', "invalid_json", None),
    "too deep": ("[" * 100_000 + "]" * 100_000, "invalid_json", None),
    "half a surrogate pair": ('{"type": "\\ud800"}', "invalid_json", None),
    "array": ("[]", "invalid_event", None),
    "string": ('"input_audio_buffer.clear"', "invalid_event", None),
    "null": ("null", "invalid_event", None),
    "no type": ("{}", "invalid_event", None),
    "type is null": ('{"type": null}', "invalid_event", None),
}


@both_dialects
@pytest.mark.parametrize("name", NO_EVENTS)
def test_message_that_is_no_event_is_refused(server: RunningServer, dialect: DialectName, name: str) -> None:
    message, code, param = NO_EVENTS[name]
    with open_wire(server.socket_url, dialect) as wire:
        check_refused(wire, message, code, [param], None)


def test_missing_type_is_told_with_the_event_id(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        text = check_refused(wire, '{"event_id": "mine", "audio": ""}', "invalid_event", [None], "mine")
    assert text == "The 'type' field is missing."


def test_binary_frame_is_told_what_to_send(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        text = check_refused(wire, b"\x00\x01", "invalid_event", [None], None)
    assert text == "Expected a text WebSocket message; binary frames are not supported."


@both_dialects
@pytest.mark.parametrize("kind", [7, 1.5, True, [], ["input_audio_buffer.clear"], {}, {"a": 1}], ids=str)
def test_type_that_is_no_string_is_refused(server: RunningServer, dialect: DialectName, kind: object) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        settled(wire)
        wire.send(kind, event_id="mine")  # type: ignore[arg-type]
        error = wire.until("error")[-1]["error"]
        assert error["code"] in ("invalid_type", "invalid_value", "invalid_event")
        assert error["event_id"] == "mine"
        wire.update()


@pytest.mark.parametrize("event_id", [5, None, ["x"], {}], ids=str)
def test_event_id_that_is_no_string_is_not_echoed(server: RunningServer, event_id: object) -> None:
    with open_wire(server.socket_url) as wire:
        settled(wire)
        wire.send("no.such.event", event_id=event_id)
        assert wire.until("error")[-1]["error"]["event_id"] is None
        wire.update()


# Faulty events: kind, fields, code, param (several where the reference leaves it open)

ANY = (None, "type")
FAULTY_EVENTS: dict[str, tuple[str, dict[str, Any], str, tuple[str | None, ...]]] = {
    "unknown type": ("no.such.event", {}, "invalid_value", ("type",)),
    "empty type": ("", {}, "invalid_value", ("type",)),
    "response.create": ("response.create", {}, "invalid_parameter", ANY),
    "response.cancel": ("response.cancel", {}, "invalid_parameter", ANY),
    "item.create": ("conversation.item.create", {"item": {}}, "invalid_parameter", ANY),
    "item.truncate": ("conversation.item.truncate", {"item_id": "item_1"}, "invalid_parameter", ANY),
    "output.clear": ("output_audio_buffer.clear", {}, "invalid_parameter", ANY),
    "append without audio": (APPEND, {}, "missing_required_parameter", ("audio",)),
    "append of null": (APPEND, {"audio": None}, "invalid_type", ("audio",)),
    "append of a number": (APPEND, {"audio": 7}, "invalid_type", ("audio",)),
    "append of nothing": (APPEND, {"audio": ""}, "invalid_value", ("audio",)),
    "append of no base64": (APPEND, {"audio": "****"}, "invalid_value", ("audio",)),
    "append of cut base64": (APPEND, {"audio": "AAAAA"}, "invalid_value", ("audio",)),
    "append of base64 and more": (APPEND, {"audio": "AAAA!AAA"}, "invalid_value", ("audio",)),
    "append of letters of others": (APPEND, {"audio": "ÄÖÜß"}, "invalid_value", ("audio",)),
    "append of padding": (APPEND, {"audio": "===="}, "invalid_value", ("audio",)),
    "commit of nothing": (COMMIT, {}, "input_audio_buffer_commit_empty", (None,)),
    "retrieve of no item": (RETRIEVE, {"item_id": "item_none"}, "item_retrieve_invalid_item_id", (None,)),
    "delete of no item": (DELETE, {"item_id": "item_none"}, "item_delete_invalid_item_id", (None,)),
    "retrieve without id": (RETRIEVE, {}, "missing_required_parameter", ("item_id",)),
    "delete without id": (DELETE, {}, "missing_required_parameter", ("item_id",)),
    "retrieve of a number": (RETRIEVE, {"item_id": 1}, "invalid_type", ("item_id",)),
}


@both_dialects
@pytest.mark.parametrize("name", FAULTY_EVENTS)
def test_faulty_event_is_refused(server: RunningServer, dialect: DialectName, name: str) -> None:
    kind, fields, code, params = FAULTY_EVENTS[name]
    message = json.dumps({"type": kind, "event_id": "mine", **fields})
    with open_wire(server.socket_url, dialect) as wire:
        check_refused(wire, message, code, params, "mine")


@both_dialects
def test_unknown_type_is_told_the_known_ones(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        text = check_refused(wire, '{"type": "nonsense"}', "invalid_value", ["type"], None)
    assert text.startswith("Invalid value: 'nonsense'. Supported values are: '")
    for kind in (UPDATE[dialect], APPEND, COMMIT, "input_audio_buffer.clear", RETRIEVE, DELETE):
        assert f"'{kind}'" in text


@both_dialects
def test_update_of_the_other_dialect_is_an_unknown_type(server: RunningServer, dialect: DialectName) -> None:
    other: DialectName = "beta" if dialect == "ga" else "ga"
    message = {"type": UPDATE[other], "session": session_patch(other, transcription=MODEL), "event_id": "mine"}
    with open_wire(server.socket_url, dialect) as wire:
        check_refused(wire, json.dumps(message), "invalid_value", ["type"], "mine")


def test_event_id_may_have_512_characters_and_no_more(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        longest = "x" * 512
        wire.commit(event_id=longest)
        assert wire.until("error")[-1]["error"]["event_id"] == longest
        for kind, fields in ((COMMIT, {}), (UPDATE["ga"], {"session": {"type": "transcription"}})):
            wire.send(kind, event_id=longest + "x", **fields)
            error = wire.until("error")[-1]["error"]
            assert (error["code"], error["param"]) == ("string_above_max_length", "event_id")


@pytest.mark.parametrize("extra", [3, 4800])
def test_append_of_more_than_15_mib_is_refused(server: RunningServer, extra: int) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(turn_detection=None)
        wire.append_bytes(bytes(MAX_APPEND_BYTES + extra))
        error = wire.until("error")[-1]["error"]
        assert (error["code"], error["param"]) == ("string_above_max_length", "audio")
        wire.commit()
        assert wire.until("error")[-1]["error"]["code"] == "input_audio_buffer_commit_empty"


def test_errors_leave_the_audio_in_the_buffer(server: RunningServer) -> None:
    audio = best_of_times()
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.append(audio[:40_000])
        wire.socket.send(b"binary")
        wire.socket.send("no JSON")
        wire.send("nonsense")
        wire.send(APPEND, audio="*")
        wire.send(UPDATE["ga"], session={"type": "transcription", "foo": 1})
        wire.append(audio[40_000:])
        wire.commit()
        for _ in range(5):
            wire.until("error")
        wire.until(COMPLETED)
    assert kinds(wire.events).count("error") == 5
    assert said(wire.text)


@both_dialects
def test_item_is_named_in_the_message(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        message = json.dumps({"type": RETRIEVE, "item_id": "item_X"})
        text = check_refused(wire, message, "item_retrieve_invalid_item_id", [None, "item_id"], None)
        assert text == "Error retrieving item: the item with id 'item_X' does not exist."
        message = json.dumps({"type": DELETE, "item_id": "item_X"})
        text = check_refused(wire, message, "item_delete_invalid_item_id", [None, "item_id"], None)
        assert text == "Error deleting item: the item with id 'item_X' does not exist."


# Faulty settings, by GA's names: settings, code, param

IN = "session.audio.input"
FAULTY_SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown model": ({"transcription": {"model": "nobody"}}, "invalid_value", f"{IN}.transcription.model"),
    "model is a number": ({"transcription": {"model": 4}}, "invalid_type", f"{IN}.transcription.model"),
    "unknown key": ({"transcription": {"foo": 1}}, "unknown_parameter", f"{IN}.transcription.foo"),
    "unspoken language": ({"transcription": {"language": "de"}}, "invalid_value", f"{IN}.transcription.language"),
    "no language": ({"transcription": {"language": "english!"}}, "invalid_value", f"{IN}.transcription.language"),
    "unspoken languages": ({"transcription": {"languages": ["de"]}}, "invalid_value", f"{IN}.transcription.languages"),
    "languages is text": ({"transcription": {"languages": "en"}}, "invalid_type", f"{IN}.transcription.languages"),
    "languages empty": ({"transcription": {"languages": []}}, "empty_array", f"{IN}.transcription.languages"),
    "keyword <": ({"transcription": {"keywords": ["ok", "a<b"]}}, "invalid_value", f"{IN}.transcription.keywords[1]"),
    "keyword >": ({"transcription": {"keywords": ["a>b"]}}, "invalid_value", f"{IN}.transcription.keywords[0]"),
    "keyword CR": ({"transcription": {"keywords": ["a\rb"]}}, "invalid_value", f"{IN}.transcription.keywords[0]"),
    "keyword LF": ({"transcription": {"keywords": ["a\nb"]}}, "invalid_value", f"{IN}.transcription.keywords[0]"),
    "delay": ({"transcription": {"delay": "huge"}}, "invalid_value", f"{IN}.transcription.delay"),
    "prompt is a number": ({"transcription": {"prompt": 1}}, "invalid_type", f"{IN}.transcription.prompt"),
    "transcription is text": ({"transcription": "gpt-4o-transcribe"}, "invalid_type", f"{IN}.transcription"),
    "VAD type": ({"turn_detection": {"type": "foo"}}, "invalid_value", f"{IN}.turn_detection.type"),
    "VAD no type": ({"turn_detection": {}}, "missing_required_parameter", f"{IN}.turn_detection.type"),
    "VAD no type but more": (
        {"turn_detection": {"threshold": 0.4}},
        "missing_required_parameter",
        f"{IN}.turn_detection.type",
    ),
    "VAD is text": ({"turn_detection": "server_vad"}, "invalid_type", f"{IN}.turn_detection"),
    "threshold high": (
        {"turn_detection": {"type": "server_vad", "threshold": 1.5}},
        "decimal_above_max_value",
        f"{IN}.turn_detection.threshold",
    ),
    "threshold low": (
        {"turn_detection": {"type": "server_vad", "threshold": -0.1}},
        "decimal_below_min_value",
        f"{IN}.turn_detection.threshold",
    ),
    "threshold is text": (
        {"turn_detection": {"type": "server_vad", "threshold": "0.5"}},
        "invalid_type",
        f"{IN}.turn_detection.threshold",
    ),
    "silence below 0": (
        {"turn_detection": {"type": "server_vad", "silence_duration_ms": -1}},
        "integer_below_min_value",
        f"{IN}.turn_detection.silence_duration_ms",
    ),
    "silence is a fraction": (
        {"turn_detection": {"type": "server_vad", "silence_duration_ms": 0.5}},
        "invalid_type",
        f"{IN}.turn_detection.silence_duration_ms",
    ),
    "prefix below 0": (
        {"turn_detection": {"type": "server_vad", "prefix_padding_ms": -1}},
        "integer_below_min_value",
        f"{IN}.turn_detection.prefix_padding_ms",
    ),
    "VAD unknown key": (
        {"turn_detection": {"type": "server_vad", "foo": 1}},
        "unknown_parameter",
        f"{IN}.turn_detection.foo",
    ),
    "eagerness of server_vad": (
        {"turn_detection": {"type": "server_vad", "eagerness": "low"}},
        "unknown_parameter",
        f"{IN}.turn_detection.eagerness",
    ),
    "eagerness": (
        {"turn_detection": {"type": "semantic_vad", "eagerness": "wild"}},
        "invalid_value",
        f"{IN}.turn_detection.eagerness",
    ),
    "noise type": ({"noise_reduction": {"type": "no_field"}}, "invalid_value", f"{IN}.noise_reduction.type"),
    "noise unknown key": (
        {"noise_reduction": {"type": "near_field", "foo": 1}},
        "unknown_parameter",
        f"{IN}.noise_reduction.foo",
    ),
    "noise strength": (
        {"noise_reduction": {"type": "near_field", "strength": "all"}},
        "invalid_type",
        f"{IN}.noise_reduction.strength",
    ),
    "include": ({"include": ["everything"]}, "invalid_value", "session.include[0]"),
    "include is text": ({"include": LOGPROBS}, "invalid_type", "session.include"),
    "right and wrong": (
        {"transcription": {"model": "whisper-1"}, "include": None, "turn_detection": {"type": "foo"}},
        "invalid_value",
        f"{IN}.turn_detection.type",
    ),
}


@both_dialects
@pytest.mark.parametrize("name", FAULTY_SETTINGS)
def test_faulty_setting_refuses_the_whole_update(server: RunningServer, dialect: DialectName, name: str) -> None:
    settings, code, param = FAULTY_SETTINGS[name]
    message = {"type": UPDATE[dialect], "event_id": "mine", "session": session_patch(dialect, **settings)}
    with open_wire(server.socket_url, dialect) as wire:
        check_refused(wire, json.dumps(message), code, [in_dialect(param, dialect)], "mine")


FAULTY_GA_SESSIONS: dict[str, tuple[Any, str, tuple[str | None, ...]]] = {
    "unknown key": ({"type": "transcription", "foo": 1}, "unknown_parameter", ("session.foo",)),
    "unknown key of audio": (
        {"type": "transcription", "audio": {"output": {}}},
        "unknown_parameter",
        ("session.audio.output",),
    ),
    "unknown key of input": (
        {"type": "transcription", "audio": {"input": {"foo": 1}}},
        "unknown_parameter",
        (f"{IN}.foo",),
    ),
    "beta's key": ({"type": "transcription", "turn_detection": None}, "unknown_parameter", ("session.turn_detection",)),
    "no type": ({"audio": {}}, "missing_required_parameter", ("session.type",)),
    "wrong type": ({"type": "conversation"}, "invalid_value", ("session.type",)),
    "realtime": (
        {"type": "realtime", "instructions": "Talk.", "output_modalities": ["audio"]},
        "invalid_parameter",
        (None, ""),
    ),
    "model": (
        {"type": "transcription", "model": "gpt-4o-transcribe"},
        "invalid_parameter",
        (None, "", "session.model"),
    ),
    "format": (
        {"type": "transcription", "audio": {"input": {"format": {"type": "audio/opus"}}}},
        "invalid_value",
        (f"{IN}.format.type",),
    ),
    "format is text": (
        {"type": "transcription", "audio": {"input": {"format": "pcm16"}}},
        "invalid_type",
        (f"{IN}.format",),
    ),
    "rate low": (
        {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 7_999}}}},
        "integer_below_min_value",
        (f"{IN}.format.rate",),
    ),
    "rate high": (
        {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 48_001}}}},
        "integer_above_max_value",
        (f"{IN}.format.rate",),
    ),
    "rate of G.711": (
        {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu", "rate": 16_000}}}},
        "unknown_parameter",
        (f"{IN}.format.rate",),
    ),
    "session is null": (None, "invalid_type", ("session",)),
    "session is a list": ([], "invalid_type", ("session",)),
    "audio is a list": ({"type": "transcription", "audio": []}, "invalid_type", ("session.audio",)),
}
FAULTY_BETA_SESSIONS: dict[str, tuple[Any, str, tuple[str | None, ...]]] = {
    "unknown key": ({"foo": 1}, "unknown_parameter", ("session.foo",)),
    "GA's key": ({"audio": {}}, "unknown_parameter", ("session.audio",)),
    "GA's type": ({"type": "transcription"}, "unknown_parameter", ("session.type",)),
    "format": ({"input_audio_format": "opus"}, "invalid_value", ("session.input_audio_format",)),
    "GA's format": (
        {"input_audio_format": {"type": "audio/pcm"}},
        "invalid_type",
        ("session.input_audio_format",),
    ),
    "session is null": (None, "invalid_type", ("session",)),
}


def _sessions() -> list[tuple[DialectName, str]]:
    return [("ga", name) for name in FAULTY_GA_SESSIONS] + [("beta", name) for name in FAULTY_BETA_SESSIONS]


@pytest.mark.parametrize(("dialect", "name"), _sessions())
def test_faulty_session_is_refused(server: RunningServer, dialect: DialectName, name: str) -> None:
    session, code, params = (FAULTY_GA_SESSIONS if dialect == "ga" else FAULTY_BETA_SESSIONS)[name]
    message = json.dumps({"type": UPDATE[dialect], "event_id": "mine", "session": session})
    with open_wire(server.socket_url, dialect) as wire:
        check_refused(wire, message, code, params, "mine")


@both_dialects
def test_update_without_a_session_is_refused(server: RunningServer, dialect: DialectName) -> None:
    message = json.dumps({"type": UPDATE[dialect], "event_id": "mine"})
    with open_wire(server.socket_url, dialect) as wire:
        check_refused(wire, message, "missing_required_parameter", ["session"], "mine")


@both_dialects
def test_refusal_of_a_model_lists_those_there_are(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.send_update(transcription={"model": "nobody"})
        text = wire.until("error")[-1]["error"]["message"]
    assert "'nobody'" in text
    assert {"moonshine/tiny-en", "gpt-4o-transcribe", "whisper-1"} <= set(re.findall("'([^']+)'", text))


def test_refusal_of_a_language_names_what_the_model_speaks(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.send_update(transcription=MODEL | {"language": "de"})
        text = wire.until("error")[-1]["error"]["message"]
    assert "'de'" in text
    assert "'en'" in text


def test_refused_update_before_any_other_leaves_the_defaults(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        created = wire.until(CREATED["ga"])[-1]["session"]
        wire.send_update(transcription=MODEL, turn_detection={"type": "server_vad", "threshold": 7.5})
        assert wire.until("error", UPDATED["ga"])[-1]["type"] == "error"
        assert wire.update() == created
    assert created["audio"]["input"]["turn_detection"] == LIVE_VAD


def test_refused_turn_detection_leaves_the_old_rule_at_work(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        wire.send_update(turn_detection={"type": "server_vad", "threshold": 2.5})
        wire.until("error")
        wire.append(best_of_times())
        wire.commit()
        told = wire.until(COMMITTED)
    assert kinds(told) == [COMMITTED]

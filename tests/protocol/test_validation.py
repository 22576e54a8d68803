"""What is wrong with a session object, in OpenAI's words."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import MODELS

from auricle.errors import ClientError
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import SessionConfig
from auricle.protocol.ga import GaDialect
from auricle.protocol.validation import one_of

INPUT = "session.audio.input"
VAD = {"type": "server_vad"}


def refused(dialect: GaDialect | BetaDialect, settings: dict[str, Any]) -> tuple[str | None, str | None, str]:
    with pytest.raises(ClientError) as caught:
        dialect.update(SessionConfig(), settings)
    return caught.value.code, caught.value.param, caught.value.message


def in_ga(field: str, value: object) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": {field: value}}}


@pytest.mark.parametrize(
    ("settings", "code", "param", "message"),
    [
        ({}, "missing_required_parameter", "session.type", "Missing required parameter: 'session.type'."),
        (
            {"type": "transcription", "foo": 1},
            "unknown_parameter",
            "session.foo",
            "Unknown parameter: 'session.foo'.",
        ),
        (
            {"tpye": "transcription"},
            "unknown_parameter",
            "session.tpye",
            "Unknown parameter: 'session.tpye'.",
        ),
        ({"type": "translation"}, "invalid_value", "session.type", "Invalid value: 'translation'. Supported values"),
        (
            {"type": "realtime", "voice": "alloy"},
            "invalid_parameter",
            None,
            "Passing a realtime session update event to a transcription session is not allowed.",
        ),
        (
            {"type": "transcription", "model": "whisper-1"},
            "invalid_parameter",
            None,
            "You must not provide a model parameter for transcription sessions",
        ),
        (
            {"type": "transcription", "include": ["text"]},
            "invalid_value",
            "session.include[0]",
            "Invalid value: 'text'. Supported values are: 'item.input_audio_transcription.logprobs' and ",
        ),
        (
            {"type": "transcription", "audio": 1},
            "invalid_type",
            "session.audio",
            "Invalid type for 'session.audio': expected an object, but got an integer instead.",
        ),
        (
            {"type": "transcription", "audio": {"output": {}}},
            "unknown_parameter",
            "session.audio.output",
            "Unknown parameter: 'session.audio.output'.",
        ),
    ],
)
def test_faults_of_the_session_object(settings: dict[str, Any], code: str, param: str | None, message: str) -> None:
    found = refused(GaDialect(MODELS), settings)
    assert found[:2] == (code, param)
    assert found[2].startswith(message)


@pytest.mark.parametrize(
    ("field", "value", "code", "path", "message"),
    [
        (
            "format",
            {"type": "audio/pcm", "rate": 7_999},
            "integer_below_min_value",
            "format.rate",
            "Invalid 'session.audio.input.format.rate': integer below minimum value. Expected a value >= 8000, "
            "but got 7999 instead.",
        ),
        (
            "format",
            {"type": "audio/pcm", "rate": 48_001},
            "integer_above_max_value",
            "format.rate",
            "Invalid 'session.audio.input.format.rate': integer above maximum value. Expected a value <= 48000, "
            "but got 48001 instead.",
        ),
        (
            "format",
            {"type": "audio/pcm", "rate": "24000"},
            "invalid_type",
            "format.rate",
            "Invalid type for 'session.audio.input.format.rate': expected an integer, but got a string instead.",
        ),
        (
            "format",
            {"type": "audio/opus"},
            "invalid_value",
            "format.type",
            "Invalid value: 'audio/opus'. Supported values are: 'audio/pcm', 'audio/pcmu', and 'audio/pcma'.",
        ),
        ("format", "pcm16", "invalid_type", "format", "Invalid type for 'session.audio.input.format': expected an"),
        ("format", {"type": "audio/pcmu", "rate": 8_000}, "unknown_parameter", "format.rate", "Unknown parameter"),
        (
            "turn_detection",
            {"threshold": 0.7},
            "missing_required_parameter",
            "turn_detection.type",
            "Missing required parameter: 'session.audio.input.turn_detection.type'.",
        ),
        (
            "turn_detection",
            {"type": "client_vad"},
            "invalid_value",
            "turn_detection.type",
            "Invalid value: 'client_vad'. Supported values are: 'server_vad' and 'semantic_vad'.",
        ),
        (
            "turn_detection",
            {**VAD, "threshold": 1.5},
            "decimal_above_max_value",
            "turn_detection.threshold",
            "Invalid 'session.audio.input.turn_detection.threshold': decimal above maximum value. "
            "Expected a value <= 1, but got 1.5 instead.",
        ),
        (
            "turn_detection",
            {**VAD, "threshold": -0.5},
            "decimal_below_min_value",
            "turn_detection.threshold",
            "Invalid 'session.audio.input.turn_detection.threshold': decimal below minimum value.",
        ),
        (
            "turn_detection",
            {**VAD, "prefix_padding_ms": -1},
            "integer_below_min_value",
            "turn_detection.prefix_padding_ms",
            "Invalid 'session.audio.input.turn_detection.prefix_padding_ms': integer below minimum value.",
        ),
        (
            "turn_detection",
            {**VAD, "silence_duration_ms": 200.5},
            "invalid_type",
            "turn_detection.silence_duration_ms",
            "Invalid type for 'session.audio.input.turn_detection.silence_duration_ms': expected an integer, "
            "but got a decimal instead.",
        ),
        (
            "turn_detection",
            {**VAD, "silence_duration_ms": True},
            "invalid_type",
            "turn_detection.silence_duration_ms",
            "",
        ),
        ("turn_detection", {**VAD, "eagerness": "low"}, "unknown_parameter", "turn_detection.eagerness", ""),
        (
            "turn_detection",
            {"type": "semantic_vad", "eagerness": "extreme"},
            "invalid_value",
            "turn_detection.eagerness",
            "Invalid value: 'extreme'. Supported values are: 'low', 'medium', 'high', and 'auto'.",
        ),
        (
            "noise_reduction",
            {"type": "no_field"},
            "invalid_value",
            "noise_reduction.type",
            "Invalid value: 'no_field'.",
        ),
        ("noise_reduction", {}, "missing_required_parameter", "noise_reduction.type", ""),
        (
            "noise_reduction",
            {"type": "near_field", "strength": 2},
            "decimal_above_max_value",
            "noise_reduction.strength",
            "",
        ),
        (
            "transcription",
            {"model": "nobody"},
            "invalid_value",
            "transcription.model",
            "Invalid value: 'nobody'. Supported values are: 'fake/english', 'fake/many', 'gpt-4o-transcribe', ",
        ),
        ("transcription", {"model": None}, "invalid_type", "transcription.model", ""),
        (
            "transcription",
            {"language": "de"},
            "invalid_value",
            "transcription.language",
            "Invalid value: 'de'. The model 'fake/english' understands: 'en'.",
        ),
        (
            "transcription",
            {"languages": ["de", "fr"]},
            "invalid_value",
            "transcription.languages",
            "Invalid value: 'de, fr'. The model 'fake/english' understands: 'en'.",
        ),
        (
            "transcription",
            {"languages": []},
            "empty_array",
            "transcription.languages",
            "Invalid 'session.audio.input.transcription.languages': empty array. Expected an array with minimum "
            "length 1, but got an empty array instead.",
        ),
        ("transcription", {"keywords": ["a<b"]}, "invalid_value", "transcription.keywords[0]", "Invalid '"),
        ("transcription", {"keywords": ["a", "b\n"]}, "invalid_value", "transcription.keywords[1]", "Invalid '"),
        ("transcription", {"delay": "none"}, "invalid_value", "transcription.delay", "Invalid value: 'none'."),
        ("transcription", {"prompt": 1}, "invalid_type", "transcription.prompt", ""),
        ("transcription", {"temperature": 0}, "unknown_parameter", "transcription.temperature", ""),
        ("transcription", "whisper-1", "invalid_type", "transcription", ""),
    ],
)
def test_faults_of_the_audio_input(field: str, value: object, code: str, path: str, message: str) -> None:
    found = refused(GaDialect(MODELS), in_ga(field, value))
    assert found[:2] == (code, f"{INPUT}.{path}")
    assert found[2].startswith(message)


@pytest.mark.parametrize(
    ("settings", "code", "param"),
    [
        ({"input_audio_format": "pcm24"}, "invalid_value", "session.input_audio_format"),
        (
            {"input_audio_transcription": {"model": "nobody"}},
            "invalid_value",
            "session.input_audio_transcription.model",
        ),
        (
            {"input_audio_noise_reduction": {"type": "near"}},
            "invalid_value",
            "session.input_audio_noise_reduction.type",
        ),
        ({"turn_detection": {"type": "x"}}, "invalid_value", "session.turn_detection.type"),
        ({"turn_detection": {}}, "missing_required_parameter", "session.turn_detection.type"),
        ({"type": "transcription"}, "unknown_parameter", "session.type"),
        ({"audio": {}}, "unknown_parameter", "session.audio"),
    ],
)
def test_faults_in_the_beta_form(settings: dict[str, Any], code: str, param: str) -> None:
    assert refused(BetaDialect(MODELS), settings)[:2] == (code, param)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    assert refused(GaDialect(MODELS), in_ga("turn_detection", {**VAD, "threshold": value}))[1] == (
        f"{INPUT}.turn_detection.threshold"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", {"type": "audio/pcm", "rate": 8_000}),
        ("format", {"type": "audio/pcm", "rate": 48_000}),
        ("turn_detection", {**VAD, "threshold": 0}),
        ("turn_detection", {**VAD, "threshold": 1, "silence_duration_ms": 0, "prefix_padding_ms": 0}),
        ("turn_detection", {**VAD, "create_response": True, "interrupt_response": False, "idle_timeout_ms": None}),
        ("turn_detection", {"type": "semantic_vad", "create_response": None, "interrupt_response": None}),
        ("noise_reduction", {"type": "far_field", "strength": 0}),
        ("transcription", {"model": "whisper-1", "language": "en-US"}),
        ("transcription", {"languages": ["de", "en"], "keywords": [], "delay": "xhigh"}),
        ("transcription", {"model": "whisper-1", "language": None, "prompt": None}),
    ],
)
def test_values_at_the_edge_are_taken(field: str, value: dict[str, Any]) -> None:
    config = GaDialect(MODELS).update(SessionConfig(), in_ga(field, value))
    told = getattr(config, field).model_dump()
    assert {key: told[key] for key in value if key in told} == {key: value[key] for key in value if key in told}


def test_lists_are_worded_as_openai_does() -> None:
    assert one_of(["a"]) == "'a'"
    assert one_of(["a", "b"]) == "'a' and 'b'"
    assert one_of(["a", "b", "c"]) == "'a', 'b', and 'c'"

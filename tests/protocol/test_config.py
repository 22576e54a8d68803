"""Settings free of any dialect: merging, defaults and models."""

from __future__ import annotations

import pytest
from fakes import MODELS

from auricle.errors import ClientError
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import (
    SELF_COMMITTING_MODELS,
    WORDS,
    ModelDirectory,
    ModelInfo,
    ServerVad,
    SessionConfig,
    Transcription,
    merged,
)
from auricle.protocol.dialect import Dialect
from auricle.protocol.ga import GaDialect


@pytest.mark.parametrize(
    ("current", "patch", "result"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}, {"a": {"b": {"c": 1, "d": 2}}}),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 0.7}},
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 9}},
            {"turn_detection": {"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 9}},
        ),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 0.7}},
            {"turn_detection": {"type": "semantic_vad"}},
            {"turn_detection": {"type": "semantic_vad"}},
        ),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 0.7}},
            {"turn_detection": {"threshold": 0.9}},
            {"turn_detection": {"threshold": 0.9}},
        ),
        (
            {"format": {"type": "audio/pcm", "rate": 16_000}},
            {"format": {"type": "audio/pcmu"}},
            {"format": {"type": "audio/pcmu"}},
        ),
        (
            {"noise_reduction": {"type": "near_field", "strength": 0.5}},
            {"noise_reduction": {"type": "far_field"}},
            {"noise_reduction": {"type": "far_field", "strength": 0.5}},
        ),
    ],
)
def test_an_update_is_laid_over_what_there_is(current: dict, patch: dict, result: dict) -> None:
    before = repr(current)
    assert merged(current, patch) == result
    assert repr(current) == before


@pytest.mark.parametrize("model", ["", "whisper-1", "gpt-4o-transcribe", "gpt-transcribe"])
def test_turns_are_detected_unless_said_otherwise(model: str) -> None:
    config = SessionConfig(transcription=Transcription(model=model)).with_default_turn_detection()
    assert config.turn_detection == ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200)


@pytest.mark.parametrize("model", sorted(SELF_COMMITTING_MODELS))
def test_models_whose_clients_commit_have_no_turn_detection_unless_it_is_given(model: str) -> None:
    config = SessionConfig(transcription=Transcription(model=model))
    assert config.with_default_turn_detection().turn_detection is None
    given = config.model_copy(update={"turn_detection_given": True})
    assert given.with_default_turn_detection().turn_detection == ServerVad()


def test_the_models_whose_clients_commit_are_the_two_of_livekit() -> None:
    assert set(SELF_COMMITTING_MODELS) == {"gpt-live-transcribe", "gpt-realtime-whisper"}


def test_a_dated_name_of_such_a_model_means_the_same() -> None:
    config = SessionConfig(transcription=Transcription(model="gpt-realtime-whisper-2026-05-01"))
    assert config.with_default_turn_detection().turn_detection is None


def test_turn_detection_comes_back_with_another_model() -> None:
    live = SessionConfig(transcription=Transcription(model="gpt-live-transcribe")).with_default_turn_detection()
    other = live.model_copy(update={"transcription": Transcription(model="whisper-1")})
    assert other.with_default_turn_detection().turn_detection == ServerVad()


def test_no_turn_detection_stays_none_when_given() -> None:
    config = SessionConfig(turn_detection=None, turn_detection_given=True)
    assert config.with_default_turn_detection().turn_detection is None


def test_a_session_without_a_model_gets_the_default() -> None:
    assert MODELS.resolve(Transcription(prompt="hi"), "t") == Transcription(model="fake/english", prompt="hi")


def test_an_alias_stays_as_it_was_said() -> None:
    assert MODELS.resolve(Transcription(model="whisper-1"), "t").model == "whisper-1"
    assert MODELS.find("whisper-1") == MODELS.find("fake/many")


@pytest.mark.parametrize("language", ["de", "DE", "de-AT", "de_CH"])
def test_regions_and_case_of_a_language_play_no_part(language: str) -> None:
    options = Transcription(model="whisper-1", language=language)
    assert MODELS.resolve(options, "t").language == language


def test_one_language_of_several_is_enough() -> None:
    assert MODELS.resolve(Transcription(languages=["xx", "en"]), "t").languages == ["xx", "en"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        (Transcription(model="x"), "t.model"),
        (Transcription(language="xx"), "t.language"),
        (Transcription(language=""), "t.language"),
        (Transcription(languages=["xx"]), "t.languages"),
    ],
)
def test_what_no_model_can_do_is_refused(options: Transcription, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        MODELS.resolve(options, "t")
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)


@pytest.mark.parametrize(("aliases", "default"), [({"a": "nobody"}, "m"), ({}, "nobody")])
def test_names_without_a_model_are_refused(aliases: dict, default: str) -> None:
    with pytest.raises(ValueError, match="There is no model 'nobody'"):
        ModelDirectory([ModelInfo("m", ("en",))], aliases, default)


def test_all_names_are_listed_models_first() -> None:
    directory = ModelDirectory([ModelInfo("m", ("en",)), ModelInfo("n", ("en",))], {"a": "n"}, "m")
    assert directory.names == ["m", "n", "a"]


@pytest.mark.parametrize("dialect", [GaDialect(MODELS), BetaDialect(MODELS)], ids=["ga", "beta"])
def test_words_are_included_only_where_the_model_can_tell_when_they_were_said(dialect: Dialect) -> None:
    patch = {"include": [WORDS]} | ({"type": "transcription"} if dialect.name == "ga" else {})
    able, unable = (SessionConfig(transcription=Transcription(model=model)) for model in ("fake/english", "whisper-1"))
    assert dialect.update(able, patch).include == [WORDS]
    with pytest.raises(ClientError, match="'whisper-1' can't tell when words were said") as error:
        dialect.update(unable, patch)
    assert (error.value.code, error.value.param) == ("invalid_value", "session.include")

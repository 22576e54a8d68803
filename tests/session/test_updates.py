"""Changes of the settings, also in the middle of things."""

from __future__ import annotations

from fakes import (
    MODELS,
    OPTIONS,
    PCM_16K,
    append,
    audio_samples,
    events_of,
    finals_of,
    hear,
    jobs_of,
    said,
    session_with,
    speak,
    wire_item,
    without_live,
)

from auricle.errors import ClientError
from auricle.protocol.config import G711, LOGPROBS, ServerVad, SessionConfig
from auricle.protocol.events import (
    Commit,
    Committed,
    ErrorEvent,
    ItemAdded,
    LogProb,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    UpdateSession,
)
from auricle.protocol.ga import GaDialect


def update(**settings: object) -> UpdateSession:
    """An update that sets fields of SessionConfig."""
    return UpdateSession(apply=lambda config: SessionConfig(**{**dict(config), **settings}))


def test_an_update_is_answered_with_all_settings() -> None:
    session = session_with()
    (updated,) = session.receive_event(update(include=[LOGPROBS]))
    assert updated == SessionUpdated(
        session_id="sess_1",
        expires_at=3600,
        config=SessionConfig(format=PCM_16K, transcription=OPTIONS, include=[LOGPROBS]),
    )
    assert session.config == updated.config


def test_a_refused_update_changes_nothing() -> None:
    session = session_with()
    before = session.config
    dialect = GaDialect(MODELS)
    event = dialect.parse(
        '{"type": "session.update", "event_id": "mine", "session": {"type": "transcription", "audio": {"input": '
        '{"turn_detection": null, "transcription": {"model": "nobody"}}}}}'
    )
    (error,) = session.receive_event(event)
    assert isinstance(error, ErrorEvent)
    assert error.error.event_id == "mine"
    assert error.error.param == "session.audio.input.transcription.model"
    assert session.config is before
    assert len(without_live(speak(session, *[0.9] * 5, *[0.0] * 7))) == 5


def test_transcription_settings_are_those_at_the_commit() -> None:
    session = session_with()
    speak(session, *[0.9] * 5)
    session.receive_event(update(transcription=OPTIONS.model_copy(update={"prompt": "new"})))
    (first,) = finals_of(speak(session, *[0.0] * 7))
    session.receive_event(update(transcription=None))
    assert first.options.prompt == "new"
    assert [event.type.rpartition(".")[2] for event in session.receive_hypothesis("item_1", said("Yes"))] == [
        "delta",
        "completed",
    ]
    outputs = speak(session, *[0.9] * 5, *[0.0] * 7)
    assert [type(output) for output in outputs] == [SpeechStarted, SpeechStopped, Committed, ItemAdded]


def test_turn_detection_off_in_speech_keeps_the_item_for_the_commit() -> None:
    session = session_with()
    speak(session, *[0.0] * 20, *[0.9] * 5)
    assert len(session.receive_event(update(turn_detection=None))) == 1
    assert events_of(speak(session, *[0.0] * 30)) == []
    assert session.is_idle  # nothing will end the item but the client
    outputs = session.receive_event(Commit())
    assert events_of(outputs) == [
        Committed(previous_item_id=None, item_id="item_1"),
        ItemAdded(previous_item_id=None, item=wire_item("item_1")),
    ]
    assert audio_samples(session, "item_1") == 55 * 512 - 340 * 16


def test_turn_detection_off_and_on_in_speech_goes_on_with_the_turn() -> None:
    session = session_with()
    speak(session, *[0.9] * 5)
    session.receive_event(update(turn_detection=None))
    speak(session, *[0.0] * 20)
    session.receive_event(update(turn_detection=ServerVad()))
    outputs = events_of(speak(session, *[0.0] * 7))
    assert outputs[:2] == [
        SpeechStopped(audio_end_ms=32 * 32, item_id="item_1"),
        Committed(previous_item_id=None, item_id="item_1"),
    ]


def test_turn_detection_off_commit_and_on_begins_anew() -> None:
    session = session_with()
    speak(session, *[0.9] * 5)
    session.receive_event(update(turn_detection=None))
    session.receive_event(Commit())
    session.receive_event(update(turn_detection=ServerVad()))
    assert speak(session, *[0.0] * 20) == []
    assert [type(output) for output in speak(session, 0.9)] == [SpeechStarted]


def test_turn_detection_starts_with_the_audio_after_its_update() -> None:
    session = session_with(turn_detection=None)
    assert speak(session, *[0.0] * 10) == []
    assert len(session.receive_event(update(turn_detection=ServerVad()))) == 1
    (started,) = speak(session, 0.0, 0.9)
    assert started == SpeechStarted(audio_start_ms=11 * 32 - 300, item_id="item_2")  # the first was told to nobody


def test_a_new_rule_holds_for_the_open_turn() -> None:
    session = session_with()
    speak(session, *[0.9] * 5)
    session.receive_event(update(turn_detection=ServerVad(silence_duration_ms=500)))
    assert events_of(speak(session, *[0.0] * 15)) == []
    assert next(type(event) for event in events_of(speak(session, 0.0))) is SpeechStopped


def test_a_new_format_reads_the_audio_after_it_and_keeps_the_audio_before() -> None:
    session = session_with(turn_detection=None)
    speak(session, *[0.9] * 10)
    session.receive_event(update(format=G711(type="audio/pcmu")))
    ulaw = G711(type="audio/pcmu").audio_format
    hear(session, session.receive_event(append(10, 0.5, ulaw)), [0.9])
    (decode,) = jobs_of(hear(session, session.receive_event(Commit()), [0.9]))
    assert decode.samples.size == 20 * 512
    assert abs(decode.samples[:5_120]).max() == 0
    assert 0.4 < abs(decode.samples[6_000:9_000]).min() < 0.6


def test_logprobs_come_only_where_they_are_included() -> None:
    session = session_with()
    speak(session, *[0.9] * 5, *[0.0] * 7)
    session.receive_event(update(include=[LOGPROBS]))
    speak(session, *[0.9] * 5, *[0.0] * 7)
    without = session.receive_hypothesis("item_1", said(" Yes", ".", logprob=-0.25))
    assert [event.logprobs for event in without] == [None, None]
    expected = [
        LogProb(token="Yes", logprob=-0.25, bytes=[89, 101, 115]),
        LogProb(token=".", logprob=-0.25, bytes=[46]),
    ]
    with_them = session.receive_hypothesis("item_2", said(" Yes", ".", logprob=-0.25))
    assert [event.logprobs for event in with_them] == [expected, expected]


def test_included_logprobs_of_no_text_are_an_empty_list() -> None:
    session = session_with(include=[LOGPROBS])
    completed = speak(session, 0.9, *[0.0] * 7)[-1]
    assert isinstance(completed, TranscriptionCompleted)
    assert completed.logprobs == []


def test_usage_counts_tokens_for_gpt_4o() -> None:
    session = session_with(transcription=MODELS.resolve(OPTIONS.model_copy(update={"model": "gpt-4o-transcribe"}), ""))
    speak(session, *[0.9] * 5, *[0.0] * 7)
    completed = session.receive_hypothesis("item_1", said(" Yes", "."))[-1]
    assert completed.usage.model_dump() == {
        "type": "tokens",
        "total_tokens": 6,
        "input_tokens": 4,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 4},
        "output_tokens": 2,
    }


def test_an_error_in_an_update_is_told_with_its_code() -> None:
    def refuse(config: SessionConfig) -> SessionConfig:
        raise ClientError("unknown_parameter", "Unknown parameter: 'session.foo'.", "session.foo")

    (error,) = session_with().receive_event(UpdateSession(event_id="my-1", apply=refuse))
    assert error.model_dump() == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "code": "unknown_parameter",
            "message": "Unknown parameter: 'session.foo'.",
            "param": "session.foo",
            "event_id": "my-1",
        },
    }

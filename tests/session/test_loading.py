"""A change of the model waits until the model is there, and what comes after it waits with it."""

from __future__ import annotations

import json

from fakes import MODELS, OPTIONS, append, events_of, finals_of, hear, jobs_of, said, session_with, speak

from auricle.errors import EngineError
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import G711, ServerVad, Transcription
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import (
    Clear,
    Cleared,
    ClientEvent,
    Commit,
    ErrorDetail,
    ErrorEvent,
    SessionUpdated,
    SpeechStarted,
)
from auricle.protocol.ga import GaDialect
from auricle.session.jobs import DetectSpeech, LoadModel
from auricle.session.session import Session

GA, BETA = GaDialect(MODELS), BetaDialect(MODELS)
MANY = LoadModel("fake/many")
LOST = EngineError("The weights of fake/many are not in /cache. Fetch them: auricle models pull fake/many.")


def update(model: str | None, dialect: Dialect = GA, **settings: object) -> ClientEvent:
    """A client's update that names a model, or none, and sets further fields."""
    transcription = model and {"model": model}
    if dialect is BETA:
        session = {"input_audio_transcription": transcription, **settings}
    else:
        session = {"type": "transcription", "audio": {"input": {"transcription": transcription, **settings}}}
    return dialect.parse(json.dumps({"type": dialect.update_type, "event_id": "mine", "session": session}))


def updated(session: Session) -> SessionUpdated:
    return SessionUpdated(session_id="sess_1", expires_at=3600, config=session.config)


def test_a_session_that_begins_with_a_model_has_it_loaded_at_once() -> None:
    session = session_with()
    assert session.start() == [session.created, LoadModel("fake/english")]
    assert session.receive_loaded(LoadModel("fake/english")) == []
    nothing = session_with(transcription=None)
    assert nothing.start() == [nothing.created]


def test_an_update_that_names_another_model_is_answered_when_that_is_there() -> None:
    session = session_with()
    before = session.config
    assert session.receive_event(update("fake/many")) == [MANY]
    assert session.config is before
    assert not session.is_idle
    assert session.receive_loaded(MANY) == [updated(session)]
    assert session.config.transcription == Transcription(model="fake/many")
    assert session.is_idle


def test_other_updates_do_not_wait() -> None:
    session = session_with()
    for event in (
        update("fake/english", turn_detection=None),
        update("fake/english", transcription={"model": "fake/english", "prompt": "a"}),
        update(None),
    ):
        assert session.receive_event(event) == [updated(session)]


def test_what_comes_after_the_update_waits_with_it_in_its_order() -> None:
    """Audio, too: the update may say how it is to be read."""
    session = session_with(turn_detection=None)
    ulaw = G711(type="audio/pcmu")
    assert session.receive_event(update("fake/many", format=ulaw.model_dump())) == [MANY]
    for event in (append(20, 0.5, ulaw.audio_format), Commit(), Clear()):
        assert session.receive_event(event) == []
    assert session.backlog_s > 0.2  # more than two events
    outputs = session.receive_loaded(MANY)
    assert outputs[0] == updated(session)
    (decode,) = finals_of(rest := hear(session, outputs[1:], [0.9]))
    assert decode.options == Transcription(model="fake/many")
    assert decode.samples.size == 20 * 512  # read as µ-law
    assert isinstance(events_of(rest)[-1], Cleared)


def test_a_model_that_cannot_be_loaded_refuses_the_update_whole() -> None:
    for dialect, param in (
        (GA, "session.audio.input.transcription.model"),
        (BETA, "session.input_audio_transcription.model"),
    ):
        session = session_with()
        before = session.config
        assert session.receive_event(update("fake/many", dialect, turn_detection=None)) == [MANY]
        session.receive_event(append(5, 0.9))
        error, *rest = session.receive_failure(MANY, LOST)
        assert error == ErrorEvent(
            error=ErrorDetail(
                type="server_error", code="model_unavailable", message=str(LOST), param=param, event_id="mine"
            )
        )
        assert session.config is before
        (started,) = hear(session, rest, [0.9])  # the session lives on under its old settings
        assert isinstance(started, SpeechStarted)
        (decode,) = finals_of(speak(session, *[0.0] * 7))
        assert decode.options == OPTIONS


def test_a_model_that_could_not_be_loaded_is_asked_for_again() -> None:
    session = session_with()
    session.receive_event(update("fake/many"))
    session.receive_failure(MANY, LOST)
    assert session.receive_event(update("fake/many")) == [MANY]
    assert session.receive_loaded(MANY) == [updated(session)]


def test_an_update_under_the_model_that_still_loads_waits_for_it() -> None:
    """As LiveKit does: it names the model in the query, and again in its first event."""
    session = session_with()
    session.start()
    assert session.receive_event(update("fake/english", turn_detection=None)) == []
    assert session.receive_loaded(LoadModel("fake/english")) == [updated(session)]
    assert session.config.turn_detection is None


def test_a_session_whose_first_model_cannot_be_loaded_is_told_and_can_be_updated() -> None:
    session = session_with()
    session.start()
    session.receive_event(update("fake/english", turn_detection=None))
    error, answer = session.receive_failure(LoadModel("fake/english"), LOST)
    assert isinstance(error, ErrorEvent)
    assert (error.error.code, error.error.param, error.error.event_id) == ("model_unavailable", None, None)
    assert answer == updated(session)
    assert session.config.turn_detection is None
    assert session.receive_event(update("fake/english", turn_detection=ServerVad().model_dump(exclude_none=True))) == [
        updated(session)
    ]


def test_only_the_model_that_was_asked_for_last_counts() -> None:
    session = session_with()
    session.start()
    assert session.receive_event(update("fake/many")) == [MANY]
    assert session.receive_failure(LoadModel("fake/english"), LOST) == []
    assert session.receive_loaded(MANY) == [updated(session)]


def test_text_of_earlier_items_does_not_wait() -> None:
    session = session_with()
    speak(session, *[0.9] * 5, *[0.0] * 7)
    session.receive_event(update("fake/many"))
    session.receive_event(append(5, 0.9))
    told = session.receive_hypothesis("item_1", said(" Yes"))
    assert [event.type.rpartition(".")[2] for event in told] == ["delta", "completed"]
    (again, detect) = session.receive_loaded(MANY)
    assert again == updated(session)
    assert isinstance(detect, DetectSpeech)


def test_a_change_of_the_model_holds_for_the_next_item() -> None:
    """And for one that is open, as long as nothing was told of it: transcription settings are those at the commit."""
    session = session_with(turn_detection=None)
    hear(session, session.receive_event(append(5, 0.9)), [0.9])
    (first,) = finals_of(hear(session, session.receive_event(Commit()), [0.9]))
    session.receive_event(update("fake/many"))
    session.receive_loaded(MANY)
    assert first.options == OPTIONS
    hear(session, session.receive_event(append(5, 0.9)), [0.9])
    (second,) = finals_of(hear(session, session.receive_event(Commit()), [0.9]))
    assert second.options == Transcription(model="fake/many")
    # Speech is decoded while it goes on; what was told under one model ends under it.
    (live, *_) = jobs_of(hear(session, session.receive_event(append(40, 0.9)), [0.9]))
    session.receive_hypothesis(live.stream_id, said(" So"))
    session.receive_event(update("fake/english"))
    session.receive_loaded(LoadModel("fake/english"))
    hear(session, session.receive_event(append(5, 0.9)), [0.9])
    (third,) = finals_of(hear(session, session.receive_event(Commit()), [0.9]))
    assert (third.stream_id, third.options.model) == (live.stream_id, "fake/many")


def test_a_server_that_stops_gives_up_on_an_update_that_waits() -> None:
    session = session_with()
    session.receive_event(update("fake/many"))
    assert session.end_turn() == []
    assert not session.is_idle
    assert session.fail_unfinished(LOST) == []

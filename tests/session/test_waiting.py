"""Events wait for speech detection, so that what a client is told never depends on timing."""

from __future__ import annotations

from fakes import append, events_of, said, session_with, speak

from auricle.errors import ClientError
from auricle.protocol.events import (
    Clear,
    Cleared,
    Commit,
    Committed,
    ErrorEvent,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    UpdateSession,
)
from auricle.session.jobs import DetectSpeech

SAME = UpdateSession(apply=lambda config: config)


def kinds(outputs: list) -> list[str]:
    return [type(output).__name__ for output in outputs]


def test_one_detection_at_a_time() -> None:
    session = session_with()
    assert kinds(session.receive_event(append(2))) == ["DetectSpeech"]
    assert session.receive_event(append(3)) == []
    (detect,) = session.receive_speech([0.0, 0.0])
    assert isinstance(detect, DetectSpeech)
    assert detect.samples.size == 3 * 512
    assert session.receive_speech([0.0] * 3) == []


def test_less_than_a_window_is_not_detected() -> None:
    session = session_with()
    assert session.receive_event(append(0.5)) == []
    assert kinds(session.receive_event(append(0.5))) == ["DetectSpeech"]


def test_events_wait_for_the_detection_of_the_audio_before_them() -> None:
    session = session_with()
    session.receive_event(append(12))
    assert session.receive_event(Commit()) == []
    assert session.receive_event(Clear()) == []
    outputs = session.receive_speech([0.9] * 12)
    assert kinds(outputs) == ["SpeechStarted", "Committed", "ItemAdded", "Decode", "Cleared"]


def test_audio_after_a_waiting_event_waits_behind_it() -> None:
    session = session_with()
    session.receive_event(append(5))
    session.receive_event(Commit())
    assert session.receive_event(append(6)) == []
    assert session.receive_event(SAME) == []
    outputs = session.receive_speech([0.9] * 5)
    assert kinds(outputs) == ["SpeechStarted", "Committed", "ItemAdded", "Decode", "DetectSpeech"]
    assert outputs[3].samples.size == 5 * 512
    assert outputs[4].samples.size == 6 * 512
    assert kinds(session.receive_speech([0.9] * 6)) == ["SpeechStarted", "SessionUpdated"]


def test_a_commit_after_the_end_of_a_turn_is_refused_however_late_the_turn_is_found() -> None:
    """At once or late, the answer is the same: the turn has taken all the audio."""
    session = session_with()
    session.receive_event(append(12))
    session.receive_event(Commit())
    outputs = session.receive_speech([0.9] * 5 + [0.0] * 7)
    assert [type(output) for output in events_of(outputs)][1:3] == [SpeechStopped, Committed]
    assert isinstance(outputs[-1], ErrorEvent)


def test_events_that_find_everything_heard_are_answered_at_once() -> None:
    session = session_with()
    speak(session, *[0.9] * 3)
    assert kinds(session.receive_event(SAME)) == [SessionUpdated.__name__]
    assert session.receive_event(Clear()) == [Cleared()]


def test_what_is_no_event_is_answered_after_the_events_of_the_audio_before_it() -> None:
    session = session_with()
    session.receive_event(append(2))
    outputs = session.receive_error(ClientError("invalid_json", "Invalid event.", event_id="mine"))
    assert outputs == []
    started, error = session.receive_speech([0.9, 0.9])
    assert isinstance(started, SpeechStarted)
    assert isinstance(error, ErrorEvent)
    assert (error.error.code, error.error.event_id) == ("invalid_json", "mine")


def test_a_session_with_waiting_events_is_not_idle() -> None:
    session = session_with()
    session.receive_event(append(2))
    session.receive_event(SAME)
    assert not session.is_idle
    session.receive_speech([0.0, 0.0])
    assert session.is_idle


def test_text_does_not_wait_for_detection() -> None:
    session = session_with(turn_detection=None)
    speak(session, *[0.9] * 5)
    session.receive_event(Commit())
    session.receive_event(append(5))
    assert len(session.receive_hypothesis("item_1", said("Yes"))) == 2

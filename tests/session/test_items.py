"""Items from their commit on: order, failure, retrieval, deletion, and how much is kept."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from fakes import append_samples, hear, jobs_of, said, session_with, speak, wire_item

from auricle.audio.formats import encode
from auricle.errors import EngineError
from auricle.protocol.events import (
    Commit,
    Committed,
    DeleteItem,
    DurationUsage,
    ErrorEvent,
    ItemDeleted,
    ItemRetrieved,
    RetrieveItem,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from auricle.session import conversation
from auricle.session.session import Session, SessionLimits


def manual(limits: SessionLimits | None = None) -> Session:
    return session_with(limits, turn_detection=None)


def commit(session: Session, windows: int = 5, probability: float = 0.9) -> list:
    """Speak and commit. Returns what came of the commit."""
    speak(session, *[probability] * windows)
    return session.receive_event(Commit())


def told(outputs: list) -> list[str]:
    """Item and kind of each event, in short."""
    return [f"{event.item_id} {event.type.rpartition('.')[2]}" for event in outputs]


def completed(item_id: str, text: str) -> TranscriptionCompleted:
    return TranscriptionCompleted(item_id=item_id, transcript=text, usage=DurationUsage(seconds=1))


def test_items_finished_out_of_order_are_told_in_order() -> None:
    session = manual()
    for _ in range(3):
        commit(session)
    assert session.receive_hypothesis("item_3", said("three")) == []
    assert session.receive_hypothesis("item_2", said("two")) == []
    assert session.receive_hypothesis("item_1", said("one")) == [
        TranscriptionDelta(item_id="item_1", delta="one"),
        completed("item_1", "one"),
        TranscriptionDelta(item_id="item_2", delta="two"),
        completed("item_2", "two"),
        TranscriptionDelta(item_id="item_3", delta="three"),
        completed("item_3", "three"),
    ]
    assert session.is_idle


def test_speechless_audio_waits_for_the_text_before_it() -> None:
    session = manual()
    commit(session)
    assert [type(output) for output in commit(session, probability=0.0)][2:] == []
    assert told(session.receive_hypothesis("item_1", said("one"))) == [
        "item_1 delta",
        "item_1 completed",
        "item_2 completed",
    ]


def test_a_failure_is_told_in_its_place() -> None:
    session = manual()
    decodes = [jobs_of(commit(session))[0] for _ in range(2)]
    assert session.receive_failure(decodes[1], EngineError("Broken.")) == []
    assert session.receive_hypothesis("item_1", said("one"))[2:] == [
        TranscriptionFailed(
            item_id="item_2",
            error=TranscriptionError(
                type="server_error",
                code="transcription_error",
                message="Input transcription failed for item 'item_2'. Broken.",
            ),
        )
    ]


def test_the_session_goes_on_after_a_failure() -> None:
    session = manual()
    (decode,) = jobs_of(commit(session))
    assert told(session.receive_failure(decode, EngineError("Broken."))) == ["item_1 failed"]
    commit(session)
    assert told(session.receive_hypothesis("item_2", said("two"))) == ["item_2 delta", "item_2 completed"]


def test_no_text_is_completed_without_a_delta() -> None:
    session = manual()
    commit(session)
    assert session.receive_hypothesis("item_1", said(" ")) == [completed("item_1", "")]


def test_a_second_answer_for_an_item_is_ignored() -> None:
    session = manual()
    (decode,) = jobs_of(commit(session))
    session.receive_hypothesis("item_1", said("one"))
    assert session.receive_hypothesis("item_1", said("two")) == []
    assert session.receive_failure(decode, EngineError("Broken.")) == []


def test_giving_up_fails_what_is_unfinished_in_order() -> None:
    session = manual()
    for _ in range(3):
        commit(session)
    session.receive_hypothesis("item_2", said("two"))
    outputs = session.fail_unfinished(EngineError("The server is shutting down."))
    assert told(outputs) == ["item_1 failed", "item_2 delta", "item_2 completed", "item_3 failed"]
    assert outputs[0].error.message.endswith("The server is shutting down.")
    assert session.is_idle
    assert session.fail_unfinished(EngineError("Again.")) == []


def test_a_retrieved_item_has_its_audio_and_later_its_text() -> None:
    session = manual()
    ramp = np.arange(-2_000, 2_000, dtype=np.float32) / 32_768
    hear(session, session.receive_event(append_samples(ramp)), [0.9])
    session.receive_event(Commit())
    audio = base64.b64encode(encode(ramp, session.config.format.audio_format)).decode()
    assert session.receive_event(RetrieveItem(item_id="item_1")) == [
        ItemRetrieved(item=wire_item("item_1", None, audio))
    ]
    session.receive_hypothesis("item_1", said("one"))
    assert session.receive_event(RetrieveItem(item_id="item_1")) == [
        ItemRetrieved(item=wire_item("item_1", "one", audio))
    ]


@pytest.mark.parametrize(("event", "verb"), [(RetrieveItem, "retriev"), (DeleteItem, "delet")])
def test_an_unknown_item_is_refused(event: type, verb: str) -> None:
    (error,) = manual().receive_event(event(item_id="item_9", event_id="mine"))
    assert isinstance(error, ErrorEvent)
    assert error.error.model_dump() == {
        "type": "invalid_request_error",
        "code": f"item_{verb}e_invalid_item_id",
        "message": f"Error {verb}ing item: the item with id 'item_9' does not exist.",
        "param": None,
        "event_id": "mine",
    }


def test_a_deleted_item_is_gone() -> None:
    session = manual()
    commit(session)
    session.receive_hypothesis("item_1", said("one"))
    assert session.receive_event(DeleteItem(item_id="item_1")) == [ItemDeleted(item_id="item_1")]
    for event in (RetrieveItem(item_id="item_1"), DeleteItem(item_id="item_1")):
        assert isinstance(session.receive_event(event)[0], ErrorEvent)


def test_a_deleted_item_gets_no_text_and_holds_up_no_other() -> None:
    session = manual()
    for _ in range(2):
        commit(session)
    session.receive_hypothesis("item_2", said("two"))
    assert told(session.receive_event(DeleteItem(item_id="item_1"))) == [
        "item_1 deleted",
        "item_2 delta",
        "item_2 completed",
    ]
    assert session.receive_hypothesis("item_1", said("one")) == []
    assert session.is_idle


def test_a_failure_of_a_deleted_item_is_ignored() -> None:
    session = manual()
    (decode,) = jobs_of(commit(session))
    session.receive_event(DeleteItem(item_id="item_1"))
    assert session.receive_failure(decode, EngineError("Broken.")) == []


def test_an_item_deleted_while_its_text_waits_says_nothing() -> None:
    session = manual()
    for _ in range(2):
        commit(session)
    session.receive_hypothesis("item_2", said("two"))
    assert told(session.receive_event(DeleteItem(item_id="item_2"))) == ["item_2 deleted"]
    assert told(session.receive_hypothesis("item_1", said("one"))) == ["item_1 delta", "item_1 completed"]


def test_the_item_before_is_one_that_still_exists() -> None:
    session = manual()
    for _ in range(2):
        commit(session)
    session.receive_event(DeleteItem(item_id="item_2"))
    (committed,) = [event for event in commit(session) if isinstance(event, Committed)]
    assert committed.previous_item_id == "item_1"


def test_the_newest_audio_of_finished_items_is_kept() -> None:
    session = manual(SessionLimits(kept_audio_s=0.5))
    for number in range(1, 4):
        commit(session, windows=7)  # 224 ms
        session.receive_hypothesis(f"item_{number}", said("text"))
    has_audio = [
        session.receive_event(RetrieveItem(item_id=f"item_{number}"))[0].item.content[0].audio is not None
        for number in range(1, 4)
    ]
    assert has_audio == [False, True, True]


def test_audio_of_an_unfinished_item_is_kept_whatever_its_length() -> None:
    session = manual(SessionLimits(kept_audio_s=0.1))
    commit(session, windows=20)
    assert session.receive_event(RetrieveItem(item_id="item_1"))[0].item.content[0].audio is not None


def test_old_items_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "KEPT_ITEMS", 3)
    session = manual()
    for number in range(1, 6):
        commit(session)
        session.receive_hypothesis(f"item_{number}", said("text"))
    known = [
        isinstance(session.receive_event(RetrieveItem(item_id=f"item_{number}"))[0], ItemRetrieved)
        for number in range(1, 6)
    ]
    assert known == [False, False, True, True, True]
    assert session.items_committed == 5


def test_an_unfinished_item_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "KEPT_ITEMS", 2)
    session = manual()
    for _ in range(5):
        commit(session)
    for number in range(1, 6):
        assert len(session.receive_hypothesis(f"item_{number}", said("text"))) == 2


def test_expiry_is_told_in_minutes() -> None:
    error = session_with(SessionLimits(max_session_s=3600)).expire()
    assert (error.error.code, error.error.message) == (
        "session_expired",
        "Your session hit the maximum duration of 60 minutes.",
    )


def test_expiry_of_a_short_session_is_told_as_it_is() -> None:
    error = session_with(SessionLimits(max_session_s=90)).expire()
    assert error.error.message == "Your session hit the maximum duration of 1.5 minutes."

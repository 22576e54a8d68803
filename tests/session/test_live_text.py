"""Text while the client still speaks: which events come when, and under which item."""

from __future__ import annotations

import pytest
from fakes import (
    MODELS,
    OPTIONS,
    append,
    audio_samples,
    events_of,
    finals_of,
    hear,
    heard,
    jobs_of,
    live_of,
    loaded,
    said,
    session_with,
    speak,
    tokens,
    wire_item,
)

from auricle.errors import EngineError
from auricle.protocol.config import LOGPROBS, ServerVad, SessionConfig, Transcription
from auricle.protocol.events import (
    Clear,
    Cleared,
    Commit,
    Committed,
    DeleteItem,
    DurationUsage,
    ErrorEvent,
    ItemAdded,
    ItemDeleted,
    RetrieveItem,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    TokenUsage,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    UpdateSession,
)
from auricle.session.jobs import Decode, Hypothesis, Stage
from auricle.session.session import Session, SessionLimits
from auricle.session.speech import SURE_WINDOWS, TAIL_WINDOWS

TALK = [0.9] * SURE_WINDOWS
END = [0.0] * 7
"""What ends a turn with the default 200 ms."""


def talk(session: Session, windows: int = 100) -> Decode:
    """Speak until there is something to decode."""
    for _ in range(windows):
        if jobs := live_of(speak(session, 0.9)):
            return jobs[0]
    raise AssertionError("nothing was asked")


def update(session: Session, **changes: object) -> list:
    event = UpdateSession(apply=lambda config: SessionConfig(**{**dict(config), **changes}))
    updated, *outputs = loaded(session, session.receive_event(event))
    assert isinstance(updated, SessionUpdated)
    return outputs


def end_of(session: Session, outputs: list, *rest: str) -> list:
    """The events in `outputs`, which end an item, and those that come with the rest of its text.

    There is no job for the rest where all of the speech is decoded.
    """
    answers = [session.receive_hypothesis(job.stream_id, said(*rest)) for job in finals_of(outputs)]
    return [*events_of(outputs), *(event for answer in answers for event in answer)]


def options(**changes: object) -> Transcription:
    return MODELS.resolve(OPTIONS.model_copy(update=changes), "")


def told(outputs: list) -> list[str]:
    """Item and kind of each event, in short."""
    return [f"{event.item_id} {event.type.rpartition('.')[2]}" for event in outputs]


def delta(item_id: str, text: str) -> TranscriptionDelta:
    return TranscriptionDelta(item_id=item_id, delta=text)


def completed(item_id: str, text: str, seconds: int = 1) -> TranscriptionCompleted:
    return TranscriptionCompleted(item_id=item_id, transcript=text, usage=DurationUsage(seconds=seconds))


# Turns that the server finds


def test_text_comes_while_the_turn_goes_on_under_the_id_of_its_events() -> None:
    session = session_with()
    started, first = speak(session, *TALK)
    assert isinstance(started, SpeechStarted)
    assert (first.stream_id, first.stage, first.is_final) == (started.item_id, Stage.SPEAKING, False)
    assert session.receive_hypothesis("item_1", heard(" Good", " morning")) == [delta("item_1", "Good")]
    assert talk(session).settled == " Good"
    assert session.receive_hypothesis("item_1", heard(" morning", " all")) == [delta("item_1", " morning")]
    (pause,) = live_of(speak(session, *END[:TAIL_WINDOWS]))
    assert (pause.stage, pause.settled) == (Stage.PAUSE, " Good morning")
    assert session.receive_hypothesis("item_1", heard("", " everybody.")) == []
    outputs = speak(session, *END[TAIL_WINDOWS:])
    assert outputs[1:] == [
        Committed(previous_item_id=None, item_id="item_1"),
        ItemAdded(previous_item_id=None, item=wire_item("item_1")),
        delta("item_1", " everybody."),
        completed("item_1", "Good morning everybody."),
    ]
    assert isinstance(outputs[0], SpeechStopped)
    assert session.is_idle


def test_a_turn_whose_pause_is_not_decoded_yet_waits_for_its_end() -> None:
    session = session_with()
    (job,) = live_of(speak(session, *TALK))
    (final,) = finals_of(speak(session, *END))
    assert final.samples.size > job.samples.size
    assert session.receive_hypothesis("item_1", said(" Yes.")) == [delta("item_1", "Yes."), completed("item_1", "Yes.")]


def test_a_commit_in_speech_needs_only_what_is_new() -> None:
    session = session_with()
    speak(session, *TALK)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    speak(session, 0.9)
    (final,) = finals_of(session.receive_event(Commit()))
    assert (final.settled, final.samples.size) == (" Good", (SURE_WINDOWS + 1) * 512)
    assert session.receive_hypothesis("item_1", said(" day.")) == [
        delta("item_1", " day."),
        completed("item_1", "Good day."),
    ]


def test_an_item_that_is_cut_at_its_longest_goes_on_in_the_next() -> None:
    session = session_with(SessionLimits(max_item_s=1))
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    outputs = speak(session, *[0.9] * 32)
    (final,) = finals_of(outputs)
    assert (final.stream_id, final.settled, final.samples.size) == ("item_1", " Good", 32 * 512)
    assert [type(event) for event in events_of(outputs)] == [SpeechStopped, Committed, ItemAdded, SpeechStarted]
    assert live_of(outputs)[-1].stream_id == "item_2"


def test_the_end_of_the_server_ends_a_turn_with_the_text_it_has() -> None:
    session = session_with()
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    *_, last = end_of(session, session.end_turn(), " morning")
    assert last.transcript == "Good morning"


def test_what_the_engine_is_too_slow_for_is_not_asked_in_heaps() -> None:
    session = session_with()
    outputs = speak(session, *TALK * 10)
    assert len(jobs_of(outputs)) == 1


def test_audio_that_comes_at_once_is_decoded_once() -> None:
    session = session_with()
    outputs = hear(session, session.receive_event(append(90)), [*[0.9] * 60, *[0.0] * 30])
    (final,) = jobs_of(outputs)
    assert final.is_final


def test_a_session_in_which_nobody_waits_decodes_only_at_the_end() -> None:
    session = session_with(is_live=False)
    assert live_of(speak(session, *TALK * 5, *END)) == []


# By hand


def test_text_before_a_commit_by_hand_has_the_id_of_the_commit() -> None:
    session = session_with(turn_detection=None)
    (job,) = speak(session, *TALK)
    assert session.receive_hypothesis(job.stream_id, heard(" Good", " morning")) == [delta(job.stream_id, "Good")]
    committed, added, *rest = end_of(session, session.receive_event(Commit()), " morning")
    assert committed == Committed(previous_item_id=None, item_id=job.stream_id)
    assert added.item.id == job.stream_id
    assert rest == [delta(job.stream_id, " morning"), completed(job.stream_id, "Good morning")]


def test_each_commit_by_hand_has_an_id_of_its_own() -> None:
    session = session_with(turn_detection=None)
    ids = []
    for _ in range(3):
        job = talk(session)
        session.receive_hypothesis(job.stream_id, heard(" Good", " day"))
        outputs = end_of(session, session.receive_event(Commit()), " day")
        assert outputs[-1].transcript == "Good day"
        ids.append((job.stream_id, outputs[0].item_id, outputs[0].previous_item_id))
    assert ids == [("item_1", "item_1", None), ("item_2", "item_2", "item_1"), ("item_3", "item_3", "item_2")]


def test_an_item_that_is_not_committed_cannot_be_asked_for() -> None:
    session = session_with(turn_detection=None)
    job = talk(session)
    session.receive_hypothesis(job.stream_id, heard(" Good", " morning"))
    for event in (RetrieveItem(item_id=job.stream_id), DeleteItem(item_id=job.stream_id)):
        (error,) = session.receive_event(event)
        assert isinstance(error, ErrorEvent)
    assert end_of(session, session.receive_event(Commit()), " morning")[-1].transcript == "Good morning"


def test_all_audio_of_an_item_that_had_text_before_its_commit_is_kept() -> None:
    session = session_with(turn_detection=None)
    speak(session, *[0.0] * 100, *TALK, *[0.0] * 50)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    session.receive_event(Commit())
    assert audio_samples(session, "item_1") == (150 + SURE_WINDOWS) * 512


# The order of items


def with_first_item_undecoded(**settings: object) -> Session:
    """A session in which the text of item_1 is awaited, and item_2 is spoken."""
    session = session_with(**settings)
    speak(session, *[0.9] * 8, *END)
    if settings:
        session.receive_event(Commit())
    assert talk(session).stream_id == "item_2"
    return session


@pytest.mark.parametrize("settings", [{}, {"turn_detection": None}], ids=["server_vad", "by hand"])
def test_text_of_an_open_item_waits_for_all_of_the_item_before(settings: dict) -> None:
    session = with_first_item_undecoded(**settings)
    assert session.receive_hypothesis("item_2", heard(" Two", " words")) == []
    assert session.receive_hypothesis("item_1", said(" One.")) == [
        delta("item_1", "One."),
        completed("item_1", "One."),
        delta("item_2", "Two"),
    ]
    talk(session)
    assert session.receive_hypothesis("item_2", heard(" words", " here")) == [delta("item_2", " words")]


def test_text_that_waits_is_told_when_the_item_before_fails() -> None:
    session = with_first_item_undecoded()
    session.receive_hypothesis("item_2", heard(" Two", " words"))
    job = Decode("item_1", OPTIONS, append(1))  # type: ignore[arg-type]
    assert told(session.receive_failure(job, EngineError("Broken."))) == ["item_1 failed", "item_2 delta"]


def test_text_that_waits_is_told_when_the_item_before_is_deleted() -> None:
    session = with_first_item_undecoded()
    session.receive_hypothesis("item_2", heard(" Two", " words"))
    assert told(session.receive_event(DeleteItem(item_id="item_1"))) == ["item_1 deleted", "item_2 delta"]


def test_text_that_waits_stays_in_order_through_its_own_commit() -> None:
    session = with_first_item_undecoded()
    session.receive_hypothesis("item_2", heard(" Two", " words"))
    told_by_commit = end_of(session, session.receive_event(Commit()), " words")
    assert [type(event) for event in told_by_commit] == [Committed, ItemAdded]
    assert talk(session).stream_id == "item_3"
    assert session.receive_hypothesis("item_3", heard(" Three", " words")) == []
    assert told(events_of(session.receive_hypothesis("item_1", said(" One.")))) == [
        "item_1 delta",
        "item_1 completed",
        "item_2 delta",
        "item_2 delta",
        "item_2 completed",
        "item_3 delta",
    ]


def test_giving_up_tells_what_the_open_item_has() -> None:
    session = with_first_item_undecoded()
    session.receive_hypothesis("item_2", heard(" Two", " words"))
    assert told(session.fail_unfinished(EngineError("Over."))) == ["item_1 failed", "item_2 delta"]


# Clearing and deleting


@pytest.mark.parametrize("settings", [{}, {"turn_detection": None}], ids=["server_vad", "by hand"])
def test_a_clear_abandons_the_item_and_its_text(settings: dict) -> None:
    session = session_with(**settings)
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    abandoned = talk(session)
    assert session.receive_event(Clear()) == [Cleared()]
    assert session.receive_hypothesis("item_1", heard(" late", " words")) == []
    assert session.receive_failure(abandoned, EngineError("Broken.")) == []
    job = talk(session)
    assert (job.stream_id, job.settled, job.piece) == ("item_2", "", 0)
    assert session.receive_hypothesis("item_2", heard(" New", " words")) == [delta("item_2", "New")]


def test_a_clear_drops_text_that_waits() -> None:
    session = with_first_item_undecoded()
    session.receive_hypothesis("item_2", heard(" Two", " words"))
    session.receive_event(Clear())
    assert told(session.receive_hypothesis("item_1", said(" One."))) == ["item_1 delta", "item_1 completed"]


def test_an_item_deleted_between_its_deltas_says_no_more() -> None:
    session = session_with(turn_detection=None)
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    speak(session, 0.9)
    (final,) = finals_of(session.receive_event(Commit()))
    assert session.receive_event(DeleteItem(item_id="item_1")) == [ItemDeleted(item_id="item_1")]
    assert session.receive_hypothesis("item_1", said(" morning")) == []
    assert session.receive_failure(final, EngineError("Broken.")) == []
    assert session.is_idle


# Failures


def test_a_failure_while_speech_goes_on_is_told_to_nobody() -> None:
    session = session_with()
    job = talk(session)
    assert session.receive_failure(job, EngineError("Broken.")) == []
    assert jobs_of(speak(session, *TALK * 3)) == []
    (final,) = finals_of(speak(session, *END))
    assert session.receive_hypothesis("item_1", said(" Yes."))[-1].transcript == "Yes."
    assert final.settled == ""


def test_a_failure_at_the_end_fails_the_item_whatever_was_told() -> None:
    session = session_with()
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    speak(session, 0.9)
    (final,) = finals_of(session.receive_event(Commit()))
    (failed,) = session.receive_failure(final, EngineError("Broken."))
    assert isinstance(failed, TranscriptionFailed)
    assert session.is_idle


def test_a_failure_in_one_item_leaves_the_next_as_it_is() -> None:
    session = session_with()
    session.receive_failure(talk(session), EngineError("Broken."))
    speak(session, *END)
    assert talk(session).stream_id == "item_2"


# Settings


def test_a_change_of_the_model_before_any_text_holds_for_the_open_item() -> None:
    session = session_with()
    talk(session)
    update(session, transcription=options(model="whisper-1"))
    assert session.receive_hypothesis("item_1", heard(" Old", " words")) == []
    job = talk(session)
    assert (job.options.model, job.settled) == ("whisper-1", "")
    assert session.receive_hypothesis("item_1", heard(" New", " words")) == [delta("item_1", "New")]


def test_a_change_of_the_model_after_some_text_holds_for_the_next_item() -> None:
    session = session_with()
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    update(session, transcription=options(model="gpt-4o-transcribe"))
    assert talk(session).options == OPTIONS
    session.receive_hypothesis("item_1", heard(" morning", " all"))
    (final,) = finals_of(speak(session, 0.9) + session.receive_event(Commit()))
    assert (final.options, final.settled) == (OPTIONS, " Good morning")
    assert session.receive_hypothesis("item_1", said(" all"))[-1].usage == DurationUsage(seconds=1)
    job = talk(session)
    assert (job.stream_id, job.options.model) == ("item_2", "gpt-4o-transcribe")


def test_transcription_turned_off_before_any_text_leaves_the_open_item_without() -> None:
    session = session_with()
    talk(session)
    update(session, transcription=None)
    assert session.receive_hypothesis("item_1", heard(" Old", " words")) == []
    outputs = speak(session, *TALK, *END)
    assert [type(output) for output in outputs] == [SpeechStopped, Committed, ItemAdded]


def test_transcription_turned_off_after_some_text_finishes_the_open_item() -> None:
    session = session_with()
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    update(session, transcription=None)
    speak(session, *END)
    outputs = session.receive_hypothesis("item_1", said(" morning"))
    assert outputs[-1].transcript == "Good morning"
    assert [type(output) for output in speak(session, *TALK, *END)] == [
        SpeechStarted,
        SpeechStopped,
        Committed,
        ItemAdded,
    ]


def test_transcription_turned_on_in_speech_tells_all_of_the_turn() -> None:
    session = session_with(transcription=None)
    assert jobs_of(speak(session, *TALK * 2)) == []
    update(session, transcription=OPTIONS)
    (job,) = live_of(speak(session, 0.9))
    assert job.samples.size == (2 * SURE_WINDOWS + 1) * 512


def test_the_delay_is_that_of_the_settings() -> None:
    session = session_with(transcription=options(delay="minimal"))
    assert talk(session).options.delay == "minimal"


def test_log_probabilities_come_with_the_deltas_and_again_with_all_of_the_text() -> None:
    session = session_with(include=[LOGPROBS])
    talk(session)
    (first,) = session.receive_hypothesis("item_1", Hypothesis(tokens(" Good", logprob=-0.25), tokens(" day")))
    speak(session, 0.9)
    session.receive_event(Commit())
    second, last = session.receive_hypothesis("item_1", said(" day", ".", logprob=-0.75))
    assert [entry.token for entry in first.logprobs] == ["Good"]
    assert [entry.token for entry in second.logprobs] == [" day", "."]
    assert last.logprobs == first.logprobs + second.logprobs
    assert [entry.logprob for entry in last.logprobs] == [-0.25, -0.75, -0.75]


def test_usage_counts_all_tokens_whenever_they_were_told() -> None:
    session = session_with(transcription=options(model="gpt-4o-transcribe"))
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    *_, last = end_of(session, session.receive_event(Commit()), " morning")
    assert isinstance(last.usage, TokenUsage)
    assert last.usage.output_tokens == 2


def test_turn_detection_turned_off_after_some_text_keeps_the_item_and_its_text() -> None:
    session = session_with()
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    update(session, turn_detection=None)
    assert talk(session).settled == " Good"
    session.receive_hypothesis("item_1", heard(" morning", " all"))
    committed, _, *rest = end_of(session, session.receive_event(Commit()), " all")
    assert committed.item_id == "item_1"
    assert rest[-1].transcript == "Good morning all"


@pytest.mark.parametrize("is_quick", [True, False])
def test_turn_detection_turned_on_in_speech_makes_it_the_turn_however_quick_the_decoder_is(is_quick: bool) -> None:
    session = session_with(turn_detection=None)
    talk(session)
    if is_quick:
        session.receive_hypothesis("item_1", heard(" Good", " morning"))
    assert update(session, turn_detection=ServerVad()) == [SpeechStarted(audio_start_ms=0, item_id="item_1")]
    outputs = speak(session, *END)
    assert [event.item_id for event in outputs if isinstance(event, Committed)] == ["item_1"]


def test_turn_detection_turned_on_in_silence_begins_anew() -> None:
    session = session_with(turn_detection=None)
    speak(session, *[0.1] * 100)
    assert update(session, turn_detection=ServerVad()) == []
    assert talk(session).stream_id == "item_2"


def test_a_turn_that_text_has_opened_is_announced_before_it_ends() -> None:
    session = session_with(turn_detection=None)
    talk(session)
    session.receive_hypothesis("item_1", heard(" Good", " morning"))
    assert update(session, turn_detection=ServerVad()) == [SpeechStarted(audio_start_ms=0, item_id="item_1")]
    outputs = events_of(speak(session, 0.9, *END))
    assert [type(event) for event in outputs if isinstance(event, SpeechStarted | SpeechStopped)] == [SpeechStopped]

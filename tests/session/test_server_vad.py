"""Turns that the server finds."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import (
    OPTIONS,
    PCM_16K,
    append,
    append_samples,
    audio_samples,
    events_of,
    hear,
    jobs_of,
    said,
    session_with,
    speak,
    wire_item,
)

from auricle.errors import EngineError
from auricle.protocol.config import G711, Pcm, ServerVad
from auricle.protocol.events import (
    Clear,
    Cleared,
    Commit,
    Committed,
    ErrorEvent,
    ItemAdded,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionDelta,
)
from auricle.session.session import Session, SessionLimits

SILENCE = [0.0] * 7
"""As many windows as end a turn with the default 200 ms."""


def turn(session: Session) -> str:
    """Speak a turn. Returns its item's id."""
    return next(e.item_id for e in speak(session, *[0.9] * 5, *SILENCE) if isinstance(e, Committed))


def test_a_turn_from_its_start_to_its_text() -> None:
    session = session_with()
    assert speak(session, *[0.0] * 20) == []
    assert speak(session, 0.9) == [SpeechStarted(audio_start_ms=340, item_id="item_1")]
    assert events_of(speak(session, *[0.9] * 9, *SILENCE[1:])) == []
    *events, decode = speak(session, 0.0)
    assert events == [
        SpeechStopped(audio_end_ms=1184, item_id="item_1"),
        Committed(previous_item_id=None, item_id="item_1"),
        ItemAdded(previous_item_id=None, item=wire_item("item_1")),
    ]
    assert (decode.stream_id, decode.options, decode.is_final) == ("item_1", OPTIONS, True)
    assert audio_samples(session, "item_1") == (1184 - 340) * 16
    assert session.receive_hypothesis("item_1", said("Yes.")) == [
        TranscriptionDelta(item_id="item_1", delta="Yes."),
        TranscriptionCompleted(item_id="item_1", transcript="Yes.", usage={"type": "duration", "seconds": 1}),
    ]


def test_times_lie_on_a_grid_of_32_ms() -> None:
    session = session_with()
    starts, ends = [], []
    rng = np.random.default_rng(0)
    for _ in range(5):
        size = int(rng.integers(20_000, 40_000))
        for p in (0.0, 0.9, 0.0):
            for output in hear(session, session.receive_event(append_samples(np.zeros(size, np.float32))), [p]):
                starts += [output.audio_start_ms] if isinstance(output, SpeechStarted) else []
                ends += [output.audio_end_ms] if isinstance(output, SpeechStopped) else []
    assert len(starts) == len(ends) == 5
    assert all((start + 300) % 32 == 0 for start in starts)
    assert all(end % 32 == 0 for end in ends)


@pytest.mark.parametrize("silent_windows", [0, 3, 9])
def test_the_prefix_ends_at_the_beginning_of_the_session(silent_windows: int) -> None:
    outputs = speak(session_with(), *[0.0] * silent_windows, 0.9)
    assert outputs == [SpeechStarted(audio_start_ms=0, item_id="item_1")]


def test_the_prefix_ends_at_the_item_before() -> None:
    session = session_with()
    turn(session)
    (started,) = speak(session, 0.0, 0.0, 0.9)
    assert started.audio_start_ms == 12 * 32


def test_prefix_and_silence_are_those_of_the_settings() -> None:
    session = session_with(turn_detection=ServerVad(prefix_padding_ms=64, silence_duration_ms=100))
    outputs = speak(session, *[0.0] * 10, *[0.9] * 5, *[0.0] * 4)
    assert events_of(outputs)[:2] == [
        SpeechStarted(audio_start_ms=256, item_id="item_1"),
        SpeechStopped(audio_end_ms=19 * 32, item_id="item_1"),
    ]


def test_a_long_prefix_is_kept_through_a_long_silence() -> None:
    session = session_with(turn_detection=ServerVad(prefix_padding_ms=5_000))
    (started,) = speak(session, *[0.0] * 400, 0.9)
    assert started.audio_start_ms == 400 * 32 - 5_000


def test_the_threshold_is_that_of_the_settings() -> None:
    session = session_with(turn_detection=ServerVad(threshold=0.8))
    assert speak(session, *[0.79] * 10) == []
    assert len(speak(session, 0.8)) == 1


def test_a_pause_shorter_than_the_silence_does_not_end_the_turn() -> None:
    outputs = speak(session_with(), *([0.9] * 3 + [0.0] * 6) * 4)
    assert [type(output) for output in events_of(outputs)] == [SpeechStarted]


def test_turns_follow_each_other_on_one_clock() -> None:
    session = session_with()
    outputs = speak(session, *([0.0] * 13 + [0.9] * 5 + SILENCE) * 3)
    assert [e.audio_start_ms for e in outputs if isinstance(e, SpeechStarted)] == [116, 916, 1716]
    assert [e.audio_end_ms for e in outputs if isinstance(e, SpeechStopped)] == [800, 1600, 2400]
    assert [e.previous_item_id for e in outputs if isinstance(e, Committed)] == [None, "item_1", "item_2"]


def test_a_turn_of_a_single_window_has_no_text() -> None:
    outputs = speak(session_with(), 0.9, *SILENCE)
    assert outputs[-1] == TranscriptionCompleted(
        item_id="item_1", transcript="", usage={"type": "duration", "seconds": 1}
    )
    assert jobs_of(outputs) == []


def test_a_turn_without_transcription_is_committed_all_the_same() -> None:
    outputs = speak(session_with(transcription=None), *[0.9] * 5, *SILENCE)
    assert [type(output) for output in outputs] == [SpeechStarted, SpeechStopped, Committed, ItemAdded]


def test_a_commit_in_speech_ends_the_turn_without_speech_stopped() -> None:
    session = session_with()
    speak(session, *[0.9] * 10)
    outputs = session.receive_event(Commit())
    assert events_of(outputs) == [
        Committed(previous_item_id=None, item_id="item_1"),
        ItemAdded(previous_item_id=None, item=wire_item("item_1")),
    ]
    assert jobs_of(outputs)[0].samples.size == 5_120
    assert speak(session, *[0.0] * 20) == []
    assert [type(output) for output in speak(session, 0.9)] == [SpeechStarted]


def test_speech_that_goes_on_after_a_commit_is_a_new_turn() -> None:
    session = session_with()
    speak(session, *[0.9] * 10)
    session.receive_event(Commit())
    assert speak(session, 0.9) == [SpeechStarted(audio_start_ms=320, item_id="item_2")]


def test_a_commit_in_silence_takes_what_is_buffered() -> None:
    session = session_with()
    speak(session, *[0.0] * 20)
    outputs = session.receive_event(Commit())
    assert [type(output) for output in outputs] == [Committed, ItemAdded, TranscriptionCompleted]


def test_a_commit_right_after_a_turn_is_refused() -> None:
    session = session_with()
    turn(session)
    (error,) = session.receive_event(Commit())
    assert error.error.code == "input_audio_buffer_commit_empty"
    assert "only has 0.00ms" in error.error.message


def test_a_long_silence_is_not_kept() -> None:
    session = session_with()
    speak(session, *[0.0] * 300)
    session.receive_event(Commit())
    assert 2_000 <= audio_samples(session, "item_1") / 16 <= 2_100


def test_clear_in_speech_abandons_the_turn() -> None:
    session = session_with()
    speak(session, *[0.9] * 10)
    assert session.receive_event(Clear()) == [Cleared()]
    assert speak(session, *[0.0] * 20) == []
    assert session.is_idle


def test_speech_that_goes_on_after_a_clear_is_a_new_turn_of_the_audio_since() -> None:
    session = session_with()
    speak(session, *[0.9] * 10)
    session.receive_event(Clear())
    assert speak(session, 0.9) == [SpeechStarted(audio_start_ms=320, item_id="item_2")]


def test_a_turn_is_cut_at_the_longest_item() -> None:
    session = session_with(SessionLimits(max_item_s=1))
    outputs = speak(session, *[0.9] * 70, *SILENCE)
    assert [type(e).__name__ for e in events_of(outputs) if not isinstance(e, ItemAdded)] == [
        "SpeechStarted",
        "SpeechStopped",
        "Committed",
    ] * 3
    sizes = [audio_samples(session, item_id) for item_id in ("item_1", "item_2", "item_3")]
    assert sum(sizes) == 77 * 512
    assert max(sizes) <= 16_000 + 512


def test_the_end_of_the_server_ends_an_open_turn() -> None:
    session = session_with()
    speak(session, *[0.9] * 10)
    outputs = session.end_turn()
    assert [type(output).__name__ for output in outputs] == ["SpeechStopped", "Committed", "ItemAdded", "Decode"]
    assert outputs[0].audio_end_ms == 320
    assert session.end_turn() == []


def test_the_end_of_the_server_commits_nothing_by_hand() -> None:
    session = session_with(turn_detection=None)
    speak(session, *[0.9] * 10)
    assert session.end_turn() == []


def test_a_failed_detection_is_told_and_counts_as_silence() -> None:
    session = session_with()
    speak(session, *[0.9] * 5)
    (detect,) = session.receive_event(append_samples(np.zeros(7 * 512, np.float32)))
    outputs = session.receive_failure(detect, EngineError("The detector broke."))
    assert [type(output) for output in events_of(outputs)] == [ErrorEvent, SpeechStopped, Committed, ItemAdded]
    assert outputs[0].error.type == "server_error"
    assert outputs[0].error.message == "The detector broke."


@pytest.mark.parametrize("input_format", [PCM_16K, Pcm(), G711(type="audio/pcmu")])
@pytest.mark.parametrize("windows", [10, 10.3, 10.9])
@pytest.mark.parametrize("ending", [Commit, Clear])
def test_no_turn_ends_before_it_begins(input_format: Pcm | G711, windows: float, ending: type) -> None:
    """Windows of what a commit or clear has taken may be heard after it; they must not make a turn of their own."""
    session = session_with(format=input_format, turn_detection=ServerVad(silence_duration_ms=0))
    chunk = append(windows, 0.5, input_format.audio_format)
    outputs = hear(session, session.receive_event(chunk), [0.9])
    outputs += hear(session, session.receive_event(ending()), [0.9, 0.0] * 3)
    outputs += hear(session, session.receive_event(chunk), [0.9, 0.0] * 20)
    starts = {event.item_id: event.audio_start_ms for event in outputs if isinstance(event, SpeechStarted)}
    ends = {event.item_id: event.audio_end_ms for event in outputs if isinstance(event, SpeechStopped)}
    assert len(ends) > 1
    assert all(starts[item_id] < end for item_id, end in ends.items())

"""Commits by hand: turn detection is off."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from fakes import (
    OPTIONS,
    PCM_16K,
    append,
    append_samples,
    events_of,
    finals_of,
    hear,
    jobs_of,
    said,
    session_with,
    speak,
    wire_item,
)

from auricle.audio.formats import AudioFormat
from auricle.protocol.config import G711, Pcm
from auricle.protocol.events import (
    MAX_APPEND_BYTES,
    Append,
    Clear,
    Cleared,
    Commit,
    Committed,
    ErrorEvent,
    ItemAdded,
    SessionCreated,
    TranscriptionCompleted,
    TranscriptionDelta,
)
from auricle.session.jobs import LoadModel
from auricle.session.session import Session, SessionLimits


def manual(**settings: object) -> Session:
    return session_with(turn_detection=None, **settings)


def error_of(outputs: list) -> tuple:
    (event,) = outputs
    assert isinstance(event, ErrorEvent)
    return event.error.code, event.error.param, event.error.message, event.error.event_id


def test_the_first_event_tells_the_settings() -> None:
    session = manual()
    created = SessionCreated(session_id="sess_1", expires_at=3600, config=session.config)
    assert session.start() == [created, LoadModel(OPTIONS.model)]


def test_a_commit_makes_an_item_and_its_text_follows() -> None:
    session = manual()
    assert speak(session, *[0.9] * 10) == []
    *events, decode = session.receive_event(Commit())
    assert events == [
        Committed(previous_item_id=None, item_id="item_1"),
        ItemAdded(previous_item_id=None, item=wire_item("item_1")),
    ]
    assert (decode.stream_id, decode.options, decode.is_final, decode.settled) == ("item_1", OPTIONS, True, "")
    assert decode.samples.size == 5_120
    assert session.receive_hypothesis("item_1", said(" Good", " morning.")) == [
        TranscriptionDelta(item_id="item_1", delta="Good morning."),
        TranscriptionCompleted(item_id="item_1", transcript="Good morning.", usage={"type": "duration", "seconds": 1}),
    ]
    assert session.is_idle


def test_no_speech_event_without_turn_detection() -> None:
    assert events_of(speak(manual(), *[0.0] * 20, *[0.9] * 20, *[0.0] * 60)) == []


def test_a_commit_takes_everything_since_the_last() -> None:
    session = manual()
    ramp = np.arange(-9_000, 9_000, dtype=np.float32) / 32_768
    taken = []
    for start, end in ((0, 7_000), (7_000, 9_001), (9_001, 18_000)):
        outputs = hear(session, session.receive_event(append_samples(ramp[start:end])), [0.9])
        outputs += hear(session, session.receive_event(Commit()), [0.9])
        taken += [job.samples for job in finals_of(outputs)]
    assert [samples.size for samples in taken] == [7_000, 2_001, 8_999]
    np.testing.assert_array_equal(np.concatenate(taken), ramp)


def test_items_know_the_one_before() -> None:
    session = manual()
    found = [event for _ in range(3) for event in [*speak(session, *[0.9] * 4), *session.receive_event(Commit())]]
    assert [(e.previous_item_id, e.item_id) for e in found if isinstance(e, Committed)] == [
        (None, "item_1"),
        ("item_1", "item_2"),
        ("item_2", "item_3"),
    ]


def test_speechless_audio_is_not_decoded() -> None:
    session = manual()
    speak(session, *[0.0] * 9, 0.9)
    assert session.receive_event(Commit())[2:] == [
        TranscriptionCompleted(item_id="item_1", transcript="", usage={"type": "duration", "seconds": 1})
    ]
    assert session.is_idle


def test_an_item_without_transcription_gets_no_text() -> None:
    session = manual(transcription=None)
    speak(session, *[0.9] * 10)
    outputs = session.receive_event(Commit())
    assert [type(output) for output in outputs] == [Committed, ItemAdded]
    assert session.is_idle


def test_commit_of_an_empty_buffer_is_refused() -> None:
    assert error_of(manual().receive_event(Commit(event_id="mine"))) == (
        "input_audio_buffer_commit_empty",
        None,
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        "but buffer only has 0.00ms of audio.",
        "mine",
    )


@pytest.mark.parametrize(
    "input_format", [PCM_16K, Pcm(), Pcm(rate=44_100), G711(type="audio/pcmu"), G711(type="audio/pcma")]
)
def test_commit_of_less_than_100_ms_is_refused(input_format: Pcm | G711) -> None:
    """Counted in what was sent: resampling holds the last milliseconds back and must not make them fewer."""
    session = manual(format=input_format)
    data = bytes(round(100 * input_format.audio_format.bytes_per_ms))
    less = data[: -3 * input_format.audio_format.bytes_per_sample]
    hear(session, session.receive_event(Append(audio=base64.b64encode(less).decode())), [0.0])
    code, param, message, _ = error_of(hear(session, session.receive_event(Commit()), [0.0]))
    assert (code, param) == ("input_audio_buffer_commit_empty", None)
    assert "only has 99." in message
    hear(session, session.receive_event(Append(audio=base64.b64encode(data[len(less) :]).decode())), [0.0])
    outputs = hear(session, session.receive_event(Commit()), [0.0])
    assert [type(output) for output in outputs] == [Committed, ItemAdded, TranscriptionCompleted]


def test_a_refused_commit_keeps_the_audio() -> None:
    session = manual()
    speak(session, 0.9, 0.9)
    error_of(session.receive_event(Commit()))
    speak(session, 0.9, 0.9)
    assert session.receive_event(Commit())[-1].samples.size == 2_048


def test_a_second_commit_finds_nothing() -> None:
    session = manual()
    speak(session, *[0.9] * 5)
    session.receive_event(Commit())
    assert error_of(session.receive_event(Commit()))[0] == "input_audio_buffer_commit_empty"


@pytest.mark.parametrize("input_format", [PCM_16K, Pcm(), G711(type="audio/pcmu")])
def test_all_speech_of_a_short_commit_is_heard(input_format: Pcm | G711) -> None:
    """Also the part that resampling held back: 128 ms of speech are 4 windows, enough to be decoded."""
    session = manual(format=input_format)
    hear(session, session.receive_event(append(4, 0.5, input_format.audio_format)), [0.9])
    outputs = hear(session, session.receive_event(Commit()), [0.9])
    assert [job.samples.size for job in jobs_of(outputs)] == [2_048]


@pytest.mark.parametrize("input_format", [PCM_16K, Pcm(), Pcm(rate=44_100), G711(type="audio/pcmu")])
@pytest.mark.parametrize("chunks", [1, 3, 10, 11])
def test_events_after_a_commit_are_answered_though_nothing_more_is_said(input_format: Pcm | G711, chunks: int) -> None:
    """The openai-agents SDK ends with a commit and a clear and waits for `cleared`."""
    session = manual(format=input_format)
    for _ in range(chunks):
        hear(session, session.receive_event(append(5, 0.5, input_format.audio_format)), [0.9])
    hear(session, session.receive_event(Commit()), [0.9])
    assert hear(session, session.receive_event(Clear()), [0.9]) == [Cleared()]
    code, *_ = error_of(hear(session, session.receive_event(Commit()), [0.9]))
    assert code == "input_audio_buffer_commit_empty"


def test_clear_drops_the_audio() -> None:
    session = manual()
    speak(session, *[0.9] * 5)
    assert session.receive_event(Clear()) == [Cleared()]
    speak(session, *[0.9] * 4)
    assert session.receive_event(Commit())[-1].samples.size == 2_048


def test_clear_of_an_empty_buffer_is_answered() -> None:
    assert manual().receive_event(Clear()) == [Cleared()]


def test_clear_forgets_half_a_sample() -> None:
    session = manual()
    session.receive_event(Append(audio=base64.b64encode(b"\x01").decode()))
    session.receive_event(Clear())
    samples = np.linspace(-0.5, 0.5, 3_200, dtype=np.float32)
    hear(session, session.receive_event(append_samples(samples)), [0.9])
    (decode,) = jobs_of(hear(session, session.receive_event(Commit()), [0.9]))
    np.testing.assert_allclose(decode.samples, samples, atol=1e-4)


def test_an_item_in_transcription_outlives_a_clear() -> None:
    session = manual()
    speak(session, *[0.9] * 5)
    session.receive_event(Commit())
    session.receive_event(Clear())
    assert [event.type.rpartition(".")[2] for event in session.receive_hypothesis("item_1", said("Yes"))] == [
        "delta",
        "completed",
    ]


def test_the_largest_append_is_taken_whole() -> None:
    session = session_with(turn_detection=None, limits=SessionLimits(max_item_s=3_600))
    largest = base64.b64encode(bytes(MAX_APPEND_BYTES)).decode()
    assert len(session.receive_event(Append(audio=largest))) == 1
    assert session.audio_ms == MAX_APPEND_BYTES // 32


def test_no_more_audio_than_an_item_holds_is_taken_by_hand() -> None:
    session = session_with(turn_detection=None, limits=SessionLimits(max_item_s=1))
    hear(session, session.receive_event(append(31)), [0.9])
    code, param, message, _ = error_of(session.receive_event(append(1)))
    assert (code, param) == ("input_audio_buffer_full", "audio")
    assert "at most 1 s" in message
    assert jobs_of(session.receive_event(Commit()))[0].samples.size == 31 * 512
    assert len(session.receive_event(append(31))) == 1


def test_the_backlog_counts_what_waits_for_detection_and_for_text() -> None:
    session = manual()
    detect = session.receive_event(append(10))
    assert session.backlog_s == pytest.approx(0.32)
    hear(session, detect, [0.9])
    assert session.backlog_s == 0
    session.receive_event(Commit())
    assert session.backlog_s == pytest.approx(0.32)
    session.receive_hypothesis("item_1", said("Yes"))
    assert session.backlog_s == 0


def test_g711_is_decoded_as_what_it_is() -> None:
    session = manual(format=G711(type="audio/pcmu"))
    ulaw = AudioFormat("audio/pcmu", 8_000)
    tone = 0.5 * np.sin(np.arange(8_000) * 2 * np.pi * 500 / 8_000, dtype=np.float64).astype(np.float32)
    hear(session, session.receive_event(append_samples(tone, ulaw)), [0.9])
    (decode,) = jobs_of(hear(session, session.receive_event(Commit()), [0.9]))
    assert decode.samples.size == 16_000
    assert np.abs(np.fft.rfft(decode.samples)).argmax() == 500
    assert 0.49 < np.abs(decode.samples).max() < 0.52


def test_a_whole_file_at_once_is_detected_in_pieces() -> None:
    session = manual()
    (first,) = session.receive_event(append(250))
    assert first.samples.size == 96 * 512
    (second,) = session.receive_speech([0.0] * 96)
    (third,) = session.receive_speech([0.0] * 96)
    assert (second.samples.size, third.samples.size) == (96 * 512, 58 * 512)
    assert session.receive_speech([0.0] * 58) == []
    assert events_of([first, second, third]) == []

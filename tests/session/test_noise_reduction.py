"""Turns that are kept back until their voice is heard without the noise."""

from __future__ import annotations

import pytest
from fakes import append, audio_samples, events_of, finals_of, jobs_of, session_with, speak

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.errors import EngineError
from auricle.protocol.config import NoiseReduction, SemanticVad, ServerVad
from auricle.protocol.events import Clear, Commit, Committed, SpeechStarted, SpeechStopped, UpdateSession
from auricle.session.jobs import DetectSpeech
from auricle.session.session import Output, Session

NEAR, FAR = (NoiseReduction(type=kind) for kind in ("near_field", "far_field"))
WINDOW_MS = 32
SILENCE_WINDOWS = 10
VAD = ServerVad(silence_duration_ms=SILENCE_WINDOWS * WINDOW_MS, prefix_padding_ms=0)
NOISE, VOICE, FAINT, SILENCE = (0.9, 0.1), (0.9, 0.9), (0.9, 0.4), (0.0, 0.0)


def noisy_session(noise_reduction: NoiseReduction | None = NEAR, **settings: object) -> Session:
    return session_with(**{"turn_detection": VAD, "noise_reduction": noise_reduction} | settings)


def play(session: Session, *windows: tuple[float, float]) -> list[Output]:
    """Have windows heard one by one, as they are and without the noise. Returns what came of it."""
    told: list[Output] = []
    for probability, cleaned in windows:
        (job,) = session.receive_event(append())
        assert isinstance(job, DetectSpeech)
        told += session.receive_speech([probability], [cleaned])
    return told


def update(session: Session, **changes: object) -> list[Output]:
    return session.receive_event(UpdateSession(apply=lambda config: config.model_copy(update=changes)))


def starts_ms(outputs: list[Output]) -> list[int]:
    return [event.audio_start_ms for event in events_of(outputs) if isinstance(event, SpeechStarted)]


def test_noise_begins_no_turn() -> None:
    told = play(noisy_session(), *[NOISE] * 50, *[SILENCE] * 20)
    assert told == []


def test_without_noise_reduction_it_does() -> None:
    told = speak(noisy_session(None), *[probability for probability, _ in [NOISE] * 50])
    assert starts_ms(told) == [0]


def test_what_is_left_of_noise_while_nothing_is_heard_begins_no_turn() -> None:
    assert play(noisy_session(), *[(0.1, 0.9)] * 50) == []


def test_a_turn_begins_where_its_voice_was_first_heard_not_where_that_was_sure() -> None:
    told = play(noisy_session(), *[SILENCE] * 5, *[NOISE] * 4, VOICE)
    assert starts_ms(told) == [5 * WINDOW_MS]


def test_it_has_the_padding_before_it_but_nothing_of_the_turn_before() -> None:
    session = noisy_session(turn_detection=VAD.model_copy(update={"prefix_padding_ms": 300}))
    told = play(session, *[SILENCE] * 20, *[NOISE] * 4, VOICE, *[SILENCE] * SILENCE_WINDOWS, NOISE, NOISE, VOICE)
    assert starts_ms(told) == [20 * WINDOW_MS - 300, 35 * WINDOW_MS]
    assert [event.audio_end_ms for event in told if isinstance(event, SpeechStopped)] == [35 * WINDOW_MS]


def test_a_pause_does_not_cut_off_its_beginning() -> None:
    told = play(noisy_session(), *[SILENCE] * 5, *[NOISE] * 3, *[SILENCE] * (SILENCE_WINDOWS - 1), NOISE, VOICE)
    assert starts_ms(told) == [5 * WINDOW_MS]


def test_what_ended_unheard_is_no_part_of_what_follows() -> None:
    told = play(noisy_session(), *[NOISE] * 3, *[SILENCE] * SILENCE_WINDOWS, NOISE, VOICE)
    assert starts_ms(told) == [(3 + SILENCE_WINDOWS) * WINDOW_MS]


@pytest.mark.parametrize(("eagerness", "windows"), [("high", 8), ("auto", 16), ("low", 25)])
def test_with_semantic_vad_it_ends_unheard_where_a_turn_may_end_first(eagerness: str, windows: int) -> None:
    turn_detection = SemanticVad(type="semantic_vad", eagerness=eagerness)
    told = play(noisy_session(turn_detection=turn_detection), NOISE, *[SILENCE] * windows, *[SILENCE] * 20, VOICE)
    assert starts_ms(told) == [(21 + windows) * WINDOW_MS - 300]


def test_noise_without_end_is_not_kept_for_ever() -> None:
    told = play(noisy_session(), *[NOISE] * 200, VOICE)
    kept_ms = 2_000
    assert starts_ms(told) == [pytest.approx(201 * WINDOW_MS - kept_ms, abs=2 * WINDOW_MS)]


def test_once_begun_a_turn_goes_by_what_is_heard() -> None:
    session = noisy_session()
    told = play(session, VOICE, *[NOISE] * 30, *[SILENCE] * (SILENCE_WINDOWS - 1), NOISE)
    assert [type(event) for event in events_of(told)] == [SpeechStarted]
    assert isinstance(play(session, *[SILENCE] * SILENCE_WINDOWS)[0], SpeechStopped)


def test_the_recogniser_hears_the_turn_from_its_first_window() -> None:
    session = noisy_session()
    told = play(session, *[SILENCE] * 5, *[NOISE] * 4, *[VOICE] * 20, *[SILENCE] * SILENCE_WINDOWS)
    (committed,) = [event for event in told if isinstance(event, Committed)]
    assert audio_samples(session, committed.item_id) == (24 + SILENCE_WINDOWS) * WINDOW_SAMPLES
    assert any(job.samples.size >= 24 * WINDOW_SAMPLES for job in jobs_of(told) if not isinstance(job, DetectSpeech))


@pytest.mark.parametrize(("noise_reduction", "starts"), [(NEAR, []), (FAR, [0])])
def test_of_a_far_voice_less_needs_to_be_left(noise_reduction: NoiseReduction, starts: list[int]) -> None:
    told = play(noisy_session(noise_reduction), FAINT, FAINT)
    assert starts_ms(told) == starts


def test_one_faint_window_is_not_enough_and_faint_ones_do_not_add_up_over_silence() -> None:
    gone = [SILENCE] * SILENCE_WINDOWS
    assert starts_ms(play(noisy_session(FAR), FAINT, *gone, FAINT, *gone, FAINT)) == []


def test_the_threshold_holds_for_both() -> None:
    session = noisy_session(turn_detection=VAD.model_copy(update={"threshold": 0.3}))
    assert starts_ms(play(session, (0.3, 0.2), (0.3, 0.3))) == [0]


# What is asked for


def test_the_job_says_what_is_asked_for_and_where_it_begins() -> None:
    session = noisy_session(FAR)
    (first,) = jobs_of(session.receive_event(append(3)))
    assert (first.noise_reduction, first.start) == (FAR, 0)
    session.receive_speech([0.0] * 3, [0.0] * 3)
    (second,) = jobs_of(session.receive_event(append()))
    assert (second.noise_reduction, second.start) == (FAR, 3 * WINDOW_SAMPLES)


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_reduction": None},
        {"noise_reduction": NoiseReduction(type="near_field", strength=0)},
        {"turn_detection": None},
    ],
    ids=["off", "no strength", "no turns"],
)
def test_nothing_is_asked_for_that_has_no_effect(settings: dict[str, object]) -> None:
    (job,) = jobs_of(noisy_session(**{"noise_reduction": NEAR} | settings).receive_event(append()))
    assert job.noise_reduction is None


def test_it_can_be_turned_on_and_off_between_turns() -> None:
    session = noisy_session(None)
    update(session, noise_reduction=NEAR)
    assert play(session, *[NOISE] * 5) == []
    update(session, noise_reduction=None)
    assert starts_ms(speak(session, 0.9)) == [0]  # what was kept back is heard now


def test_turned_on_in_a_turn_it_leaves_that_alone() -> None:
    session = noisy_session(None)
    speak(session, *[0.9] * 5)
    update(session, noise_reduction=NEAR)
    told = play(session, *[NOISE] * 20, *[SILENCE] * SILENCE_WINDOWS, *[NOISE] * 5)
    assert [type(event) for event in told if isinstance(event, SpeechStarted | SpeechStopped)] == [SpeechStopped]


def test_a_commit_takes_what_is_kept_back_and_forgets_that_it_began() -> None:
    session = noisy_session()
    play(session, *[NOISE] * 5)
    told = session.receive_event(Commit())
    (committed,) = [event for event in told if isinstance(event, Committed)]
    assert audio_samples(session, committed.item_id) == 5 * WINDOW_SAMPLES
    assert starts_ms(play(session, SILENCE, NOISE, VOICE)) == [6 * WINDOW_MS]


def test_clear_forgets_it() -> None:
    session = noisy_session()
    play(session, *[NOISE] * 5)
    session.receive_event(Clear())
    assert starts_ms(play(session, SILENCE, NOISE, VOICE)) == [6 * WINDOW_MS]


def test_a_failed_detection_is_silence() -> None:
    session = noisy_session()
    (job,) = jobs_of(session.receive_event(append(4)))
    (error,) = session.receive_failure(job, EngineError("Deaf."))
    assert error.error.message == "Deaf."
    assert starts_ms(play(session, VOICE)) == [4 * WINDOW_MS]


def test_a_file_sent_at_once_gives_the_turns_of_a_microphone() -> None:
    windows = ([SILENCE] * 7 + [NOISE] * 5 + [VOICE] * 12 + [SILENCE] * 15) * 3 + [NOISE] * 9 + [SILENCE] * 30
    live = play(noisy_session(), *windows)
    session = noisy_session()
    at_once: list[Output] = []
    outputs = session.receive_event(append(len(windows)))
    heard = 0
    while outputs:
        rest = [output for output in outputs if not isinstance(output, DetectSpeech)]
        at_once += rest
        jobs = [output for output in outputs if isinstance(output, DetectSpeech)]
        outputs = []
        for job in jobs:
            some = windows[heard : heard + job.samples.size // WINDOW_SAMPLES]
            heard += len(some)
            outputs += session.receive_speech([one for one, _ in some], [other for _, other in some])
    kinds = SpeechStarted | SpeechStopped | Committed
    assert [event for event in at_once if isinstance(event, kinds)] == [
        event for event in live if isinstance(event, kinds)
    ]
    assert len(starts_ms(live)) == 3
    assert len(finals_of(at_once)) >= 1

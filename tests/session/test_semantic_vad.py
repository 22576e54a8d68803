"""Turns that end when a model judges them complete."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import append, events_of, hear, heard, jobs_of, live_of, session_with, speak

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.errors import EngineError
from auricle.protocol.config import SemanticVad, ServerVad
from auricle.protocol.events import (
    Clear,
    Cleared,
    Commit,
    Committed,
    ErrorEvent,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
)
from auricle.session.jobs import DetectSpeech, JudgeTurn
from auricle.session.session import Output, Session
from auricle.session.turns import MAX_JUDGED_SAMPLES, TurnRule

RULE = TurnRule.of(SemanticVad(type="semantic_vad"))
FIRST = RULE.checkpoints[0]
WINDOW_MS = 32


def semantic_session(eagerness: str = "auto", **settings: object) -> Session:
    return session_with(turn_detection=SemanticVad(type="semantic_vad", eagerness=eagerness), **settings)


def questions_of(outputs: list[Output]) -> list[JudgeTurn]:
    return [output for output in outputs if isinstance(output, JudgeTurn)]


def play(session: Session, probabilities: list[float], judge: Callable[[JudgeTurn], float]) -> list[Output]:
    """Speak, and judge at once what is to be judged. Returns all that came of it but for questions."""
    told: list[Output] = []
    for probability in probabilities:
        outputs = speak(session, probability)
        while questions := questions_of(outputs):
            told += [output for output in outputs if output is not questions[0]]
            outputs = hear(session, session.receive_judgement(judge(questions[0])), [])
        told += outputs
    return told


def stopped(outputs: list[Output]) -> list[int]:
    return [output.audio_end_ms for output in outputs if isinstance(output, SpeechStopped)]


def test_nothing_is_judged_before_the_first_checkpoint() -> None:
    session = semantic_session()
    assert questions_of(speak(session, *[0.9] * 20, *[0.0] * (FIRST.windows - 1))) == []
    (question,) = questions_of(speak(session, 0.0))
    assert question.stream_id == session.id


def test_the_turn_is_judged_from_its_beginning_with_the_silence() -> None:
    session = semantic_session()
    outputs = speak(session, *[0.0] * 5, *[0.9] * 20, *[0.0] * FIRST.windows)
    (question,) = questions_of(outputs)
    assert question.samples.size == (5 + 20 + FIRST.windows) * WINDOW_SAMPLES


def test_of_a_long_turn_the_last_seconds_are_judged() -> None:
    outputs = speak(semantic_session(), *[0.9] * 300, *[0.0] * FIRST.windows)
    (question,) = questions_of(outputs)
    assert question.samples.size == MAX_JUDGED_SAMPLES


def test_a_turn_that_is_complete_ends_there() -> None:
    session = semantic_session()
    outputs = play(session, [0.9] * 20 + [0.0] * FIRST.windows, lambda _: FIRST.score)
    assert [type(event) for event in events_of(outputs)[:3]] == [SpeechStarted, SpeechStopped, Committed]
    assert stopped(outputs) == [(20 + FIRST.windows) * WINDOW_MS]


@pytest.mark.parametrize(("eagerness", "longest_s"), [("low", 8), ("medium", 4), ("auto", 4), ("high", 2)])
def test_a_turn_that_is_never_complete_ends_after_the_longest_wait(eagerness: str, longest_s: int) -> None:
    outputs = play(semantic_session(eagerness), [0.9] * 20 + [0.0] * 260, lambda _: 0.0)
    assert stopped(outputs) == [pytest.approx(20 * WINDOW_MS + longest_s * 1000, abs=WINDOW_MS)]


def test_each_checkpoint_is_asked_once_in_each_silence() -> None:
    asked: list[int] = []
    probabilities = ([0.9] * 20 + [0.0] * 40) * 2
    play(semantic_session(), probabilities, lambda job: asked.append(job.samples.size) or 0.0)
    due = [checkpoint.windows for checkpoint in RULE.checkpoints if checkpoint.windows <= 40]
    expected = [(60 * silence + 20 + windows) * WINDOW_SAMPLES for silence in (0, 1) for windows in due]
    assert asked == [min(size, MAX_JUDGED_SAMPLES) for size in expected]


def test_speech_that_goes_on_stays_the_same_item() -> None:
    session = semantic_session()
    outputs = play(session, [0.9] * 20 + [0.0] * 20 + [0.9] * 20, lambda _: 0.0)
    outputs += play(session, [0.0] * 40, lambda _: 1.0)
    kinds = [type(event) for event in events_of(outputs)]
    assert kinds.count(SpeechStarted) == kinds.count(SpeechStopped) == kinds.count(Committed) == 1


def test_audio_waits_while_a_turn_is_judged() -> None:
    """What follows, at once or later, must not change what becomes of the turn."""
    session = semantic_session()
    (question,) = questions_of(speak(session, *[0.9] * 20, *[0.0] * FIRST.windows))
    assert jobs_of(session.receive_event(append(10))) == []
    outputs = session.receive_judgement(1.0)
    assert stopped(outputs) == [(20 + FIRST.windows) * WINDOW_MS]
    assert any(isinstance(output, DetectSpeech) for output in outputs)
    assert question


def test_a_file_sent_at_once_gives_the_turns_of_a_microphone() -> None:
    probabilities = [0.9] * 20 + [0.0] * 30 + [0.9] * 15 + [0.0] * 200
    live = play(semantic_session(), probabilities, lambda job: job.samples.size / 100_000)
    session = semantic_session()
    outputs = hear(session, session.receive_event(append(len(probabilities))), probabilities)
    at_once: list[Output] = []
    while questions := questions_of(outputs):
        at_once += [output for output in outputs if output is not questions[0]]
        outputs = hear(session, session.receive_judgement(questions[0].samples.size / 100_000), [0.0])
    at_once += outputs
    assert stopped(at_once) == stopped(live) != []


@pytest.mark.parametrize("event", [Commit(), Clear()])
def test_an_event_waits_for_the_judgement(event: Commit | Clear) -> None:
    session = semantic_session()
    speak(session, *[0.9] * 20, *[0.0] * FIRST.windows)
    assert session.receive_event(event) == []
    kinds = [type(output) for output in session.receive_judgement(0.0)]
    assert (Committed if isinstance(event, Commit) else Cleared) in kinds
    assert SpeechStopped not in kinds


def test_a_session_that_is_judged_is_not_idle() -> None:
    session = semantic_session()
    speak(session, *[0.9] * 20, *[0.0] * FIRST.windows)
    assert session.end_turn() == []
    assert not session.is_idle


def test_a_judge_that_fails_is_told_and_the_turn_goes_on() -> None:
    session = semantic_session()
    (question,) = questions_of(speak(session, *[0.9] * 20, *[0.0] * FIRST.windows))
    outputs = session.receive_failure(question, EngineError("The judge is ill."))
    assert isinstance(outputs[0], ErrorEvent)
    assert stopped(outputs) == []
    assert stopped(play(session, [0.0] * 200, lambda _: 0.0)) != []


def test_the_text_of_a_complete_turn_is_there_at_once() -> None:
    session = semantic_session()
    outputs = speak(session, *[0.9] * 20, *[0.0] * FIRST.windows)
    pause = live_of(outputs)[-1]
    session.receive_hypothesis(pause.stream_id, heard(" Good", " morning."))
    (done,) = [out for out in session.receive_judgement(1.0) if isinstance(out, TranscriptionCompleted)]
    assert done.transcript == "Good morning."


def test_other_turn_detection_never_asks() -> None:
    for turn_detection in (ServerVad(silence_duration_ms=2_000), None):
        outputs = speak(session_with(turn_detection=turn_detection), *[0.9] * 20, *[0.0] * 50)
        assert questions_of(outputs) == []

"""What is decoded when, where the engine goes on where it left off."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from fakes import OPTIONS, heard, said
from utterance import Utterance

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.session.decoding import CADENCES, PAUSE_WINDOWS, STREAMING_CADENCE
from auricle.session.jobs import Hypothesis, Stage
from auricle.session.speech import SURE_WINDOWS, TELLING_SAMPLES

LONG_PAUSE = 40


def streamed(committed: str = "", tentative: str = "") -> Hypothesis:
    return replace(heard(committed, tentative), is_streaming=True)


@pytest.mark.parametrize("delay", [None, *CADENCES])
def test_speech_is_looked_at_often_however_long_it_is(delay: str | None) -> None:
    utterance = Utterance(OPTIONS.model_copy(update={"delay": delay}))
    jobs = [utterance.say_until_asked()]
    utterance.answer(streamed())
    while jobs[-1].samples.size < TELLING_SAMPLES - SAMPLE_RATE:
        jobs.append(utterance.say_until_asked())
        utterance.answer(streamed(" word"))
    for one, other in itertools.pairwise(jobs):
        wait = other.samples.size - one.samples.size
        assert 0 <= wait - STREAMING_CADENCE.step_s * SAMPLE_RATE < WINDOW_SAMPLES


def test_the_end_is_always_asked_for() -> None:
    """What is heard last is told only then, also if just this audio was looked at in the pause."""
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(streamed(" Good"))
    (pause,) = utterance.pause(PAUSE_WINDOWS)
    assert pause.stage is Stage.PAUSE
    assert utterance.answer(streamed()) == []
    assert utterance.pause(3) == []
    (final,) = utterance.end()
    assert (final.stage, final.settled, final.samples.size) == (Stage.FINAL, " Good", pause.samples.size)
    assert not utterance.decoding.is_done
    utterance.answer(replace(said(" morning."), is_streaming=True))
    assert utterance.text == "Good morning."
    assert utterance.decoding.is_done


def test_each_stretch_has_its_end() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(streamed(" One"))
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(streamed())
    (final,) = utterance.pause(LONG_PAUSE)
    assert (final.stage, final.piece) == (Stage.FINAL, 0)
    utterance.answer(streamed(" done."))
    assert utterance.say_until_asked().piece == 1
    utterance.answer(streamed(" Two"))
    (final,) = utterance.end()
    assert (final.piece, final.settled) == (1, " Two")
    utterance.answer(streamed("."))
    assert utterance.text == "One done. Two."


def test_little_speech_is_told_only_in_the_end() -> None:
    utterance = Utterance()
    utterance.say(SURE_WINDOWS - 1)
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(streamed(" Yes"))
    assert utterance.deltas == []
    (final,) = utterance.end()
    assert final.settled == "", "the engine says again what was not told"
    utterance.answer(streamed(" Yes sure."))
    assert utterance.deltas == ["Yes sure."]


def test_what_was_said_before_is_not_sent_again() -> None:
    for is_streaming in (False, True):
        utterance = Utterance()
        utterance.say_until_asked()
        utterance.answer(replace(heard(" One"), is_streaming=is_streaming))
        utterance.pause(LONG_PAUSE)
        utterance.answer(replace(heard(" more."), is_streaming=is_streaming))
        if is_streaming:
            utterance.answer(streamed(" more."))
        job = utterance.say_until_asked()
        assert job.piece == 1
        assert (job.context is None) == is_streaming


def test_under_other_settings_another_engine_may_answer() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(streamed(tentative=" Ye"))
    utterance.decoding.forget_guesses()
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(heard(tentative=" Yes."))
    assert utterance.end() == []
    assert utterance.text == "Yes."

"""One utterance on its way through the recogniser: what is decoded when, and what of the answers is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fakes import OPTIONS, heard, said, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from utterance import AUDIO, Utterance

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.protocol.config import DEFAULT_DELAY, Transcription
from auricle.session.decoding import CADENCES, PAUSE_WINDOWS
from auricle.session.jobs import Decode, Hypothesis, Stage
from auricle.session.speech import (
    MAX_SAMPLES,
    MIN_CLEAR_WINDOWS,
    SURE_WINDOWS,
    TAIL_WINDOWS,
    TELLING_SAMPLES,
)

LONG_PAUSE = 40
SECOND = SAMPLE_RATE // WINDOW_SAMPLES + 1
"""At least a second, in windows."""


def options_of(delay: str | None) -> Transcription:
    return OPTIONS.model_copy(update={"delay": delay})


# While speech goes on


def test_nothing_is_decoded_before_there_is_enough_speech_to_believe() -> None:
    utterance = Utterance()
    assert utterance.say(SURE_WINDOWS - 1) == []
    (job,) = utterance.say(1)
    assert (job.stage, job.piece, job.settled, job.stream_id) == (Stage.SPEAKING, 0, "", "item_1")
    np.testing.assert_array_equal(job.samples, AUDIO[: SURE_WINDOWS * WINDOW_SAMPLES])


def test_silence_is_not_decoded() -> None:
    utterance = Utterance()
    assert utterance.pause(20) + utterance.say(MIN_CLEAR_WINDOWS - 1) + utterance.pause(20) == []


def test_one_job_is_out_at_a_time() -> None:
    utterance = Utterance()
    assert len(utterance.say(SURE_WINDOWS)) == 1
    assert utterance.say(4 * SECOND) == []
    (job,) = utterance.answer(heard(" Yes"))  # so much was said meanwhile that it is due at once
    assert job.samples.size == utterance.windows * WINDOW_SAMPLES


@pytest.mark.parametrize("delay", [None, *CADENCES])
def test_speech_that_goes_on_is_decoded_again_at_its_cadence(delay: str | None) -> None:
    utterance = Utterance(options_of(delay))
    cadence = CADENCES[delay or DEFAULT_DELAY]
    jobs = [utterance.say_until_asked()]
    while jobs[-1].samples.size < 7 * SAMPLE_RATE:
        utterance.answer(heard(tentative=" Yes"))
        jobs.append(utterance.say_until_asked())
    for index, (one, other) in enumerate(itertools.pairwise(jobs)):
        wait = other.samples.size - one.samples.size
        assert 0 <= wait - cadence.next_samples(one.samples.size, is_first=index == 0) < WINDOW_SAMPLES
    assert all(job.stage is Stage.SPEAKING and job.options.delay == delay for job in jobs)


def test_less_delay_costs_more_decodings() -> None:
    counts = []
    for delay in ("minimal", "medium", "xhigh"):
        utterance = Utterance(options_of(delay))
        for _ in range(7 * SECOND):
            if utterance.say(1):
                utterance.answer(heard(tentative=" Yes"))
        counts.append(len(utterance.jobs))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]


def test_each_cadence_waits_longer_for_longer_speech() -> None:
    for cadence in CADENCES.values():
        waits = [cadence.next_samples(size * SAMPLE_RATE, is_first=False) for size in (0, 5, 20)]
        assert waits == pytest.approx(
            [(cadence.step_s + cadence.growth * size) * SAMPLE_RATE for size in (0, 5, 20)], abs=1
        )
        assert cadence.next_samples(SAMPLE_RATE, is_first=True) == int(cadence.second_s * SAMPLE_RATE)


def test_settled_words_are_told_at_once_and_go_with_the_next_job() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Good", " morning"))
    assert utterance.deltas == ["Good"]
    assert utterance.say_until_asked().settled == " Good"
    utterance.answer(heard(" morning", " all"))
    assert utterance.deltas == ["Good", " morning"]
    assert utterance.say_until_asked().settled == " Good morning"
    assert utterance.decoding.has_told


def test_what_may_still_change_is_not_told() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(tentative=" Good morning"))
    assert utterance.deltas == []
    assert not utterance.decoding.has_told


def test_an_answer_of_nothing_is_no_delta() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    assert utterance.answer(Hypothesis()) == []
    assert utterance.deltas == []
    assert utterance.say_until_asked().settled == ""


def test_the_end_of_a_piece_too_long_to_be_told_whole_is_not_decoded_before_it_is_cut() -> None:
    utterance = Utterance()
    while utterance.windows * WINDOW_SAMPLES <= MAX_SAMPLES - WINDOW_SAMPLES:
        if utterance.say(1):
            utterance.answer(heard(" word"))
    assert max(job.samples.size for job in utterance.jobs) <= TELLING_SAMPLES
    told = len(utterance.deltas)
    (final,) = utterance.say(2)
    assert final.stage is Stage.FINAL
    assert TELLING_SAMPLES <= final.samples.size <= MAX_SAMPLES
    assert final.settled == " word" * told
    (job,) = utterance.answer(said(" end."))
    assert (job.stage, job.piece, job.settled) == (Stage.SPEAKING, 1, "")
    np.testing.assert_array_equal(job.samples[:1_000], AUDIO[final.samples.size : final.samples.size + 1_000])


def test_nothing_is_decoded_before_the_end_where_nobody_waits_for_it() -> None:
    utterance = Utterance(is_live=False)
    assert utterance.say(4 * SECOND) + utterance.pause(10) + utterance.say(10) == []
    (final,) = utterance.end()
    assert final.is_final


# In a pause, and at the end


@pytest.mark.parametrize("silence_ms", [0, 100, 200, 300, 500, 10_000])
def test_a_pause_is_decoded_once_and_before_it_ends_the_turn(silence_ms: int) -> None:
    utterance = Utterance(silence_ms=silence_ms)
    utterance.say(10)
    silent = 0
    while not utterance.jobs:
        utterance.pause(1)
        silent += 1
    (job,) = utterance.jobs
    assert job.stage is Stage.PAUSE
    assert TAIL_WINDOWS <= silent <= PAUSE_WINDOWS  # less would be decoded again, with the rest of the tail
    assert silent == TAIL_WINDOWS or silent * 32 < silence_ms
    assert job.samples.size == (10 + TAIL_WINDOWS) * WINDOW_SAMPLES
    utterance.answer(heard(tentative=" Yes."))
    assert utterance.pause(20) == []


def test_what_is_said_is_not_decoded_again_in_the_first_silence_behind_it() -> None:
    """A job of speech that goes on would be in the way of the one that may be the last."""
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.say(SECOND)
    utterance.pause(1)
    assert utterance.answer(heard(" Good", " morning")) == []
    jobs = utterance.pause(PAUSE_WINDOWS)
    assert [job.stage for job in jobs] == [Stage.PAUSE]


def test_an_end_in_silence_costs_no_further_decoding() -> None:
    utterance = Utterance()
    utterance.say(10)
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(heard(tentative=" Yes, sure."))
    utterance.pause(3)
    assert utterance.deltas == []
    assert utterance.end() == []
    assert utterance.deltas == ["Yes, sure."]
    assert utterance.decoding.is_done


def test_what_was_settled_is_not_told_twice_at_such_an_end() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Good", " morning"))
    utterance.pause(PAUSE_WINDOWS)
    assert utterance.jobs[-1].settled == " Good"
    utterance.answer(heard(" morning", " all."))
    assert utterance.end() == []
    assert utterance.deltas == ["Good", " morning", " all."]
    assert utterance.decoding.is_done


def test_an_end_just_where_speech_was_decoded_costs_no_further_decoding() -> None:
    """A commit by hand in speech, just behind the audio of the last job."""
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Good", " morning"))
    assert utterance.end() == []
    assert utterance.deltas == ["Good", " morning"]
    assert utterance.decoding.is_done


def test_an_end_before_the_answer_asks_for_the_rest() -> None:
    utterance = Utterance()
    utterance.say(10)
    (pause,) = utterance.pause(PAUSE_WINDOWS)
    (final,) = utterance.end()
    assert (pause.stage, final.stage) == (Stage.PAUSE, Stage.FINAL)
    np.testing.assert_array_equal(pause.samples, final.samples)
    assert not utterance.decoding.is_done
    assert utterance.answer(said(" Yes.")) == []
    assert utterance.deltas == ["Yes."]
    assert utterance.decoding.is_done


def test_an_end_after_more_speech_decodes_that() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Good", " morning"))
    utterance.say(2)
    (final,) = utterance.end()
    assert (final.stage, final.settled) == (Stage.FINAL, " Good")
    assert final.samples.size == utterance.windows * WINDOW_SAMPLES
    utterance.answer(said(" day."))
    assert utterance.text == "Good day."


def test_speech_that_goes_on_after_a_pause_takes_nothing_back() -> None:
    utterance = Utterance()
    utterance.say(SURE_WINDOWS - 1)
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(heard(" Good", " bye."))
    assert utterance.deltas == []
    job = utterance.say_until_asked()
    assert (job.stage, job.settled) == (Stage.SPEAKING, "")
    utterance.answer(heard(" Good morning", " all"))
    assert utterance.text == "Good morning"


def test_each_pause_is_decoded() -> None:
    utterance = Utterance()
    stages = []
    for _ in range(3):
        utterance.say(4)
        for job in utterance.pause(PAUSE_WINDOWS):
            stages.append(job.stage)
            utterance.answer(heard(tentative=" Yes"))
    assert stages == [Stage.PAUSE] * 3


def test_a_long_pause_ends_the_stretch_and_the_next_begins() -> None:
    utterance = Utterance()
    utterance.say(10)
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(heard(tentative=" One."))
    assert utterance.pause(LONG_PAUSE) == []
    assert utterance.deltas == ["One."]
    utterance.say(10)
    (job,) = utterance.pause(PAUSE_WINDOWS)
    assert (job.piece, job.settled) == (1, "")
    utterance.answer(heard(tentative="Two."))
    utterance.end()
    assert utterance.text == "One. Two."


def test_a_stretch_waits_for_the_one_before_it() -> None:
    utterance = Utterance()
    utterance.say(10)
    utterance.pause(LONG_PAUSE)
    assert utterance.jobs[-1].is_final
    assert utterance.say(SURE_WINDOWS + SECOND) + utterance.pause(LONG_PAUSE) == []
    (second,) = utterance.answer(said(" One."))
    assert (second.stage, second.piece) == (Stage.FINAL, 1)
    utterance.end()
    utterance.answer(said(" Two."))
    assert utterance.text == "One. Two."
    assert utterance.decoding.is_done


def test_an_utterance_without_speech_is_done_at_its_end() -> None:
    utterance = Utterance()
    utterance.pause(20)
    assert not utterance.decoding.is_done
    assert utterance.end() == []
    assert utterance.decoding.is_done


# What is not believed


def test_little_speech_is_told_only_in_the_end() -> None:
    """All of it may have to go unsaid."""
    utterance = Utterance()
    utterance.say(SURE_WINDOWS - 1)
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(heard(" Yes", " sure."))
    assert utterance.deltas == []
    assert utterance.end() == []
    assert utterance.deltas == ["Yes sure."]


@pytest.mark.parametrize("is_answered", [True, False], ids=["before the end", "after it"])
def test_a_doubtful_text_of_little_speech_is_never_told(is_answered: bool) -> None:
    utterance = Utterance()
    utterance.say(SURE_WINDOWS - 1)
    utterance.pause(PAUSE_WINDOWS)
    if is_answered:
        utterance.answer(heard(" You", " you.", logprob=-2.0))
    if utterance.end():
        utterance.answer(heard(" You you.", logprob=-2.0))
    assert utterance.text == ""
    assert utterance.decoding.is_done


def test_enough_speech_is_believed_whatever_the_doubt() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Yes", logprob=-2.0))
    assert utterance.deltas == ["Yes"]


def test_doubt_is_judged_anew_in_the_next_stretch() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Yes", logprob=-2.0))
    utterance.pause(LONG_PAUSE)
    utterance.answer(said())
    utterance.say(4)
    utterance.pause(LONG_PAUSE)
    utterance.answer(heard(" You", logprob=-2.0))
    utterance.answer(said())
    assert utterance.text == "Yes"


# Failures, and settings that change


def test_after_a_failure_only_what_has_ended_is_decoded() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    assert utterance.decoding.receive_failure(utterance.jobs[-1])
    assert utterance.say(4 * SECOND) + utterance.pause(PAUSE_WINDOWS) == []
    (final,) = utterance.end()
    assert final.is_final
    utterance.answer(said(" Yes."))
    assert utterance.text == "Yes."


def test_a_failure_keeps_what_was_told() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(heard(" Good", " morning"))
    utterance.say_until_asked()
    assert utterance.decoding.receive_failure(utterance.jobs[-1])
    (final,) = utterance.end()
    assert final.settled == " Good"
    utterance.answer(said(" morning."))
    assert utterance.text == "Good morning."


def test_a_failure_of_the_end_is_one_of_the_utterance() -> None:
    utterance = Utterance()
    utterance.say(10)
    utterance.end()
    assert not utterance.decoding.receive_failure(utterance.jobs[-1])


def test_other_settings_decode_anew_what_is_not_told() -> None:
    utterance = Utterance()
    utterance.say(10)
    utterance.pause(PAUSE_WINDOWS)
    utterance.answer(heard(tentative=" Yes."))
    utterance.options = options_of("high")
    utterance.decoding.forget_guesses()
    (job,) = utterance.pause(1)
    assert (job.stage, job.options.delay) == (Stage.PAUSE, "high")
    utterance.answer(heard(tentative=" Ja."))
    utterance.end()
    assert utterance.text == "Ja."


def test_an_answer_under_older_settings_is_ignored() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.decoding.forget_guesses()
    assert utterance.decoding.receive(heard(" Yes")) == []
    assert utterance.decoding.receive_failure(utterance.jobs[-1])
    (final,) = utterance.end()
    assert (final.is_final, final.settled) == (True, "")
    utterance.answer(said(" Ja"))
    assert utterance.text == "Ja"


def test_probabilities_are_those_of_the_tokens_told() -> None:
    utterance = Utterance()
    utterance.say_until_asked()
    utterance.answer(Hypothesis(tokens(" Good", logprob=-0.1), tokens(" day", logprob=-3.0)))
    utterance.say(1)
    utterance.end()
    utterance.answer(Hypothesis(tokens(" day", logprob=-0.2)))
    assert [token.logprob for token in utterance.decoding.transcript.tokens] == [-0.1, -0.2]


# Whatever happens

STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 60)),
    st.tuples(st.just("say"), st.integers(1, 60)),
    st.tuples(st.just("pause"), st.integers(1, 45)),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    st.tuples(st.just("fail"), st.none()),
    st.tuples(st.just("forget"), st.none()),
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEPS, max_size=25), is_live=st.booleans(), is_streaming=st.booleans())
def test_text_only_grows_and_all_of_it_comes(steps: list, is_live: bool, is_streaming: bool) -> None:
    """Each job has all of its stretch and what was told of it; in the end no stretch is left."""
    utterance = Utterance(is_live=is_live)
    words = (f" word{number}" for number in range(10_000))
    out: Decode | None = None
    told_of_piece: dict[int, str] = {}

    def asked(jobs: list[Decode]) -> None:
        nonlocal out
        for job in jobs:
            assert out is None or job.stage < out.stage, "only an end or a pause takes the place of another job"
            assert job.piece >= (out.piece if out else 0)
            assert is_live or job.is_final
            assert job.settled == told_of_piece.get(job.piece, "")
            assert job.samples.size
            out = job

    def answer(committed: int, tentative: int) -> None:
        nonlocal out
        assert out is not None
        job, out = out, None
        hypothesis = Hypothesis(
            tokens(*(next(words) for _ in range(committed))),
            () if job.is_final else tokens(*(next(words) for _ in range(tentative))),
            is_streaming=is_streaming,
        )
        told = utterance.decoding.receive(hypothesis)
        if told and not job.is_final:
            told_of_piece[job.piece] = job.settled + "".join(token.text for token in hypothesis.committed)
        asked(utterance.advance(told))

    for kind, value in steps:
        if kind in ("say", "pause"):
            for _ in range(value):
                asked(utterance.say(1, 0.9 if kind == "say" else 0.0))
        elif kind == "answer" and out:
            answer(*value)
        elif kind == "fail" and out and not out.is_final:
            assert utterance.decoding.receive_failure(utterance.jobs[-1])
            out = None
            asked(utterance.advance([]))
        elif kind == "forget" and not utterance.decoding.has_told:
            utterance.decoding.forget_guesses()
            out = None
    asked(utterance.end())
    while out:
        answer(1, 0)
    assert utterance.decoding.is_done
    assert utterance.text == utterance.text.strip()
    numbers = [int(word.removeprefix("word")) for word in utterance.text.split()]
    assert numbers == sorted(set(numbers)), "in order, and nothing twice"

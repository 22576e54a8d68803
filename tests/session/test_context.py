"""What the recogniser hears again of what was said before."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import OPTIONS, finals_of, said, session_with, speak, tokens

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.protocol.config import ServerVad
from auricle.protocol.events import Clear, Commit, DeleteItem, UpdateSession
from auricle.session.context import MAX_CONTEXT_SAMPLES, MAX_GAP_SAMPLES, MAX_SPEECH_SAMPLES, RecentSpeech
from auricle.session.jobs import Decode, Token
from auricle.session.session import Session

NOW = 8 * SAMPLE_RATE
"""Where new speech begins."""


def speech(seconds: float, level: float = 0.1) -> Samples:
    return np.full(round(seconds * SAMPLE_RATE), level, np.float32)


def text_of(said_tokens: tuple[Token, ...]) -> str:
    return "".join(token.text for token in said_tokens)


def test_at_first_there_is_none() -> None:
    assert RecentSpeech().context(OPTIONS, NOW) is None


def test_the_last_speech_is_the_context_of_the_next() -> None:
    recent = RecentSpeech()
    recent.add(1 * SAMPLE_RATE, speech(2), tokens("Good", " morning."), OPTIONS)
    context = recent.context(OPTIONS, NOW)
    assert context
    assert (context.samples.size, text_of(context.tokens)) == (2 * SAMPLE_RATE, "Good morning.")


def test_stretches_are_joined_as_long_as_they_fit() -> None:
    recent = RecentSpeech()
    recent.add(1 * SAMPLE_RATE, speech(3, 0.1), tokens("One"), OPTIONS)
    recent.add(2 * SAMPLE_RATE, speech(2, 0.2), tokens("two"), OPTIONS)
    context = recent.context(OPTIONS, NOW)
    assert context
    assert text_of(context.tokens) == "Onetwo"
    np.testing.assert_array_equal(context.samples, np.concatenate([speech(3, 0.1), speech(2, 0.2)]))
    recent.add(3 * SAMPLE_RATE, speech(2, 0.3), tokens("three"), OPTIONS)
    context = recent.context(OPTIONS, NOW)
    assert context
    assert text_of(context.tokens) == "three"
    np.testing.assert_array_equal(context.samples, speech(2, 0.3))


def test_what_is_too_long_is_no_context_and_nothing_older_is() -> None:
    recent = RecentSpeech()
    recent.add(1 * SAMPLE_RATE, speech(1), tokens("One"), OPTIONS)
    recent.add(2 * SAMPLE_RATE, np.zeros(MAX_CONTEXT_SAMPLES + 1, np.float32), tokens("two"), OPTIONS)
    assert recent.context(OPTIONS, NOW) is None


def test_a_sound_without_text_changes_nothing() -> None:
    recent = RecentSpeech()
    recent.add(1 * SAMPLE_RATE, speech(1), tokens("One"), OPTIONS)
    recent.add(2 * SAMPLE_RATE, speech(1), (), OPTIONS)
    context = recent.context(OPTIONS, NOW)
    assert context
    assert text_of(context.tokens) == "One"


@pytest.mark.parametrize("change", [{"model": "other"}, {"language": "en"}, {"prompt": "names"}])
def test_other_settings_have_no_context(change: dict[str, str]) -> None:
    recent = RecentSpeech()
    recent.add(1 * SAMPLE_RATE, speech(1), tokens("One"), OPTIONS)
    other = OPTIONS.model_copy(update=change)
    assert recent.context(other, NOW) is None
    recent.add(2 * SAMPLE_RATE, speech(1), tokens("two"), other)
    context = recent.context(other, NOW)
    assert context
    assert text_of(context.tokens) == "two"


def test_what_was_said_long_ago_is_no_context() -> None:
    recent = RecentSpeech()
    recent.add(0, speech(1), tokens("One"), OPTIONS)
    assert recent.context(OPTIONS, SAMPLE_RATE + MAX_GAP_SAMPLES)
    assert recent.context(OPTIONS, SAMPLE_RATE + MAX_GAP_SAMPLES + 1) is None


def test_an_older_stretch_that_is_decoded_late_is_left_out() -> None:
    recent = RecentSpeech()
    recent.add(2 * SAMPLE_RATE, speech(1), tokens("two"), OPTIONS)
    recent.add(0, speech(1), tokens("One"), OPTIONS)
    context = recent.context(OPTIONS, NOW)
    assert context
    assert text_of(context.tokens) == "two"


# In a session


def turn(session: Session, text: str, windows: int = 20) -> Decode:
    """Say something; returns the last job that it took, after answering all."""
    outputs = speak(session, *[0.9] * windows, *[0.0] * 8)
    job = None
    while jobs := [output for output in outputs if isinstance(output, Decode)]:
        job = jobs[-1]
        outputs = session.receive_hypothesis(job.stream_id, said(text) if job.is_final else said())
    assert job
    return job


def vad_session(**settings: object) -> Session:
    return session_with(turn_detection=ServerVad(), turn_detection_given=True, **settings)


def test_a_turn_is_heard_behind_the_one_before() -> None:
    session = vad_session()
    first = turn(session, " Good morning.")
    assert first.context is None
    second = turn(session, " How are you?")
    assert second.context
    assert text_of(second.context.tokens) == "Good morning."
    np.testing.assert_array_equal(second.context.samples, first.samples)


def test_long_speech_is_heard_alone() -> None:
    session = vad_session()
    turn(session, " Good morning.")
    windows = MAX_SPEECH_SAMPLES // 512 + 10
    assert turn(session, " And so on.", windows).context is None


def test_utterances_that_the_client_cuts_are_heard_alone() -> None:
    """They may be recordings that have nothing to do with each other."""
    session = session_with(turn_detection=None, turn_detection_given=True)
    for _ in range(2):
        speak(session, *[0.9] * 20)
        (job,) = finals_of(session.receive_event(Commit()))
        assert job.context is None
        session.receive_hypothesis(job.stream_id, said(" Good morning."))


def test_a_deleted_item_is_not_heard_again() -> None:
    session = vad_session()
    first = turn(session, " A secret.")
    session.receive_event(DeleteItem(item_id=first.stream_id))
    assert turn(session, " Good morning.").context is None


def test_new_settings_begin_anew() -> None:
    session = vad_session()
    turn(session, " Good morning.")
    options = OPTIONS.model_copy(update={"prompt": "names"})
    session.receive_event(UpdateSession(apply=lambda config: config.model_copy(update={"transcription": options})))
    assert turn(session, " How are you?").context is None


def test_a_cleared_turn_is_not_heard_again() -> None:
    session = vad_session()
    turn(session, " A secret.")
    session.receive_event(Clear())
    assert turn(session, " Good morning.").context is None


def test_a_finished_item_keeps_none_of_its_audio() -> None:
    session = vad_session()
    turn(session, " Good morning.")
    last = turn(session, " How are you?")
    assert last.context
    decoding = session._conversation.find(last.stream_id, "finding", "x").decoding
    assert decoding._context is decoding._asked is None
    assert decoding._recent is not session._conversation.recent

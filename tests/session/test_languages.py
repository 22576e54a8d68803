"""The languages of an item's text, as far as the engine tells them."""

from __future__ import annotations

import pytest
from fakes import finals_of, live_of, session_with, speak, tokens

from auricle.protocol.config import ServerVad
from auricle.protocol.events import SpokenLanguage, TranscriptionCompleted
from auricle.session.jobs import Hypothesis
from auricle.session.session import Session
from auricle.session.speech import SURE_WINDOWS


def completed(session: Session, *found: Hypothesis) -> TranscriptionCompleted:
    """The end of a turn of which the engine makes this, a stretch of speech after the other."""
    outputs = speak(session, *[0.9] * 20, *[0.0] * 40, *[0.9] * 20, *[0.0] * 70)
    for hypothesis in found:
        (job, *_) = finals_of(outputs)
        outputs = session.receive_hypothesis(job.stream_id, hypothesis)
    assert isinstance(outputs[-1], TranscriptionCompleted)
    return outputs[-1]


def long_turns() -> Session:
    """A session whose turns have two stretches of speech."""
    return session_with(is_live=False, turn_detection=ServerVad(silence_duration_ms=2000))


@pytest.mark.parametrize(
    ("languages", "told"),
    [
        (("de", "de"), [SpokenLanguage(code="de")]),
        (("de", "en"), [SpokenLanguage(code="de"), SpokenLanguage(code="en")]),
        ((None, "en"), [SpokenLanguage(code="en")]),
        ((None, None), None),
    ],
)
def test_each_language_of_a_turn_is_told_once_in_their_order(
    languages: tuple[str | None, str | None], told: list[SpokenLanguage] | None
) -> None:
    end = completed(long_turns(), *(Hypothesis(tokens(" Yes"), language=code) for code in languages))
    assert end.transcript == "Yes Yes"
    assert end.languages == told
    assert ("languages" in end.model_dump()) == (told is not None)


def test_the_language_of_no_text_is_not_told() -> None:
    end = completed(long_turns(), Hypothesis((), language="de"), Hypothesis(tokens(" Yes"), language="en"))
    assert end.languages == [SpokenLanguage(code="en")]


def test_the_language_is_that_of_the_text_that_was_found_last() -> None:
    """Of speech that goes on, the first words may be taken for another language."""
    session = session_with()
    (first, *_) = live_of(speak(session, *[0.9] * SURE_WINDOWS))
    session.receive_hypothesis(first.stream_id, Hypothesis((), tokens(" Ja"), "de"))
    (final,) = finals_of(speak(session, *[0.9] * 40, *[0.0] * 7))
    end = session.receive_hypothesis(final.stream_id, Hypothesis(tokens(" Yes"), language="en"))[-1]
    assert isinstance(end, TranscriptionCompleted)
    assert end.languages == [SpokenLanguage(code="en")]

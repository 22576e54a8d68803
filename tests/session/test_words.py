"""When words were said: what is asked, and what a client is told of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from fakes import append, finals_of, hear, jobs_of, said, session_with, speak

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.errors import EngineError
from auricle.protocol.config import LOGPROBS, WORDS, ServerVad, SessionConfig
from auricle.protocol.events import Commit, TranscriptionCompleted, UpdateSession
from auricle.session.jobs import Align, Alignment, Hypothesis, Token
from auricle.session.session import Output, Session
from auricle.session.words import ItemWords

WINDOW_S = WINDOW_SAMPLES / SAMPLE_RATE


def alignments_of(outputs: Iterable[Output]) -> list[Align]:
    return [output for output in outputs if isinstance(output, Align)]


def completed_of(outputs: Iterable[Output]) -> TranscriptionCompleted | None:
    return next((output for output in outputs if isinstance(output, TranscriptionCompleted)), None)


def words_of(outputs: Iterable[Output]) -> list[tuple[str, float, float]] | None:
    completed = completed_of(outputs)
    assert completed is not None
    return None if completed.words is None else [(word.word, word.start, word.end) for word in completed.words]


def windows(*spans: tuple[float, float]) -> Alignment:
    """Spans given in windows."""
    return Alignment(tuple((round(start * WINDOW_SAMPLES), round(end * WINDOW_SAMPLES)) for start, end in spans))


def spoken_turn(session: Session, speech: int = 30, silence: int = 12) -> list[Output]:
    """Silence, speech, and the silence that ends the turn."""
    return speak(session, *[0.0] * 20, *[0.9] * speech, *[0.0] * silence)


def decoded(session: Session, outputs: Sequence[Output], *texts: str) -> list[Output]:
    (final,) = finals_of(outputs)
    return session.receive_hypothesis(final.stream_id, said(*texts))


def test_a_finished_stretch_is_aligned_and_completed_then() -> None:
    session = session_with(include=[WORDS], is_live=False)
    outputs = decoded(session, spoken_turn(session), " Good", " morn", "ing", ".")
    (job,) = alignments_of(outputs)
    assert completed_of(outputs) is None
    assert [token.text for token in job.tokens] == ["Good", " morn", "ing", "."]
    assert job.samples.size == 34 * WINDOW_SAMPLES + round(0.3 * SAMPLE_RATE)  # speech, 300 ms before it and 128 after
    lead = round(0.3 * SAMPLE_RATE) / WINDOW_SAMPLES
    answer = windows((lead, lead + 10), (lead + 10, lead + 20), (lead + 20, lead + 30), (lead + 30, lead + 34))
    found = words_of(session.receive_alignment(job, answer))
    assert found == [
        ("Good", pytest.approx(20 * WINDOW_S, abs=1e-3), pytest.approx(30 * WINDOW_S, abs=1e-3)),
        ("morning.", pytest.approx(30 * WINDOW_S, abs=1e-3), pytest.approx(50 * WINDOW_S, abs=1e-3)),
    ]


def test_nothing_is_asked_and_told_unless_it_is_wanted() -> None:
    session = session_with(is_live=False)
    outputs = decoded(session, spoken_turn(session), " Good")
    assert jobs_of(outputs) == []
    assert words_of(outputs) is None


def test_times_that_come_with_the_text_are_told_without_asking() -> None:
    session = session_with(include=[WORDS], is_live=False)
    (final,) = finals_of(spoken_turn(session))
    tokens = (Token(" Good", -0.1, span=(9_600, 12_800)), Token(" day", -0.1, span=(12_800, 16_000)))
    outputs = session.receive_hypothesis(final.stream_id, Hypothesis(tokens))
    begin_s = final.start / SAMPLE_RATE
    assert words_of(outputs) == [
        ("Good", pytest.approx(begin_s + 0.6, abs=1e-3), pytest.approx(begin_s + 0.8, abs=1e-3)),
        ("day", pytest.approx(begin_s + 0.8, abs=1e-3), pytest.approx(begin_s + 1.0, abs=1e-3)),
    ]


def test_silence_at_the_ends_of_a_word_is_no_part_of_it() -> None:
    session = session_with(include=[WORDS], is_live=False, turn_detection=ServerVad(prefix_padding_ms=0))
    outputs = speak(session, *[0.9] * 20, *[0.0] * 4, *[0.9] * 20, *[0.0] * 12)
    (job,) = alignments_of(decoded(session, outputs, " Well", ",", " yes"))
    # The engine gives the pause to one or the other.
    found = words_of(session.receive_alignment(job, windows((0, 20), (20, 22), (22, 48))))
    assert found == [("Well,", 0, 20 * WINDOW_S), ("yes", 24 * WINDOW_S, 44 * WINDOW_S)]


def test_all_stretches_of_an_item_count_on_the_clock_of_the_session() -> None:
    session = session_with(include=[WORDS], is_live=False, turn_detection=None)
    speak(session, *[0.0] * 100)
    outputs = speak(session, *[0.9] * 30, *[0.0] * 40)  # a stretch ends at a pause of a second
    outputs += session.receive_hypothesis("item_1", said(" one"))
    (first,) = alignments_of(outputs)
    outputs = speak(session, *[0.9] * 30, *[0.0] * 10)
    outputs = hear(session, session.receive_event(Commit()), [0.0])
    outputs = session.receive_hypothesis("item_1", said(" two"))
    (second,) = alignments_of(outputs)
    assert (first.piece, second.piece) == (0, 1)
    assert words_of_after(session, second, windows((9.375, 39.375))) is None  # the first is still out
    found = words_of_after(session, first, windows((9.375, 39.375)))
    assert found == [
        ("one", pytest.approx(100 * WINDOW_S), pytest.approx(130 * WINDOW_S)),
        ("two", pytest.approx(170 * WINDOW_S), pytest.approx(200 * WINDOW_S)),
    ]


def words_of_after(session: Session, job: Align, answer: Alignment) -> list[tuple[str, float, float]] | None:
    outputs = session.receive_alignment(job, answer)
    return words_of(outputs) if completed_of(outputs) else None


def test_a_stretch_is_aligned_while_the_turn_goes_on() -> None:
    session = session_with(include=[WORDS], is_live=False, turn_detection=ServerVad(silence_duration_ms=2_000))
    outputs = decoded(session, speak(session, *[0.9] * 30, *[0.0] * 40), " one")
    (job,) = alignments_of(outputs)
    assert session.receive_alignment(job, windows((0, 30))) == []
    outputs = speak(session, *[0.0] * 30)  # the turn ends, and all is known
    assert words_of(outputs) == [("one", 0, 30 * WINDOW_S)]


def test_an_item_whose_words_cannot_be_placed_is_completed_without_them() -> None:
    session = session_with(include=[WORDS], is_live=False)
    (job,) = alignments_of(decoded(session, spoken_turn(session), " Good"))
    outputs = session.receive_failure(job, EngineError("It can't be done."))
    completed = completed_of(outputs)
    assert completed is not None
    assert (completed.transcript, completed.words) == ("Good", None)
    # The next item is asked again.
    assert alignments_of(decoded(session, spoken_turn(session), " Good"))


def test_an_answer_for_an_item_that_is_gone_is_ignored() -> None:
    session = session_with(include=[WORDS], is_live=False)
    (job,) = alignments_of(decoded(session, spoken_turn(session), " Good"))
    completed = completed_of(session.fail_unfinished(EngineError("The server is shutting down.")))
    assert completed is not None  # all of its text was there
    assert (completed.transcript, completed.words) == ("Good", None)
    assert session.receive_alignment(job, windows((0, 1))) == []
    assert session.receive_failure(job, EngineError("Too late.")) == []


def test_an_item_without_speech_has_no_words() -> None:
    session = session_with(include=[WORDS], turn_detection=None)
    outputs = hear(session, [*session.receive_event(append(10)), *session.receive_event(Commit())], [0.0])
    assert words_of(outputs) == []


def test_words_have_probabilities_where_those_are_included() -> None:
    for include, expected in (([WORDS], None), ([WORDS, LOGPROBS], -1.0)):
        session = session_with(include=include, is_live=False)
        (job,) = alignments_of(decoded(session, spoken_turn(session), " morn", "ing"))
        completed = completed_of(session.receive_alignment(job, windows((9, 12), (12, 20))))
        assert completed is not None
        assert completed.words is not None
        assert [word.logprob for word in completed.words] == [expected]
        assert ("logprob" in completed.words[0].model_dump()) == (expected is not None)


@pytest.mark.parametrize("is_wanted_first", [True, False])
def test_it_can_be_switched_while_somebody_speaks(*, is_wanted_first: bool) -> None:
    includes: tuple[Any, Any] = ([WORDS], None) if is_wanted_first else (None, [WORDS])
    session = session_with(include=includes[0], is_live=False, turn_detection=ServerVad(silence_duration_ms=2_000))
    outputs = decoded(session, speak(session, *[0.9] * 30, *[0.0] * 40), " one")
    assert len(alignments_of(outputs)) == is_wanted_first
    session.receive_event(UpdateSession(apply=lambda config: _including(config, includes[1])))
    outputs = speak(session, *[0.9] * 30, *[0.0] * 70)
    asked = alignments_of(outputs)  # of the stretch that was over before
    outputs = decoded(session, outputs, " two")
    asked += alignments_of(outputs)
    assert len(asked) == (0 if is_wanted_first else 2)
    for job in asked:
        outputs = session.receive_alignment(job, windows((9.375, 39.375)))
    assert words_of(outputs) == (
        None if is_wanted_first else [("one", pytest.approx(0, abs=0.31), 0.96), ("two", 2.24, 3.2)]
    )


def _including(config: SessionConfig, include: Any) -> SessionConfig:
    return config.model_copy(update={"include": include})


def told(*tokens: tuple[str, tuple[int, int]], size: int = 1_000) -> list[tuple[str, int, int]]:
    """The words of a stretch that begins at position 100 and is all speech."""
    words = ItemWords(lambda start, end: (start, end))
    words.is_wanted = True
    words.add(100, 100 + size, [Token(text, -0.5, span=span) for text, span in tokens])
    assert not words.is_waiting
    assert words.words is not None
    return [(word.text, word.start, word.end) for word in words.words]


def test_a_word_has_its_punctuation_and_lies_where_its_letters_are() -> None:
    found = told((" Well", (0, 50)), (",", (50, 90)), (" it", (90, 100)), ("'s", (100, 120)), (" -", (120, 200)))
    assert found == [("Well,", 100, 150), ("it's -", 190, 220)]


def test_words_do_not_overlap_and_stay_in_their_stretch() -> None:
    found = told((" a", (0, 60)), (" b", (40, 50)), (" c", (900, 1_200)), (" d", (1_500, 1_600)))
    assert found == [("a", 100, 160), ("b", 160, 160), ("c", 1_000, 1_100), ("d", 1_100, 1_100)]


def test_what_is_no_word_is_told_as_one() -> None:
    assert told(("...", (0, 10))) == [("...", 100, 110)]
    assert told() == []


def test_without_spaces_each_token_is_a_word() -> None:
    found = told((" 今日", (0, 10)), ("は", (10, 20)), ("晴れ", (20, 30)), ("。", (30, 40)), (" OK", (40, 50)))
    assert found == [("今日", 100, 110), ("は", 110, 120), ("晴れ。", 120, 130), ("OK", 140, 150)]


def test_positions_of_speech_are_windows_of_the_utterance() -> None:
    """An utterance need not begin with a window."""
    session = session_with(include=[WORDS], is_live=False, turn_detection=None)
    session.receive_event(append(0.5))
    outputs = hear(session, session.receive_event(append(10, 0.5)), [0.9] * 10)
    outputs = hear(session, session.receive_event(append(3)), [0.0])
    outputs = hear(session, session.receive_event(Commit()), [0.0])
    (job,) = alignments_of(decoded(session, outputs, " yes"))
    found = words_of(session.receive_alignment(job, Alignment(((0, job.samples.size),))))
    assert found == [("yes", 0, 10 * WINDOW_S)]

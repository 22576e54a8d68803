"""Which part of an utterance is decoded, and which text is believed."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import OPTIONS, audio_samples, finals_of, said, session_with, speak
from hypothesis import given
from hypothesis import strategies as st

from auricle.audio.formats import WINDOW_SAMPLES, Samples
from auricle.protocol.config import ServerVad
from auricle.protocol.events import Commit, DurationUsage, TranscriptionCompleted
from auricle.session.jobs import Token
from auricle.session.speech import TAIL_WINDOWS, SpeechFinder, is_believable
from auricle.session.turns import TurnRule

LEAD, TAIL = 300 * 16, TAIL_WINDOWS * WINDOW_SAMPLES


def silence(start: int, end: int) -> Samples:
    """What all utterances here sound like."""
    return np.zeros(end - start, np.float32)


def finder_of(probabilities: list[float], start: int = 0, **vad: float) -> SpeechFinder:
    """What is found in an utterance of these windows, as far as it goes; `start` is its own position."""
    finder = SpeechFinder(start, TurnRule.of(ServerVad(**vad)), silence)
    for probability in probabilities:
        finder.push(probability)
    return finder


def parts(probabilities: list[float], start: int = 0, **vad: float) -> list[tuple[int, int]]:
    """Where the pieces of a whole utterance begin and end."""
    finder = finder_of(probabilities, start, **vad)
    finder.end(len(probabilities) * WINDOW_SAMPLES)
    return [(piece.start, piece.end) for piece in finder.ended]


def part(probabilities: list[float], start: int = 0, **vad: float) -> tuple[int, int] | None:
    """The only piece, if there is one."""
    found = parts(probabilities, start, **vad)
    assert len(found) < 2
    return found[0] if found else None


def test_silence_around_speech_is_cut_down() -> None:
    assert part([0.0] * 20 + [0.9] * 5 + [0.0] * 20) == (20 * WINDOW_SAMPLES - LEAD, 25 * WINDOW_SAMPLES + TAIL)


def test_silence_in_speech_is_kept() -> None:
    assert part([0.0] * 20 + [0.9] * 2 + [0.0] * 30 + [0.9] * 2 + [0.0] * 20) == (
        20 * WINDOW_SAMPLES - LEAD,
        54 * WINDOW_SAMPLES + TAIL,
    )


def test_a_long_pause_is_left_out() -> None:
    assert parts([0.9] * 5 + [0.0] * 40 + [0.9] * 5 + [0.0] * 10) == [
        (0, 5 * WINDOW_SAMPLES + TAIL),
        (45 * WINDOW_SAMPLES - LEAD, 50 * WINDOW_SAMPLES + TAIL),
    ]


def test_pieces_do_not_overlap_however_much_goes_before_speech() -> None:
    assert parts([0.9] * 5 + [0.0] * 40 + [0.9] * 5, prefix_padding_ms=3_000) == [
        (0, 5 * WINDOW_SAMPLES + TAIL),
        (5 * WINDOW_SAMPLES + TAIL, 50 * WINDOW_SAMPLES),
    ]


def test_a_single_window_far_from_other_speech_is_no_speech() -> None:
    assert parts([0.9] + [0.0] * 40 + [0.9] * 5) == [(41 * WINDOW_SAMPLES - LEAD, 46 * WINDOW_SAMPLES)]


def test_faint_speech_at_the_edges_belongs_to_it() -> None:
    assert part([0.0] * 20 + [0.4] + [0.9] * 4 + [0.4] + [0.0] * 20) == (
        20 * WINDOW_SAMPLES - LEAD,
        26 * WINDOW_SAMPLES + TAIL,
    )


def test_the_part_ends_where_the_utterance_does() -> None:
    assert part([0.9] * 6) == (0, 6 * WINDOW_SAMPLES)


def test_an_utterance_may_begin_within_a_window() -> None:
    assert part([0.0] * 20 + [0.9] * 5, start=100) == (20 * WINDOW_SAMPLES - LEAD, 25 * WINDOW_SAMPLES)


def test_the_prefix_padding_goes_before_the_speech() -> None:
    assert part([0.0] * 20 + [0.9] * 5, prefix_padding_ms=64)[0] == 18 * WINDOW_SAMPLES


def test_a_lower_threshold_makes_fainter_sounds_speech() -> None:
    assert part([0.0] * 20 + [0.3] * 5) is None
    assert part([0.0] * 20 + [0.3] * 5, threshold=0.3)[1] == 25 * WINDOW_SAMPLES
    assert part([0.0] * 20 + [0.9] * 5, threshold=0.95)[1] == 25 * WINDOW_SAMPLES


@pytest.mark.parametrize("probabilities", [[], [0.0] * 50, [0.49] * 50, [0.9]])
def test_what_is_no_speech_has_no_part(probabilities: list[float]) -> None:
    assert part(probabilities) is None


def test_what_goes_on_is_known_as_far_as_it_is_heard() -> None:
    assert finder_of([0.0] * 20 + [0.9]).current is None
    current = finder_of([0.0] * 20 + [0.9] * 5).current
    assert current is not None
    assert (current.start, current.end, current.clear_windows) == (20 * WINDOW_SAMPLES - LEAD, 25 * WINDOW_SAMPLES, 5)


def test_silence_behind_what_goes_on_is_taken_no_further_than_the_tail() -> None:
    for silent, tail in ((0, 0), (1, 1), (TAIL_WINDOWS, TAIL_WINDOWS), (20, TAIL_WINDOWS)):
        finder = finder_of([0.9] * 5 + [0.0] * silent)
        assert finder.current is not None
        assert finder.current.end == (5 + tail) * WINDOW_SAMPLES
        assert finder.silent_windows == silent


def test_a_long_pause_ends_a_piece_before_the_utterance_ends() -> None:
    finder = finder_of([0.9] * 5 + [0.0] * 32)
    assert [(piece.start, piece.end) for piece in finder.ended] == [(0, 5 * WINDOW_SAMPLES + TAIL)]
    assert finder.current is None


def test_the_end_may_lie_within_a_window() -> None:
    finder = finder_of([0.9] * 5)
    finder.end(5 * WINDOW_SAMPLES + 100)
    assert finder.ended[0].end == 5 * WINDOW_SAMPLES + 100


def test_an_utterance_that_begins_with_the_rest_of_a_spoken_window_has_that_window() -> None:
    """A commit by hand may cut a window in two; both items have heard it."""
    assert part([0.0] * 2 + [0.9] * 3, start=100, prefix_padding_ms=0) == (2 * WINDOW_SAMPLES, 5 * WINDOW_SAMPLES)
    assert part([0.9] * 3, start=100) == (100, 3 * WINDOW_SAMPLES)


def test_clear_windows_are_counted_anew_after_a_pause() -> None:
    finder = finder_of([0.9] * 5 + [0.0] * 40 + [0.9, 0.4, 0.9])
    finder.end(48 * WINDOW_SAMPLES)
    assert [piece.clear_windows for piece in finder.ended] == [5, 2]


def stretches(probabilities: list[float]) -> list[tuple[int, int]]:
    """First and last window of each stretch of speech, told the simple way: all at once."""
    found: list[tuple[int, int]] = []
    for index, probability in enumerate(probabilities):
        if probability < 0.35:
            continue
        if found and index - found[-1][1] <= 32:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return [
        (first, last)
        for first, last in found
        if sum(probability >= 0.5 for probability in probabilities[first : last + 1]) >= 2
    ]


@given(
    st.lists(st.tuples(st.integers(1, 45), st.sampled_from([0.0, 0.4, 0.9])), max_size=5),
    st.integers(0, WINDOW_SAMPLES - 1),
    st.sampled_from([0, 300, 2_000]),
)
def test_pieces_found_window_by_window_are_those_of_the_whole(
    runs: list[tuple[int, float]], start: int, prefix_padding_ms: int
) -> None:
    """Of an utterance that is too short for a piece to end at a shorter pause."""
    probabilities = [probability for count, probability in runs for _ in range(count)]
    total = len(probabilities) * WINDOW_SAMPLES
    expected: list[tuple[int, int]] = []
    end = start
    for first, last in stretches(probabilities):
        begin = max(first * WINDOW_SAMPLES - prefix_padding_ms * 16, end)
        end = min((last + 1) * WINDOW_SAMPLES + TAIL, total)
        expected.append((begin, end))
    assert parts(probabilities, start, prefix_padding_ms=prefix_padding_ms) == expected


@given(st.lists(st.sampled_from([0.0, 0.4, 0.9]), max_size=30), st.integers(0, WINDOW_SAMPLES - 1))
def test_every_window_of_clear_speech_is_in_the_part(probabilities: list[float], start: int) -> None:
    clear = [index for index, value in enumerate(probabilities) if value >= 0.5]
    found = part(probabilities, start)
    assert (found is None) == (len(clear) < 2)
    if found:
        assert found[0] <= max(clear[0] * WINDOW_SAMPLES, start)
        assert found[1] >= (clear[-1] + 1) * WINDOW_SAMPLES


@pytest.mark.parametrize(
    ("logprob", "windows", "believed"),
    [
        (-0.2, 3, True),
        (-0.8, 3, False),
        (-0.8, 4, True),
        (-1.0, 5, False),
        (-1.0, 15, False),
        (-1.0, 16, True),
    ],
)
def test_a_doubtful_text_is_believed_only_of_enough_speech(logprob: float, windows: int, believed: bool) -> None:
    assert is_believable([Token("Yes", logprob), Token(".", logprob)], windows) is believed


@pytest.mark.parametrize(("logprob", "windows", "believed"), [(-0.4, 8, True), (-0.7, 8, False), (-0.7, 16, True)])
def test_a_lone_token_must_be_surer(logprob: float, windows: int, believed: bool) -> None:
    assert is_believable([Token("You", logprob)], windows) is believed


def test_words_that_follow_for_sure_do_not_make_up_for_a_wild_guess() -> None:
    guess = [Token("I", -1.7), Token(" don't", -1.8), Token(" know", 0.0), Token(".", 0.0)]
    assert not is_believable(guess, 12)


def test_doubt_is_that_of_all_tokens_together() -> None:
    assert is_believable([Token("a", -0.1), Token("b", -1.5)], 5)
    assert is_believable([], 5)


def test_only_the_speech_of_an_item_is_decoded() -> None:
    session = session_with(turn_detection=ServerVad(silence_duration_ms=960, prefix_padding_ms=320))
    (decode,) = finals_of(speak(session, *[0.0] * 20, *[0.9] * 5, *[0.0] * 30))
    assert decode.samples.size == (10 + 5) * WINDOW_SAMPLES + TAIL
    assert audio_samples(session, "item_1") == (10 + 5 + 30) * WINDOW_SAMPLES


def test_only_the_speech_of_a_manual_item_is_decoded() -> None:
    session = session_with(turn_detection=None)
    speak(session, *[0.0] * 20, *[0.9] * 5, *[0.0] * 30)
    (decode,) = finals_of(session.receive_event(Commit()))
    assert decode.samples.size == LEAD + 5 * WINDOW_SAMPLES + TAIL
    assert decode.options == OPTIONS


def test_a_text_that_is_not_believed_is_empty() -> None:
    session = session_with()
    speak(session, *[0.9] * 5, *[0.0] * 7)
    assert session.receive_hypothesis("item_1", said("Thank", " you.", logprob=-2.0)) == [
        TranscriptionCompleted(item_id="item_1", transcript="", usage=DurationUsage(seconds=1))
    ]

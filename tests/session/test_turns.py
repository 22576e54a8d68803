"""Speech probabilities to turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.protocol.config import SemanticVad, ServerVad
from auricle.session.turns import TurnChange, TurnDetector, TurnRule

RULE = TurnRule(threshold=0.5, prefix_padding_ms=300, silence_windows=3)


def changes(probabilities: list[float], rule: TurnRule = RULE) -> list[tuple[int, str]]:
    """The windows at which something changes."""
    turns = TurnDetector(rule)
    return [
        (index, change.name) for index, value in enumerate(probabilities) if (change := turns.push(value)) is not None
    ]


def test_a_turn_begins_at_the_threshold_and_ends_after_the_silence() -> None:
    assert changes([0.49, 0.5, 0.9, 0, 0, 0, 0]) == [(1, "STARTED"), (5, "STOPPED")]


def test_speech_in_the_silence_begins_it_anew() -> None:
    assert changes([0.9, 0, 0, 0.5, 0, 0, 0]) == [(0, "STARTED"), (6, "STOPPED")]


def test_probabilities_a_little_below_the_threshold_do_not_begin_silence() -> None:
    assert changes([0.9, *[0.36] * 50]) == [(0, "STARTED")]


def test_silence_begins_below_the_lower_threshold() -> None:
    assert changes([0.9, 0.34, 0.34, 0.34]) == [(0, "STARTED"), (3, "STOPPED")]


def test_silence_that_has_begun_goes_on_between_the_thresholds() -> None:
    assert changes([0.9, 0, 0.4, 0.4]) == [(0, "STARTED"), (3, "STOPPED")]


def test_nothing_between_the_thresholds_begins_a_turn() -> None:
    assert changes([0.4] * 20) == []


def test_a_second_turn_follows_the_first() -> None:
    assert [index for index, _ in changes([1, 0, 0, 0, 1, 0, 0, 0])] == [0, 3, 4, 7]


def test_a_turn_of_the_lowest_threshold_ends_in_perfect_silence() -> None:
    rule = TurnRule.of(ServerVad(threshold=0.1, silence_duration_ms=32))
    assert changes([0.2, 0.05, 0.0], rule) == [(0, "STARTED"), (2, "STOPPED")]


def test_reset_forgets_the_turn_and_the_silence() -> None:
    turns = TurnDetector(RULE)
    for value in (1, 0, 0):
        turns.push(value)
    turns.reset()
    assert not turns.is_open
    assert turns.push(1) is TurnChange.STARTED
    assert [turns.push(0) for _ in range(3)] == [None, None, TurnChange.STOPPED]


@pytest.mark.parametrize(
    ("silence_duration_ms", "windows"), [(0, 1), (1, 1), (32, 1), (33, 2), (200, 7), (500, 16), (512, 16), (513, 17)]
)
def test_silence_is_rounded_up_to_whole_windows(silence_duration_ms: int, windows: int) -> None:
    assert TurnRule.of(ServerVad(silence_duration_ms=silence_duration_ms)).silence_windows == windows


def test_eagerness_orders_the_length_of_silence() -> None:
    rules = [TurnRule.of(SemanticVad(type="semantic_vad", eagerness=name)) for name in ("high", "medium", "low")]
    assert rules[0].silence_windows < rules[1].silence_windows < rules[2].silence_windows
    assert TurnRule.of(SemanticVad(type="semantic_vad", eagerness="auto")) == rules[1]


@given(st.lists(st.sampled_from([0.0, 0.3, 0.4, 0.5, 1.0])), st.integers(1, 5))
def test_turns_begin_and_end_by_turns(probabilities: list[float], silence_windows: int) -> None:
    found = changes(probabilities, TurnRule(0.5, 0, silence_windows))
    assert [name for _, name in found] == (["STARTED", "STOPPED"] * len(found))[: len(found)]
    for (start, _), (end, _) in zip(found[::2], found[1::2], strict=False):
        assert probabilities[start] >= 0.5
        assert max(probabilities[end - silence_windows + 1 : end + 1]) < 0.5

"""Broken promises are found in event streams that break them, and in no others."""

from __future__ import annotations

import pytest
from bench.records import added, at_once, committed, completed, delta, failed, started, stopped, turn

from auricle.bench.promises import violations
from auricle.bench.session_run import CLEARED, ERROR, Record


def broken(record: Record) -> list[str]:
    return [violation.promise for violation in violations(record)]


@pytest.mark.parametrize(
    "events",
    [
        [],
        turn(),
        turn() + turn("b", "a"),
        [started(), delta("It "), stopped(), delta("was"), committed(), added(), completed("It was")],
        [started(), stopped(), committed(), added(), failed()],
        [committed(), added(), completed("")],
        [*turn(), started("b"), delta("never", "b"), {"type": CLEARED}],
        # The next turn may begin before the text of the one before it is there.
        [started(), stopped(), committed(), added(), started("b"), completed(""), *turn("b", "a")[1:]],
    ],
)
def test_a_server_that_keeps_its_promises_is_not_blamed(events: list[dict]):
    assert broken(at_once(*events)) == []


@pytest.mark.parametrize(
    "deltas", [["It is", " the best."], ["It was the best. It"], ["It was"], [], [" It was the best."]]
)
def test_deltas_that_do_not_make_up_the_transcript_are_taken_back(deltas: list[str]):
    events = [started(), stopped(), committed(), added(), *map(delta, deltas), completed("It was the best.")]
    [violation] = violations(at_once(*events))
    assert violation.promise == "taken_back"
    assert violation.item_id == "a"
    assert repr("".join(deltas)) in violation.detail


@pytest.mark.parametrize(
    ("events", "detail"),
    [
        ([*turn(), delta("more")], "delta after the item's end"),
        ([*turn(), completed("It was the best.")], "completed after the item's end"),
        ([stopped(), *turn()[2:]], "speech_stopped without speech_started"),
        ([started(), started(), *turn()[1:]], "speech_started came a second time"),
        ([*turn()[:3], *turn()[2:]], "committed a second time"),
        ([*turn(), *turn("b", previous=None)], "previous_item_id is None, but a"),
        ([started(), stopped(), delta("x"), completed("x"), committed(), added()], "completed before committed"),
    ],
)
def test_events_in_a_wrong_order_are_found(events: list[dict], detail: str):
    found = [violation for violation in violations(at_once(*events)) if violation.promise == "wrong_order"]
    assert detail in found[0].detail


def test_text_of_an_item_before_the_one_before_it_is_complete_is_told_once():
    first, second = turn(), turn("b", "a")
    events = [*first[:4], *second[:4], delta("x", "b"), delta("y", "b"), completed("xy", "b"), *first[4:]]
    [violation] = violations(at_once(*events))
    assert (violation.promise, violation.item_id) == ("wrong_order", "b")


def test_an_item_without_an_end_is_found():
    assert broken(at_once(*turn()[:4])) == ["no_end"]


@pytest.mark.parametrize(
    "events",
    [
        [started()],
        [delta("It")],
        [started(), stopped(), {"type": CLEARED}],
        [committed(), completed("")],
        [completed("")],
    ],
)
def test_an_item_that_never_comes_is_found(events: list[dict]):
    assert "missing_item" in broken(at_once(*events))


def test_a_commit_that_is_not_answered_is_a_missing_item():
    assert broken(at_once(commit_s=1.0)) == ["missing_item"]
    refusal = {"type": ERROR, "error": {"code": "input_audio_buffer_commit_empty", "message": ""}}
    assert broken(at_once(refusal, commit_s=1.0)) == []


def test_a_session_that_was_closed_owes_no_item_for_an_open_turn():
    assert broken(at_once(started(), problem="closed")) == []
    assert broken(at_once(started(), stopped(), committed(), problem="closed")) == ["no_end"]

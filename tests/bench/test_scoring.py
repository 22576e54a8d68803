"""Word error rates."""

from __future__ import annotations

import pytest

from auricle.bench.scoring import Score, normalised


def test_the_rate_is_over_all_words_of_all_clips():
    score = Score()
    assert score.add("It was the best of times.", "it was the best of times") == 0
    assert score.add("best times", "best") == 50
    assert score.add("It was", "It is so") == 100
    assert (score.clips, score.words) == (3, 10)
    assert (score.substitutions, score.deletions, score.insertions) == (1, 1, 1)
    assert score.percent == 30


def test_where_nothing_is_said_every_word_is_too_many():
    score = Score()
    assert score.add("", "You. Thank you.") is None
    assert score.insertions == 3
    assert score.percent is None


def test_no_text_misses_every_word():
    score = Score()
    assert score.add("it was best", "") == 100
    assert score.deletions == 3


def test_scores_add_up():
    first, second = Score(), Score()
    first.add("a b", "a x")
    second.add("c d", "c d e")
    assert (first + second).percent == 50


@pytest.mark.parametrize(
    ("text", "scoring", "language", "expected"),
    [
        ("Mr. Lorry's colour, um, isn't 21!", None, "en", "mister lorry is color is not 21"),
        ("Four, oh-2 to 17.", "digits", "en", "4 0 2 2 1 7"),
        ("¿Qué tal?", None, "es", "qué tal"),
        ("客観的。", None, "ja", "客 観 的"),
    ],
)
def test_texts_are_compared_without_what_does_not_matter(text: str, scoring: str | None, language: str, expected: str):
    assert normalised(text, scoring, language) == expected

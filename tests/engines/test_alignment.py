"""The way through the audio that gathers the most attention, and the spans that come of it."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auricle.engines.alignment import boundaries, spans_of

ATTENTION = st.tuples(st.integers(1, 4), st.integers(1, 8)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)


def attention(*frames_of_tokens: range, frames: int) -> np.ndarray:
    """Each token gives all of its attention to its own frames."""
    found = np.zeros((len(frames_of_tokens), frames), np.float32)
    for token, own in enumerate(frames_of_tokens):
        found[token, list(own)] = 1 / len(own)
    return found


def test_each_token_has_the_frames_that_it_looks_at() -> None:
    found = boundaries(attention(range(3), range(3, 4), range(4, 9), frames=9))
    assert found.tolist() == [0, 3, 4, 9]


def test_a_token_that_looks_elsewhere_stays_in_its_place() -> None:
    weights = attention(range(4), range(9, 10), range(6, 10), frames=10)
    weights[1] = 0.1  # it has no place of its own
    assert boundaries(weights).tolist() in ([0, 4, 5, 10], [0, 4, 6, 10], [0, 5, 6, 10])


def test_frames_that_nobody_looks_at_are_given_to_a_neighbour() -> None:
    first, second, end = boundaries(attention(range(2), range(6, 8), frames=10)).tolist()[:3]
    assert (first, end) == (0, 10)
    assert 2 <= second <= 6


def gathered(weights: np.ndarray, bounds: list[int]) -> float:
    return sum(float(weights[token, begin:end].sum()) for token, (begin, end) in enumerate(pairwise(bounds)))


@given(ATTENTION)
def test_no_other_way_gathers_more(weights: np.ndarray) -> None:
    tokens, frames = weights.shape
    found = boundaries(weights).tolist()
    assert (found[0], found[-1], len(found)) == (0, frames, tokens + 1)
    if tokens > frames:
        assert found == sorted(found)
        return
    assert all(begin < end for begin, end in pairwise(found))
    others = ([0, *inner, frames] for inner in combinations(range(1, frames), tokens - 1))
    assert gathered(weights, found) == pytest.approx(max(gathered(weights, other) for other in others), abs=1e-5)


def test_more_tokens_than_frames_are_spread_out() -> None:
    assert boundaries(np.ones((4, 2), np.float32)).tolist() == [0, 0, 1, 2, 2]
    assert boundaries(np.zeros((0, 5), np.float32)).tolist() == [0]
    assert boundaries(np.zeros((2, 0), np.float32)).tolist() == [0, 0, 0]


def test_a_token_of_several_of_the_decoders_own_has_the_span_of_all() -> None:
    assert spans_of([1, 2, 1], [0, 10, 20, 30, 40]) == ((0, 10), (10, 30), (30, 40))
    assert spans_of([], [0]) == ()

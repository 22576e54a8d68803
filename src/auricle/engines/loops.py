"""Phrases that a decoder repeats without end."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LOOP_TOKENS = 24
"""The longest phrase that is looked for in loops."""


def length_without_loop(ids: Sequence[int]) -> int:
    """How many of `ids` to keep: fewer than all if they end in a phrase that repeats, so that it stays once.

    A single token must come 8 times in a row, a phrase of 2 to 5 tokens 4 times, a longer one 3 times. Real
    speech seldom repeats itself that often.
    """
    for size in range(1, min(MAX_LOOP_TOKENS, len(ids) // 3) + 1):
        times = 8 if size == 1 else 4 if size <= 5 else 3
        first = len(ids) - size * times
        if first >= 0 and all(ids[index] == ids[index + size] for index in range(first, len(ids) - size)):
            return first + size
    return len(ids)

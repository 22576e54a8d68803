"""The search for the largest number of sessions that passes: doubling, then halving the interval.

Pure: it is told how each number did.
"""

from __future__ import annotations

from dataclasses import dataclass

_PRECISION = 0.05
"""The search ends where the numbers that pass and fail are this share of each other apart."""


@dataclass
class CapacitySearch:
    """What is known so far. The command asks for `sessions`, tries, and tells how it went, until there is None."""

    first: int
    """Where the doubling begins."""
    most: int
    """Larger numbers are not tried."""
    passed: int = 0
    """The largest number that passed."""
    failed: int | None = None
    """The smallest number that failed."""

    @property
    def sessions(self) -> int | None:
        """The number to try next; None when the search is over."""
        if self.failed is None:
            return min(2 * self.passed or self.first, self.most) if self.passed < self.most else None
        if self.failed - self.passed <= max(1, _PRECISION * self.passed):
            return None
        return (self.passed + self.failed) // 2

    def tell(self, sessions: int, is_passed: bool) -> None:
        """Note how a number did."""
        if is_passed:
            self.passed = max(self.passed, sessions)
        else:
            self.failed = sessions if self.failed is None else min(self.failed, sessions)

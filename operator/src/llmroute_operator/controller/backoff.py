"""How long to wait before the next try. Pure: the dice are the caller's."""

FIRST_SECONDS = 0.2
MOST_SECONDS = 60.0
LEAST_SHARE = 0.5
"""Jitter takes up to this share off, so that what failed together does not come back together."""


def backoff(failures: int, dice: float, most: float = MOST_SECONDS) -> float:
    """Seconds after the `failures`-th failure in a row (from 1); `dice` is from 0 to 1."""
    doublings = min(max(failures, 1) - 1, 32)
    return min(most, FIRST_SECONDS * float(1 << doublings)) * (1 - LEAST_SHARE * dice)

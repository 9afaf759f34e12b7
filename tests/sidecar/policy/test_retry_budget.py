"""The retry budget: never more than the burst and the share, in any run of tries, whatever is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.policy.retry_budget import RetryBudget

TRIES = st.lists(st.booleans(), max_size=300)
"""True: a retry is asked for; False: a first try is made."""
PERCENT, BURST = st.integers(0, 400), st.integers(0, 12)


def granted(budget: RetryBudget, tries: list[bool]) -> list[bool]:
    """Which of the tries were retries that were made."""
    made = []
    for retry in tries:
        made.append(retry and budget.take())
        if not retry:
            budget.first_try()
    return made


@given(PERCENT, BURST, TRIES)
def test_retries_never_exceed_the_burst_and_their_share_of_first_tries(
    percent: int, burst: int, tries: list[bool]
) -> None:
    made = granted(RetryBudget(percent, burst), tries)
    for end in range(len(tries) + 1):
        assert sum(made[:end]) * 100 <= burst * 100 + percent * tries[:end].count(False)


@given(PERCENT, st.integers(1, 12), TRIES, st.integers(0, 300))
def test_the_same_holds_from_any_moment_on(percent: int, burst: int, tries: list[bool], begin: int) -> None:
    made = granted(RetryBudget(percent, burst), tries)
    assert sum(made[begin:]) * 100 <= burst * 100 + percent * tries[begin:].count(False)


@pytest.mark.parametrize(
    ("percent", "burst", "calls", "retries"),
    [(20, 10, 100, 29), (50, 0, 10, 5), (100, 1, 50, 50), (0, 3, 50, 3), (400, 2, 50, 50)],
)
def test_what_traffic_pays_in_is_paid_out(percent: int, burst: int, calls: int, retries: int) -> None:
    """Where each call asks for a retry. (A full purse takes nothing in: the very first payment is lost.)"""
    assert sum(granted(RetryBudget(percent, burst), [False, True] * calls)) == retries


def test_nothing_is_granted_where_there_is_no_budget() -> None:
    assert not any(granted(RetryBudget(0, 0), [False, True] * 50))


def test_a_share_alone_is_saved_up_for_whole_retries() -> None:
    made = granted(RetryBudget(25, 0), [False, False, False, True, False, True, True])
    assert made == [False, False, False, False, False, True, False]


@given(PERCENT, BURST, PERCENT, BURST, TRIES, TRIES)
def test_new_numbers_hold_from_the_reload_on(
    percent: int, burst: int, new_percent: int, new_burst: int, before: list[bool], after: list[bool]
) -> None:
    budget = RetryBudget(percent, burst)
    granted(budget, before)
    budget.reconfigure(new_percent, new_burst)
    made = granted(budget, after)
    assert sum(made) * 100 <= max(new_burst, 1) * 100 + new_percent * after.count(False)

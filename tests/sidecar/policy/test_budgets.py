"""Budgets: exact sums, calendar periods, and how far they can be overdrawn."""

from datetime import UTC, datetime
from fractions import Fraction
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.limits import budgets as counting
from llmroute_sidecar.policy.limits.budgets import BudgetReservation, Budgets, period_end, period_start
from llmroute_sidecar.policy.limits.rules import PICODOLLARS, BudgetLimit, Period, Refused
from llmroute_sidecar.policy.prices import Price, PriceList


def unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def budget(dollars: int, period: Period = "Day") -> BudgetLimit:
    return BudgetLimit("route/spend", "spend", "Client", dollars * PICODOLLARS, period)


def take(budgets: Budgets, of: BudgetLimit, cost: int, now: float, key: str = "web") -> BudgetReservation | Refused:
    """As the ledger does it."""
    return budgets.refusal(of, key, cost, now) or budgets.reserve(of, key, cost, now)


def taken(answer: BudgetReservation | Refused) -> BudgetReservation:
    assert isinstance(answer, BudgetReservation), answer
    return answer


def refused(answer: BudgetReservation | Refused) -> Refused:
    assert isinstance(answer, Refused), answer
    return answer


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        ("Hour", "2026-11-25T14:59:59", "2026-11-25T14:00:00", "2026-11-25T15:00:00"),
        ("Day", "2026-12-31T23:59:59", "2026-12-31T00:00:00", "2027-01-01T00:00:00"),
        ("Day", "2028-02-29T00:00:00", "2028-02-29T00:00:00", "2028-03-01T00:00:00"),
        ("Week", "2026-11-29T23:00:00", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),  # a Sunday
        ("Week", "2027-01-01T00:00:00", "2026-12-28T00:00:00", "2027-01-04T00:00:00"),
        ("Month", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("Month", "2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_periods_are_the_calendars_in_utc(period: Period, moment: str, start: str, end: str) -> None:
    assert period_start(period, unix(moment)) == unix(start)
    assert period_end(period, unix(moment)) == unix(end)


def test_a_used_up_budget_refuses_until_its_period_ends() -> None:
    budgets, of, noon = Budgets(), budget(20), unix("2026-11-25T12:00:00")
    budgets.settle(taken(take(budgets, of, PICODOLLARS, noon)), 20 * PICODOLLARS, noon)
    refusal = refused(take(budgets, of, 1, noon))
    assert refusal.retry_after == refusal.standing.reset == 12 * 3600
    assert refused(take(budgets, of, 0, noon)).standing.remaining == 0  # also a call whose price is not known
    taken(take(budgets, of, 0, noon, key="another client"))
    taken(take(budgets, of, PICODOLLARS, unix("2026-11-26T00:00:00")))


def test_where_only_calls_in_flight_leave_no_room_the_wait_is_short() -> None:
    budgets, of, noon = Budgets(), budget(20), unix("2026-11-25T12:00:00")
    call = taken(take(budgets, of, 15 * PICODOLLARS, noon))
    assert refused(take(budgets, of, 10 * PICODOLLARS, noon)).retry_after == counting.SETTLING_SECONDS
    budgets.settle(call, PICODOLLARS, noon)
    taken(take(budgets, of, 10 * PICODOLLARS, noon))


def test_a_call_is_charged_to_the_period_in_which_it_ends() -> None:
    budgets, of = Budgets(), budget(20)
    call = taken(take(budgets, of, 15 * PICODOLLARS, unix("2026-11-25T23:59:59")))
    next_day = unix("2026-11-26T00:00:01")
    assert budgets.remaining(of, next_day) == 5 * PICODOLLARS  # what is reserved lives on
    budgets.settle(call, 19 * PICODOLLARS, next_day)
    assert budgets.remaining(of, next_day) == PICODOLLARS
    assert budgets.remaining(of, unix("2026-11-27T00:00:00")) == 20 * PICODOLLARS


def test_an_estimate_above_the_budget_passes_where_nothing_is_spent() -> None:
    budgets, of = Budgets(), budget(1)
    budgets.settle(taken(take(budgets, of, 50 * PICODOLLARS, 0.0)), 1, 0.0)
    refused(take(budgets, of, 50 * PICODOLLARS, 0.0))
    taken(take(budgets, of, PICODOLLARS - 1, 0.0))


def test_a_budget_of_nothing_admits_nothing() -> None:
    refused(take(Budgets(), budget(0), 0, 0.0))


def test_a_new_amount_applies_to_what_is_spent_and_a_longer_period_keeps_it() -> None:
    budgets, noon = Budgets(), unix("2026-11-25T12:00:00")
    budgets.settle(taken(take(budgets, budget(20), 0, noon)), 5 * PICODOLLARS, noon)
    budgets.keep_only([budget(5)])
    refused(take(budgets, budget(5), 1, noon))
    refused(take(budgets, budget(20), 1, noon))  # a call that came with the old number
    budgets.keep_only([budget(5, "Month")])
    refused(take(budgets, budget(5, "Month"), 1, unix("2026-11-30T00:00:00")))
    taken(take(budgets, budget(5, "Month"), 1, unix("2026-12-01T00:00:00")))
    budgets.keep_only([])
    taken(take(budgets, budget(5), PICODOLLARS, noon))


def test_keys_beyond_the_bound_share_one_account_until_the_period_ends() -> None:
    with patch.object(counting, "MAX_KEYS", 2):
        budgets, of = Budgets(), budget(10)
        for key in ("a", "b", "c"):
            budgets.settle(taken(take(budgets, of, 0, 0.0, key)), 8 * PICODOLLARS, 0.0)
        refused(take(budgets, of, 3 * PICODOLLARS, 0.0, "d"))
        tomorrow = 24 * 3600.0
        taken(take(budgets, of, 3 * PICODOLLARS, tomorrow, "d"))
        assert set(budgets._accounts[of.id].by_key) == {"d"}


@pytest.mark.parametrize("period", ["Hour", "Day", "Week", "Month"])
def test_a_clock_that_was_far_ahead_and_is_put_right_keeps_no_budget_shut(period: Period) -> None:
    """A machine that starts with a wrong clock is put right by years; nobody would have had money until then."""
    budgets, of = Budgets(), budget(1, period)
    wrong, right = unix("2036-02-29T12:00:00"), unix("2026-11-25T12:00:00")
    budgets.settle(taken(take(budgets, of, 0, wrong)), PICODOLLARS, wrong)
    refused(take(budgets, of, 1, right))  # rather too early than spent twice
    taken(take(budgets, of, 1, period_end(period, right)))


def test_a_clock_that_runs_back_ends_no_period() -> None:
    budgets, of, noon = Budgets(), budget(1), unix("2026-11-25T12:00:00")
    budgets.settle(taken(take(budgets, of, 0, noon)), PICODOLLARS, noon)
    refused(take(budgets, of, 1, noon - 24 * 3600))
    refused(take(budgets, of, 1, noon))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9000),
            st.sampled_from(["a", "b"]),
            st.one_of(
                st.tuples(st.just("admit"), st.integers(0, 900)), st.tuples(st.just("end"), st.integers(0, 2000))
            ),
        ),
        max_size=80,
    )
)
@settings(max_examples=400, deadline=None)
def test_spending_exceeds_the_budget_by_no_more_than_the_calls_beyond_their_estimates(
    steps: list[tuple[int, str, tuple[str, int]]],
) -> None:
    of = BudgetLimit("route/spend", "spend", "Client", 1000, "Hour")
    budgets, now = Budgets(), 0.0
    in_flight: list[tuple[str, BudgetReservation, int]] = []
    spent: dict[tuple[str, int], int] = {}
    beyond: dict[tuple[str, int], int] = {}
    for seconds, key, (step, cost) in steps:
        now += seconds
        hour = int(now // 3600)
        if step == "admit":
            answer = take(budgets, of, cost, now, key)
            reserved = sum(each for holder, _, each in in_flight if holder == key)
            used = spent.get((key, hour), 0) + reserved
            assert isinstance(answer, BudgetReservation) == (used < 1000 and used + cost <= 1000)
            if isinstance(answer, BudgetReservation):
                in_flight.append((key, answer, cost))
        elif in_flight:
            holder, call, estimate = in_flight.pop(cost % len(in_flight))
            budgets.settle(call, cost, now)
            spent[holder, hour] = spent.get((holder, hour), 0) + cost
            beyond[holder, hour] = beyond.get((holder, hour), 0) + max(0, cost - estimate)
            assert spent[holder, hour] <= 1000 + beyond[holder, hour]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**15), st.integers(0, 10**15))
def test_costs_are_exact(given_tokens: int, made: int, input_price: int, output_price: int) -> None:
    """Prices in microdollars for a million tokens."""
    cost = Price(input_price, output_price).cost(given_tokens, made)
    dollars = Fraction(given_tokens * input_price + made * output_price, 10**6 * 10**6)
    assert Fraction(cost, PICODOLLARS) == dollars


def test_the_exact_price_counts_and_then_that_of_the_longest_prefix() -> None:
    prices = PriceList({"gpt-4*": Price(1, 1), "gpt-4o*": Price(2, 2), "gpt-4o": Price(3, 3)})
    assert prices.find("gpt-4o") == Price(3, 3)
    assert prices.find("gpt-4o-mini") == Price(2, 2)
    assert prices.find("gpt-4-turbo") == Price(1, 1)
    assert prices.find("llama") is None

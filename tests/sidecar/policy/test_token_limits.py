"""Limits on tokens: what is reserved, given back and counted beyond the estimate.

Times are multiples of 1/64 s, which floats add without rounding.
"""

from copy import deepcopy
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.limits import Refused
from llmroute_sidecar.policy.limits import places as keys_of_a_rule
from llmroute_sidecar.policy.limits import tokens as counting
from llmroute_sidecar.policy.limits.rules import Standing, TokenLimit
from llmroute_sidecar.policy.limits.tokens import TokenReservation, TokenWindows


def rule(tokens: int, window: float = 60.0, name: str = "limit") -> TokenLimit:
    return TokenLimit(f"route/{name}", name, "Client", tokens, window)


def take(
    windows: TokenWindows, of: TokenLimit, tokens: int, now: float, key: str = "web"
) -> TokenReservation | Refused:
    """As the ledger does it."""
    return windows.refusal(of, key, tokens, now) or windows.reserve(of, key, tokens, now)[0]


def taken(answer: TokenReservation | Refused) -> TokenReservation:
    assert isinstance(answer, TokenReservation), answer
    return answer


def refused(answer: TokenReservation | Refused) -> Refused:
    assert isinstance(answer, Refused), answer
    return answer


def test_what_was_not_used_is_given_back() -> None:
    windows, hundred = TokenWindows(), rule(100)
    call = taken(take(windows, hundred, 80, 0.0))
    refused(take(windows, hundred, 80, 1.0))
    windows.settle(call, 20, 2.0)
    taken(take(windows, hundred, 80, 3.0))
    assert windows.remaining(hundred, 10, 3.0) == 0


def test_what_was_used_beyond_the_estimate_counts_from_when_it_is_known() -> None:
    windows, hundred = TokenWindows(), rule(100)
    windows.settle(taken(take(windows, hundred, 10, 0.0)), 130, 30.0)
    assert refused(take(windows, hundred, 10, 31.0)).standing == Standing("limit", 100, 0, 59.0, "tokens")
    assert refused(take(windows, hundred, 10, 61.0)).retry_after == 29.0  # the estimate has left, the excess has not
    taken(take(windows, hundred, 10, 90.0))


def test_an_estimate_above_the_limit_passes_where_the_window_is_empty() -> None:
    windows, hundred = TokenWindows(), rule(100)
    call = taken(take(windows, hundred, 100_000, 0.0))
    refused(take(windows, hundred, 1, 1.0))
    windows.settle(call, 60, 2.0)
    taken(take(windows, hundred, 40, 3.0))
    refused(take(windows, hundred, 100_000, 4.0))


def test_a_refusal_says_how_long_until_there_is_room_for_this_call() -> None:
    windows, hundred = TokenWindows(), rule(100)
    for second in (0.0, 10.0, 20.0):
        taken(take(windows, hundred, 30, second))
    assert refused(take(windows, hundred, 20, 21.0)) == Refused(Standing("limit", 100, 10, 59.0, "tokens"), 39.0)
    assert refused(take(windows, hundred, 50, 21.0)).retry_after == 49.0
    taken(take(windows, hundred, 10, 21.0))


def test_a_call_longer_than_the_window_leaves_it_and_cannot_give_back_twice() -> None:
    windows, hundred = TokenWindows(), rule(100)
    long = taken(take(windows, hundred, 100, 0.0))
    taken(take(windows, hundred, 100, 60.0))
    windows.settle(long, 0, 61.0)
    assert windows.remaining(hundred, 10, 61.0) == 0


def test_a_lower_number_meets_the_history_and_a_rule_that_is_gone_forgets() -> None:
    windows = TokenWindows()
    call = taken(take(windows, rule(100), 50, 0.0))
    windows.keep_only([rule(40)])
    refused(take(windows, rule(40), 1, 1.0))
    windows.keep_only([])
    windows.settle(call, 500, 2.0)
    taken(take(windows, rule(40), 40, 3.0))


def test_a_window_costs_no_more_than_its_slots() -> None:
    windows, endless = TokenWindows(), rule(10**12)
    for call in range(20_000):
        windows.settle(taken(take(windows, endless, 5, call / 256)), 7, call / 256)
    assert len(windows._keys[endless.id].windows["web"].slots) <= counting.SLOTS + 2


TICKS = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 200))
STEPS = st.lists(
    st.tuples(
        TICKS,
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.tuples(st.just("admit"), st.integers(1, 70)), st.tuples(st.just("end"), st.integers(0, 150))),
    ),
    max_size=80,
)


class Log:
    """The plainest account: each call's admission, with what is counted for it then, and each excess."""

    def __init__(self) -> None:
        self.counted: dict[str, list[tuple[float, int]]] = {}

    def write(self, key: str, now: float, tokens: int) -> int:
        self.counted.setdefault(key, []).append((now, tokens))
        return len(self.counted[key]) - 1

    def inside(self, key: str, now: float, window: float) -> int:
        return sum(tokens for stamp, tokens in self.counted.get(key, []) if stamp + window > now)


@given(STEPS, st.integers(1, 3))
@settings(max_examples=400, deadline=None)
def test_no_call_is_admitted_beyond_the_limit_in_any_window(
    steps: list[tuple[int, str, tuple[str, int]]], places: int
) -> None:
    """Whatever the order of admissions and endings, and with fewer places than keys."""
    with patch.object(keys_of_a_rule, "MAX_KEYS", places):
        windows, of, log, now = TokenWindows(), rule(100, 2.0), Log(), 1000.0
        open_calls: list[tuple[TokenReservation, int]] = []
        for ticks, key, (step, tokens) in steps:
            now += ticks / 64
            if step == "admit":
                answer = take(windows, of, tokens, now, key)
                if isinstance(answer, TokenReservation):
                    open_calls.append((answer, log.write(key, now, tokens)))
                    assert log.inside(key, now, 2.0) <= 100
                else:
                    assert answer.retry_after > 0
            elif open_calls:
                call, entry = open_calls.pop(tokens % len(open_calls))
                windows.settle(call, tokens, now)
                stamp, reserved = log.counted[call.key][entry]
                log.counted[call.key][entry] = (stamp, min(tokens, reserved))
                if tokens > reserved:
                    log.write(call.key, now, tokens - reserved)
            assert all(len(keys.windows) <= places for keys in windows._keys.values())


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_what_is_refused_would_not_have_fitted_but_for_one_slot(steps: list[tuple[int, str, tuple[str, int]]]) -> None:
    windows, of, log, now = TokenWindows(), rule(100, 2.0), Log(), 0.0
    open_calls: list[tuple[TokenReservation, int]] = []
    for ticks, key, (step, tokens) in steps:
        now += ticks / 64
        if step == "admit":
            answer = take(windows, of, tokens, now, key)
            if isinstance(answer, TokenReservation):
                open_calls.append((answer, log.write(key, now, tokens)))
            else:
                assert log.inside(key, now, 2.0 + 2.0 / counting.SLOTS) + tokens > 100
                assert not deepcopy(windows).refusal(of, key, tokens, now + answer.retry_after)  # its clock moves
        elif open_calls:
            call, entry = open_calls.pop(0)
            windows.settle(call, tokens, now)
            stamp, reserved = log.counted[call.key][entry]
            log.counted[call.key][entry] = (stamp, min(tokens, reserved))
            if tokens > reserved:
                log.write(call.key, now, tokens - reserved)

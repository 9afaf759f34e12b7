"""The limiter: never too many, all or nothing, exact where it says so, bounded in memory.

Times here are multiples of 1/64 s, which floats add without rounding, so that "exact" can be tested as such.
"""

from collections.abc import Iterable
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.limits import Admitted, Limiter, Refused, RequestLimit, Standing
from llmroute_sidecar.policy.limits import places as keys_of_a_rule
from llmroute_sidecar.policy.limits import requests as counting

Use = tuple[RequestLimit, str]


def rule(requests: int, window: float = 60.0, name: str = "limit") -> RequestLimit:
    return RequestLimit(f"route/{name}", name, "Client", requests, window)


def admitted(answer: Admitted | Refused) -> Standing:
    assert isinstance(answer, Admitted), answer
    assert answer.standing is not None
    return answer.standing


def refused(answer: Admitted | Refused | None) -> Refused:
    assert isinstance(answer, Refused), answer
    return answer


def most_in_any_window(stamps: list[float], window: float) -> int:
    """The most of `stamps` (ascending) within a half-open span of `window` seconds."""
    return max(
        (sum(start <= stamp < start + window for stamp in stamps[i:]) for i, start in enumerate(stamps)), default=0
    )


# -- by example --------------------------------------------------------------------------------------------------------


def test_what_the_headers_say_while_a_limit_is_used_up() -> None:
    limiter, three = Limiter(), rule(3, 60.0)
    assert admitted(limiter.admit([(three, "web")], 100.0)) == Standing("limit", 3, 2, 60.0)
    assert admitted(limiter.admit([(three, "web")], 110.0)) == Standing("limit", 3, 1, 60.0)
    assert admitted(limiter.admit([(three, "web")], 120.0)) == Standing("limit", 3, 0, 60.0)
    assert limiter.admit([(three, "web")], 130.0) == Refused(Standing("limit", 3, 0, 50.0), 30.0)
    assert admitted(limiter.admit([(three, "web")], 160.0)) == Standing("limit", 3, 0, 60.0)


def test_the_window_is_half_open() -> None:
    limiter, one = Limiter(), rule(1, 60.0)
    admitted(limiter.admit([(one, "web")], 0.0))
    assert refused(limiter.admit([(one, "web")], 59.984375)).retry_after == 0.015625
    admitted(limiter.admit([(one, "web")], 60.0))


def test_without_a_limit_all_are_admitted() -> None:
    assert Limiter().admit((), 0.0) == Admitted(None)


def test_a_limit_of_none_admits_none() -> None:
    assert refused(Limiter().admit([(rule(0), "web")], 0.0)).retry_after == 60.0


def test_keys_and_rules_are_counted_apart() -> None:
    limiter, one, other = Limiter(), rule(1, name="one"), rule(1, name="other")
    for use in [(one, "a"), (one, "b"), (other, "a")]:
        admitted(limiter.admit([use], 0.0))
        refused(limiter.admit([use], 0.0))


def test_nothing_is_counted_where_one_of_several_refuses() -> None:
    limiter, wide, narrow = Limiter(), rule(10, name="wide"), rule(1, name="narrow")
    admitted(limiter.admit([(wide, "web"), (narrow, "web")], 0.0))
    for _ in range(50):
        refused(limiter.admit([(wide, "web"), (narrow, "web")], 1.0))
        refused(limiter.admit([(narrow, "web"), (wide, "new")], 1.0))
    assert admitted(limiter.admit([(wide, "web")], 1.0)).remaining == 8
    assert admitted(limiter.admit([(wide, "new")], 1.0)).remaining == 9


def test_the_longest_wait_is_told_where_several_refuse() -> None:
    limiter, short, long = Limiter(), rule(1, 1.0, "short"), rule(1, 60.0, "long")
    uses = [(long, "web"), (short, "web")]
    admitted(limiter.admit(uses, 0.0))
    for order in (uses, uses[::-1]):
        assert refused(limiter.admit(order, 0.5)) == Refused(Standing("long", 1, 0, 59.5), 59.5)


@pytest.mark.parametrize(
    ("rules", "strictest"),
    [
        ([rule(5, 1.0, "five"), rule(2, 1.0, "two")], "two"),
        ([rule(2, 1.0, "short"), rule(2, 60.0, "long")], "long"),
        ([rule(2, 60.0, "long"), rule(2, 1.0, "short")], "long"),
        ([rule(2, 1.0, "first"), rule(2, 1.0, "second")], "first"),
    ],
)
def test_the_strictest_standing_is_the_least_remaining_then_the_longest_reset(
    rules: list[RequestLimit], strictest: str
) -> None:
    assert admitted(Limiter().admit([(each, "web") for each in rules], 0.0)).name == strictest


def test_a_pair_that_stands_twice_never_admits_more() -> None:
    limiter, three = Limiter(), rule(3)
    twice = [(three, "web"), (three, "web")]
    passed = sum(isinstance(limiter.admit(twice, 0.0), Admitted) for _ in range(10))
    assert 1 <= passed <= 3


def test_peek_tells_a_refusal_and_counts_nothing() -> None:
    limiter, two = Limiter(), rule(2)
    for _ in range(10):
        assert limiter.peek(two, "up", 0.0) is None
    admitted(limiter.admit([(two, "up")], 0.0))
    admitted(limiter.admit([(two, "up")], 0.0))
    assert (
        limiter.peek(two, "up", 1.0)
        == limiter.admit([(two, "up")], 1.0)
        == Refused(Standing("limit", 2, 0, 59.0), 59.0)
    )
    assert limiter.peek(two, "up", 60.0) is None


def test_a_clock_that_runs_back_stands_still() -> None:
    limiter, one = Limiter(), rule(1, 10.0)
    admitted(limiter.admit([(one, "web")], 100.0))
    assert refused(limiter.admit([(one, "web")], 0.0)).retry_after == 10.0
    assert refused(limiter.peek(one, "web", -1e9)).retry_after == 10.0
    admitted(limiter.admit([(one, "web")], 110.0))


# -- reload ------------------------------------------------------------------------------------------------------------


def test_a_lower_number_meets_the_history() -> None:
    limiter = Limiter()
    for second in range(10):
        admitted(limiter.admit([(rule(10), "web")], float(second)))
    refusal = refused(limiter.admit([(rule(4), "web")], 10.0))
    assert refusal == Refused(Standing("limit", 4, 0, 59.0), 56.0)  # seven must leave; the seventh came at 6 s
    admitted(limiter.admit([(rule(4), "web")], 66.0))


def test_a_shorter_window_forgets_what_is_older() -> None:
    limiter = Limiter()
    admitted(limiter.admit([(rule(1, 60.0), "web")], 0.0))
    admitted(limiter.admit([(rule(1, 5.0), "web")], 5.0))


def test_only_the_rules_that_are_gone_lose_their_state() -> None:
    limiter, kept, gone = Limiter(), rule(1, name="kept"), rule(1, name="gone")
    admitted(limiter.admit([(kept, "web"), (gone, "web")], 0.0))
    limiter.keep_only([rule(1, 30.0, "kept"), rule(1, name="new")])
    refused(limiter.admit([(kept, "web")], 1.0))
    admitted(limiter.admit([(gone, "web")], 1.0))


# -- bounds ------------------------------------------------------------------------------------------------------------


def slots(limiter: Limiter, of: RequestLimit, key: str) -> int:
    return len(limiter._keys[of.id].windows[key].ends)


def test_a_limit_of_a_billion_costs_no_more_than_its_slots() -> None:
    limiter, billion = Limiter(), rule(1_000_000_000, 60.0)
    for request in range(50_000):
        admitted(limiter.admit([(billion, "web")], request / 256))
    assert slots(limiter, billion, "web") <= counting.SLOTS + 2
    assert admitted(limiter.admit([(billion, "web")], 50_000 / 256)).remaining == pytest.approx(1e9 - 60 * 256, abs=30)


def test_up_to_as_many_as_there_are_slots_a_limit_is_exact_to_the_stamp() -> None:
    limiter, exact = Limiter(), rule(counting.SLOTS, 64.0)
    stamps = [request / 64 for request in range(counting.SLOTS)]  # closer than a 1024th of the window
    for stamp in stamps:
        admitted(limiter.admit([(exact, "web")], stamp))
    for stamp in stamps:
        admitted(limiter.admit([(exact, "web")], stamp + 64.0))
        assert refused(limiter.admit([(exact, "web")], stamp + 64.0)).retry_after == (
            0.015625 if stamp < 15.984375 else 48.015625
        )


def live_keys(limiter: Limiter, of: RequestLimit) -> int:
    return len(limiter._keys[of.id].windows)


def test_keys_beyond_the_bound_share_one_window() -> None:
    limiter, two = Limiter(), rule(2)
    for number in range(keys_of_a_rule.MAX_KEYS):
        admitted(limiter.admit([(two, f"key {number}")], 0.0))
    passed = sum(isinstance(limiter.admit([(two, f"further {number}")], 1.0), Admitted) for number in range(1000))
    assert passed == 2
    assert live_keys(limiter, two) == keys_of_a_rule.MAX_KEYS
    admitted(limiter.admit([(two, "key 0")], 1.0))  # those that have a place keep it


def test_idle_keys_make_room_for_new_ones() -> None:
    limiter, one = Limiter(), rule(1, 10.0)
    for number in range(3 * keys_of_a_rule.MAX_KEYS):
        admitted(limiter.admit([(one, f"key {number}")], number / 512))
    assert live_keys(limiter, one) <= 10 * 512 + 2


def test_a_key_in_use_does_not_hide_an_idle_one() -> None:
    with patch.object(keys_of_a_rule, "MAX_KEYS", 2):
        limiter, five = Limiter(), rule(5, 10.0)
        for key, now in (("busy", 0.0), ("idle", 1.0), ("busy", 9.0), ("new", 11.0)):
            admitted(limiter.admit([(five, key)], now))
        assert set(limiter._keys[five.id].windows) == {"busy", "new"}


def test_a_key_that_is_refused_or_peeked_at_takes_no_place() -> None:
    limiter, wide, narrow = Limiter(), rule(5, name="wide"), rule(1, name="narrow")
    admitted(limiter.admit([(narrow, "web")], 0.0))
    for number in range(100):
        refused(limiter.admit([(wide, f"made up {number}"), (narrow, "web")], 0.0))
        limiter.peek(wide, f"made up {number}", 0.0)
    assert live_keys(limiter, wide) == 0


def test_a_key_that_leaves_the_shared_window_cannot_double_its_limit() -> None:
    with patch.object(keys_of_a_rule, "MAX_KEYS", 1):
        limiter, two = Limiter(), rule(2, 10.0)
        admitted(limiter.admit([(two, "early")], 0.0))
        admitted(limiter.admit([(two, "late")], 9.0))  # shared
        admitted(limiter.admit([(two, "late")], 9.0))  # shared
        assert refused(limiter.admit([(two, "late")], 10.0)).retry_after == 9.0  # there is a place now
        admitted(limiter.admit([(two, "late")], 19.0))


def test_an_expired_window_of_a_refused_request_can_still_be_dropped() -> None:
    limiter, wide, narrow = Limiter(), rule(5, 1.0, "wide"), rule(1, 60.0, "narrow")
    admitted(limiter.admit([(wide, "a"), (narrow, "a")], 0.0))
    refused(limiter.admit([(wide, "a"), (narrow, "a")], 5.0))  # leaves a's window of `wide` empty
    admitted(limiter.admit([(wide, "b")], 5.0))
    assert live_keys(limiter, wide) == 1


# -- properties --------------------------------------------------------------------------------------------------------

RULES = [rule(1, 1.0, "one"), rule(2, 0.5, "two"), rule(5, 2.0, "five"), rule(3, 0.015625, "blink")]
KEYS = ["a", "b", "c", "d", "e"]
TICKS = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 200))
STEPS = st.lists(
    st.tuples(TICKS, st.lists(st.tuples(st.sampled_from(RULES), st.sampled_from(KEYS)), max_size=4, unique=True)),
    max_size=60,
)


class Log:
    """The plainest limiter: all that was admitted is written down, and counted anew each time."""

    def __init__(self) -> None:
        self.stamps: dict[Use, list[float]] = {}

    def inside(self, use: Use, now: float, window: float | None = None) -> list[float]:
        return [stamp for stamp in self.stamps.get(use, []) if stamp + (window or use[0].window) > now]

    def wait(self, use: Use, now: float) -> float | None:
        """None where `use` has room; else when it will have."""
        inside = self.inside(use, now)
        return inside[len(inside) - use[0].requests] + use[0].window - now if len(inside) >= use[0].requests else None

    def write(self, uses: Iterable[Use], now: float) -> None:
        for use in uses:
            self.stamps.setdefault(use, []).append(now)

    def holds(self) -> bool:
        return all(most_in_any_window(stamps, use[0].window) <= use[0].requests for use, stamps in self.stamps.items())


@given(STEPS)
@settings(max_examples=400, deadline=None)
def test_it_decides_as_a_full_log_of_all_requests_would(steps: list[tuple[int, list[Use]]]) -> None:
    limiter, log, now = Limiter(), Log(), 1000.0
    for ticks, uses in steps:
        now += ticks / 64
        waits = {use: wait for use in uses if (wait := log.wait(use, now)) is not None}
        for use in uses:
            seen = limiter.peek(*use, now)
            assert (None if seen is None else seen.retry_after) == waits.get(use)
        answer = limiter.admit(uses, now)
        if waits:
            assert refused(answer).retry_after == max(waits.values())
            continue
        log.write(uses, now)
        if uses:
            standing = admitted(answer)
            assert standing.remaining == min(of.requests - len(log.inside((of, key), now)) for of, key in uses)
        else:
            assert answer == Admitted(None)
    assert log.holds()


@given(STEPS, st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_with_more_keys_than_places_no_key_gets_more_than_its_limit(
    steps: list[tuple[int, list[Use]]], places: int
) -> None:
    with patch.object(keys_of_a_rule, "MAX_KEYS", places):
        limiter, log, now = Limiter(), Log(), 0.0
        for ticks, several in steps:
            uses = several[:1]  # each rule once, as the pipeline has it
            now += ticks / 64
            answer = limiter.admit(uses, now)
            if isinstance(answer, Admitted):
                log.write(uses, now)
            else:
                now += answer.retry_after
                assert isinstance(limiter.admit(uses, now), Admitted), "what was refused may pass after retry_after"
                log.write(uses, now)
            assert all(len(keys.windows) <= places for keys in limiter._keys.values())
        assert log.holds()


@given(st.lists(TICKS, max_size=150), st.integers(5, 40))
@settings(max_examples=300, deadline=None)
def test_shared_slots_never_admit_too_many_and_delay_by_no_more_than_a_slot(ticks: list[int], requests: int) -> None:
    with patch.object(counting, "SLOTS", 4):  # so each rule above is one of many requests a slot
        use = (rule(requests, 2.0), "web")
        limiter, log, now = Limiter(), Log(), 0.0
        for step in ticks:
            now += step / 64
            answer = limiter.admit([use], now)
            if isinstance(answer, Admitted):
                log.write([use], now)
            else:
                assert len(log.inside(use, now, 2.0 + 2.0 / 4)) >= requests
                assert answer.retry_after <= 2.0
            if log.stamps:
                assert slots(limiter, *use) <= 4 + 2
        assert log.holds()


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 6), st.sampled_from([0.3, 1.0, 2.7])), max_size=80),
    st.floats(0, 1e7),
)
@settings(max_examples=300, deadline=None)
def test_any_clock_and_any_reload_stay_sane(steps: list[tuple[float, int, float]], start: float) -> None:
    limiter, now = Limiter(), start
    for passed, requests, window in steps:
        now += passed
        of = rule(requests, window)
        answer = limiter.admit([(of, "web")], now)
        standing = answer.standing
        assert standing is not None
        assert 0 <= standing.remaining < requests
        assert 0 <= standing.reset <= window + 1e-6
        if isinstance(answer, Refused):
            assert 0 < answer.retry_after <= standing.reset <= window + 1e-6
            now += answer.retry_after + 1e-6
            assert limiter.peek(of, "web", now) is None


@given(st.integers(1, 200), st.sampled_from([0.5, 1.0, 60.0]), st.integers(0, 64))
@settings(max_examples=100, deadline=None)
def test_the_whole_limit_can_be_used_in_every_window(requests: int, window: float, spread: int) -> None:
    limiter, of = Limiter(), rule(requests, window)
    for start in (0.0, window, 2 * window):
        for request in range(requests):
            offset = window * (request * spread // 64) / 256 if request * spread // 64 < 256 else window * 255 / 256
            admitted(limiter.admit([(of, "web")], start + offset))


@given(
    admitted_at=st.lists(st.integers(0, 30), max_size=40).map(sorted),
    number=st.sampled_from([5, 2000]),
    taken_back=st.data(),
)
def test_a_request_that_is_taken_back_leaves_the_window_as_if_it_had_never_come(
    admitted_at: list[int], number: int, taken_back: st.DataObject
) -> None:
    limiter, one, now = Limiter(), rule(number, 10.0), 0.0
    standing: list[float] = []
    for moment in admitted_at:
        now = float(moment)
        if isinstance(limiter.admit([(one, "web")], now), Admitted):
            standing.append(now)
        place = taken_back.draw(st.integers(-1, len(standing) - 1))
        if place >= 0:
            then = standing.pop(place)
            limiter.take_back([(one, "web")], then, now)
    inside = sum(1 for then in standing if then + 10.0 > now)
    assert limiter.remaining(one, 10, now) == number - inside

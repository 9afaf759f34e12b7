"""The breaker: its table, and any interleaving of permits against a model that is told differently."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmroute_sidecar.policy.breaker import PROBE_WAIT, Breaker, BreakerView, Outcome, Permit, Shut, State

RESET = 30.0
BROKEN = (Outcome.FAILURE, Outcome.MISCONFIGURED)


def permit(answer: Permit | Shut) -> Permit:
    assert isinstance(answer, Permit), answer
    return answer


def shut(answer: Permit | Shut) -> Shut:
    assert isinstance(answer, Shut), answer
    return answer


def opened(max_failures: int = 3, at: float = 0.0) -> Breaker:
    breaker = Breaker(max_failures, RESET)
    for _ in range(max_failures):
        breaker.record(permit(breaker.admit(at)), Outcome.FAILURE, at)
    assert breaker.view(at).state is State.OPEN
    return breaker


def state_after(breaker: Breaker, outcome: Outcome, now: float) -> tuple[State, int]:
    breaker.record(permit(breaker.admit(now)), outcome, now)
    view = breaker.view(now)
    return view.state, view.consecutive_failures


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "failures"),
    [
        (Outcome.SUCCESS, 0),
        (Outcome.FAILURE, 2),
        (Outcome.MISCONFIGURED, 2),
        (Outcome.THROTTLED, 1),
        (Outcome.NEUTRAL, 1),
    ],
)
def test_a_closed_breaker_that_has_seen_one_failure(outcome: Outcome, failures: int) -> None:
    breaker = Breaker(3, RESET)
    breaker.record(permit(breaker.admit(0.0)), Outcome.FAILURE, 0.0)
    assert state_after(breaker, outcome, 1.0) == (State.CLOSED, failures)


@pytest.mark.parametrize(
    ("outcome", "state", "failures"),
    [
        (Outcome.SUCCESS, State.CLOSED, 0),
        (Outcome.FAILURE, State.OPEN, 4),
        (Outcome.MISCONFIGURED, State.OPEN, 4),
        (Outcome.THROTTLED, State.CLOSED, 0),
        (Outcome.NEUTRAL, State.HALF_OPEN, 3),
    ],
)
def test_a_half_open_breaker_goes_by_its_probe(outcome: Outcome, state: State, failures: int) -> None:
    assert state_after(opened(), outcome, RESET) == (state, failures)


@pytest.mark.parametrize("kind", BROKEN)
def test_the_last_consecutive_failure_opens_it(kind: Outcome) -> None:
    breaker = Breaker(2, RESET)
    assert state_after(breaker, kind, 0.0) == (State.CLOSED, 1)
    assert state_after(breaker, Outcome.SUCCESS, 0.0) == (State.CLOSED, 0)
    assert state_after(breaker, kind, 0.0) == (State.CLOSED, 1)
    assert state_after(breaker, Outcome.NEUTRAL, 0.0) == (State.CLOSED, 1)
    assert state_after(breaker, kind, 0.0) == (State.OPEN, 2)


def test_an_open_breaker_tells_how_long() -> None:
    breaker = opened(at=100.0)
    assert breaker.admit(110.0) == Shut(20.0, "open")
    assert breaker.view(110.0) == BreakerView(State.OPEN, 3, 20.0, misconfigured=False)


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    breaker = opened()
    assert breaker.view(RESET) == BreakerView(State.HALF_OPEN, 3, 0.0, misconfigured=False)
    assert permit(breaker.admit(RESET)).probe
    assert breaker.admit(RESET) == breaker.admit(RESET + 500) == Shut(PROBE_WAIT, "probing")
    assert breaker.view(RESET).retry_after == PROBE_WAIT


def test_the_next_probe_may_go_once_a_neutral_one_is_back() -> None:
    breaker = opened()
    breaker.record(permit(breaker.admit(RESET)), Outcome.NEUTRAL, RESET)
    assert permit(breaker.admit(RESET)).probe
    shut(breaker.admit(RESET))


def test_a_failed_probe_opens_it_for_another_whole_reset() -> None:
    breaker = opened()
    breaker.record(permit(breaker.admit(40.0)), Outcome.FAILURE, 45.0)
    assert breaker.admit(45.0) == Shut(RESET, "open")


def test_one_failed_probe_is_enough_even_below_a_maximum_that_a_reload_raised() -> None:
    breaker = opened(max_failures=3)
    breaker.reconfigure(100, RESET)
    assert state_after(breaker, Outcome.FAILURE, RESET) == (State.OPEN, 4)


# -- late and double results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.MISCONFIGURED, Outcome.NEUTRAL])
@pytest.mark.parametrize("now", [1.0, RESET, RESET + 1])
def test_a_result_of_before_it_opened_changes_nothing(late: Outcome, now: float) -> None:
    breaker = Breaker(1, RESET)
    slow, quick = permit(breaker.admit(0.0)), permit(breaker.admit(0.0))
    breaker.record(quick, Outcome.FAILURE, 0.0)
    if now > RESET:
        assert permit(breaker.admit(now)).probe
    before = breaker.view(now)
    breaker.record(slow, late, now)
    assert breaker.view(now) == before


def test_a_late_failure_does_not_open_it_again_once_it_has_closed() -> None:
    breaker = Breaker(1, RESET)
    slow, quick = permit(breaker.admit(0.0)), permit(breaker.admit(0.0))
    breaker.record(quick, Outcome.FAILURE, 0.0)
    breaker.record(permit(breaker.admit(RESET)), Outcome.SUCCESS, RESET)
    breaker.record(slow, Outcome.FAILURE, RESET + 1)
    assert breaker.view(RESET + 1) == BreakerView(State.CLOSED, 0, 0.0, misconfigured=False)


@pytest.mark.parametrize("first", list(Outcome))
@pytest.mark.parametrize("second", list(Outcome))
def test_a_probe_that_is_recorded_twice_counts_once(first: Outcome, second: Outcome) -> None:
    breaker = opened()
    probe = permit(breaker.admit(RESET))
    breaker.record(probe, first, RESET)
    answer = breaker.admit(RESET)  # perhaps the next probe, whose slot must not be given away
    before = breaker.view(RESET)
    breaker.record(probe, second, RESET)
    assert breaker.view(RESET) == before
    if isinstance(answer, Permit) and answer.probe:
        assert shut(breaker.admit(RESET)).reason == "probing"


# -- rests -------------------------------------------------------------------------------------------------------------


def test_a_throttled_upstream_rests_and_is_not_broken() -> None:
    breaker = Breaker(1, RESET)
    breaker.record(permit(breaker.admit(0.0)), Outcome.THROTTLED, 0.0, rest_until=7.0)
    assert breaker.admit(2.0) == Shut(5.0, "resting")
    assert breaker.view(2.0) == BreakerView(State.CLOSED, 0, 5.0, misconfigured=False)
    assert not permit(breaker.admit(7.0)).probe


def test_a_rest_is_made_longer_but_never_shorter() -> None:
    breaker = Breaker(1, RESET)
    permits = [permit(breaker.admit(0.0)) for _ in range(3)]
    for each, until in zip(permits, (5.0, 9.0, 2.0), strict=True):
        breaker.record(each, Outcome.THROTTLED, 0.0, rest_until=until)
    assert breaker.admit(0.0) == Shut(9.0, "resting")


def test_a_throttled_probe_closes_it_and_it_rests() -> None:
    breaker = opened()
    breaker.record(permit(breaker.admit(RESET)), Outcome.THROTTLED, RESET, rest_until=RESET + 5)
    assert breaker.view(RESET) == BreakerView(State.CLOSED, 0, 5.0, misconfigured=False)
    assert breaker.admit(RESET) == Shut(5.0, "resting")


def test_a_late_throttling_is_heeded_as_a_rest_only() -> None:
    breaker = Breaker(1, RESET)
    slow, quick = permit(breaker.admit(0.0)), permit(breaker.admit(0.0))
    breaker.record(quick, Outcome.FAILURE, 0.0)
    breaker.record(slow, Outcome.THROTTLED, 1.0, rest_until=RESET + 10)
    assert breaker.admit(1.0) == Shut(RESET + 9, "resting")  # the longer of the two waits
    assert breaker.admit(RESET) == Shut(10.0, "resting")
    assert permit(breaker.admit(RESET + 10)).probe


def test_an_open_breaker_with_a_short_rest_tells_the_longer_wait() -> None:
    breaker = Breaker(1, RESET)
    slow, quick = permit(breaker.admit(0.0)), permit(breaker.admit(0.0))
    breaker.record(slow, Outcome.THROTTLED, 0.0, rest_until=2.0)
    breaker.record(quick, Outcome.FAILURE, 0.0)
    assert breaker.admit(0.0) == Shut(RESET, "open")


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.THROTTLED])
def test_only_throttling_makes_it_rest(outcome: Outcome) -> None:
    breaker = Breaker(9, RESET)
    breaker.record(permit(breaker.admit(0.0)), outcome, 0.0, rest_until=100.0)
    permit(breaker.admit(0.0))


# -- the view, reloads, broken answers ---------------------------------------------------------------------------------


def test_a_refused_credential_is_told_until_the_upstream_serves() -> None:
    breaker = Breaker(9, RESET)
    told = []
    outcomes = [
        Outcome.FAILURE, Outcome.MISCONFIGURED, Outcome.FAILURE, Outcome.NEUTRAL, Outcome.THROTTLED, Outcome.SUCCESS
    ]  # fmt: skip
    for outcome in outcomes:
        breaker.record(permit(breaker.admit(0.0)), outcome, 0.0)
        told.append(breaker.view(0.0).misconfigured)
    assert told == [False, True, True, True, True, False]


def test_a_reload_keeps_the_state_under_new_numbers() -> None:
    breaker = opened(max_failures=3)
    breaker.reconfigure(5, 10.0)
    assert breaker.admit(4.0) == Shut(6.0, "open")
    assert permit(breaker.admit(10.0)).probe


def test_a_lower_maximum_is_met_at_the_next_failure() -> None:
    breaker = Breaker(5, RESET)
    for _ in range(3):
        breaker.record(permit(breaker.admit(0.0)), Outcome.FAILURE, 0.0)
    breaker.reconfigure(2, RESET)
    assert breaker.view(0.0).state is State.CLOSED
    assert state_after(breaker, Outcome.FAILURE, 0.0) == (State.OPEN, 4)


def test_an_answer_that_breaks_off_counts_as_one_failure() -> None:
    breaker = Breaker(2, RESET)
    given = permit(breaker.admit(0.0))
    breaker.record(given, Outcome.SUCCESS, 0.0)
    breaker.broke_off(1.0, given)
    assert breaker.view(1.0).consecutive_failures == 1
    breaker.broke_off(1.0)
    assert breaker.view(1.0).state is State.OPEN
    breaker.broke_off(2.0)
    assert breaker.admit(2.0) == Shut(29.0, "open")


def test_an_answer_of_before_it_opened_that_breaks_off_is_ignored() -> None:
    breaker = Breaker(1, RESET)
    early, quick = permit(breaker.admit(0.0)), permit(breaker.admit(0.0))
    breaker.record(early, Outcome.SUCCESS, 0.0)
    breaker.record(quick, Outcome.FAILURE, 0.0)
    probe = permit(breaker.admit(RESET))
    breaker.record(probe, Outcome.SUCCESS, RESET)
    breaker.broke_off(RESET, early)
    assert breaker.view(RESET).state is State.CLOSED
    breaker.broke_off(RESET, probe)  # the probe's own answer is news
    assert breaker.view(RESET).state is State.OPEN


# -- any interleaving --------------------------------------------------------------------------------------------------


class AnyInterleaving(RuleBasedStateMachine):
    """Concurrent attempts in any order. The model keeps no epochs: it keeps the set of attempts that still count."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.under_way: list[tuple[Permit, int]] = []
        self.ended_probes: list[Permit] = []
        self.made = 0

    @initialize(max_failures=st.integers(1, 4), reset=st.integers(1, 20))
    def start(self, max_failures: int, reset: int) -> None:
        self.max_failures, self.reset = max_failures, float(reset)
        self.breaker = Breaker(max_failures, self.reset)
        self.failures = 0
        self.open_since: float | None = None
        self.probe: int | None = None
        self.counting: set[int] = set()
        self.rest_until = 0.0
        self.misconfigured = False

    def turn(self, open_since: float | None) -> None:
        self.open_since = open_since
        self.probe = None
        self.counting.clear()

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 4))
    def attempts_ask(self, count: int) -> None:
        for _ in range(count):
            would = self.breaker.admits(self.now)
            answer = self.breaker.admit(self.now)
            assert would == isinstance(answer, Permit)
            opens_at = 0.0 if self.open_since is None else self.open_since + self.reset
            if self.now < max(self.rest_until, opens_at):
                assert shut(answer).retry_after == max(self.rest_until, opens_at) - self.now
                assert shut(answer).reason == ("resting" if self.rest_until >= opens_at else "open")
            elif self.probe is not None:
                assert shut(answer).reason == "probing"
                assert shut(answer).retry_after > 0
            else:
                assert permit(answer).probe == (self.open_since is not None)
                self.made += 1
                self.under_way.append((permit(answer), self.made))
                self.counting.add(self.made)
                if self.open_since is not None:
                    self.probe = self.made

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), rest=st.none() | st.integers(0, 15))
    def one_ends(self, data: st.DataObject, outcome: Outcome, rest: int | None) -> None:
        given, number = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        until = None if rest is None else self.now + rest
        self.breaker.record(given, outcome, self.now, until)
        if given.probe:
            self.ended_probes.append(given)
        if outcome is Outcome.THROTTLED and until is not None:
            self.rest_until = max(self.rest_until, until)
        if number not in self.counting:
            return
        self.counting.discard(number)
        was_probe = number == self.probe
        if outcome is Outcome.MISCONFIGURED:
            self.misconfigured = True
        if outcome is Outcome.SUCCESS:
            self.misconfigured = False
        if outcome in BROKEN:
            self.failures += 1
            if was_probe or self.failures >= self.max_failures:
                self.turn(open_since=self.now)
        elif outcome is Outcome.SUCCESS or (outcome is Outcome.THROTTLED and was_probe):
            self.failures = 0
            if was_probe:
                self.turn(open_since=None)
        elif was_probe:
            self.probe = None

    @precondition(lambda self: self.ended_probes)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def a_probe_is_recorded_again(self, data: st.DataObject, outcome: Outcome) -> None:
        self.breaker.record(data.draw(st.sampled_from(self.ended_probes)), outcome, self.now)

    @rule(max_failures=st.integers(1, 4), reset=st.integers(1, 20))
    def numbers_change(self, max_failures: int, reset: int) -> None:
        half_open = self.breaker.view(self.now).state is State.HALF_OPEN
        if half_open and reset > self.reset:
            return  # whether a probe had already been let through is no business of the model's
        self.breaker.reconfigure(max_failures, float(reset))
        self.max_failures, self.reset = max_failures, float(reset)

    @invariant()
    def the_view_tells_what_is(self) -> None:
        view = self.breaker.view(self.now)
        if self.open_since is None:
            expected = State.CLOSED
        else:
            expected = State.OPEN if self.now < self.open_since + self.reset else State.HALF_OPEN
        assert view.state is expected
        assert view.consecutive_failures == self.failures
        assert view.misconfigured == self.misconfigured
        opens_at = 0.0 if self.open_since is None else self.open_since + self.reset
        waits = self.now < max(self.rest_until, opens_at) or self.probe is not None
        assert (view.retry_after > 0) == waits

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        assert sum(given.probe and number in self.counting for given, number in self.under_way) <= 1


AnyInterleaving.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestAnyInterleaving = AnyInterleaving.TestCase


# -- opened from outside -----------------------------------------------------------------------------------------------


def test_a_breaker_tells_of_its_own_opening_and_of_no_other() -> None:
    breaker, told = Breaker(1, RESET), list[float]()
    breaker.on_open = told.append
    breaker.open_for(10.0, 0.0)
    assert told == []
    probe = permit(breaker.admit(10.0))
    breaker.record(probe, Outcome.FAILURE, 10.0)
    assert told == [RESET]


def test_opened_from_outside_it_stays_so_for_the_time_that_is_left() -> None:
    breaker = Breaker(3, RESET)
    breaker.open_for(10.0, 100.0)
    assert shut(breaker.admit(105.0)) == Shut(5.0, "open")
    assert permit(breaker.admit(110.0)).probe


def test_an_open_breaker_does_not_heed_others_and_a_longer_time_is_its_own() -> None:
    breaker = opened(at=0.0)
    breaker.open_for(10_000.0, 20.0)
    assert permit(breaker.admit(RESET)).probe
    closed = Breaker(3, RESET)
    closed.open_for(10_000.0, 0.0)
    assert permit(closed.admit(RESET)).probe

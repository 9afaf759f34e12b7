"""The script of shared limits, run by a real server: what it admits, what it gives back, what it forgets."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.limits.demand import Demand
from llmroute_sidecar.policy.limits.rules import (
    PICODOLLARS,
    BudgetLimit,
    ConcurrencyLimit,
    Limit,
    Refused,
    RequestLimit,
    TokenLimit,
)
from llmroute_sidecar.policy.limits.shared import (
    MADE_UP_KEYS,
    NANO,
    Ask,
    SharedLimits,
    SlotsMissing,
    Taken,
    made_up_key,
    prefix_of,
    script,
)
from tests.state_server import StateServer, serving_state
from tests.waiting import wait_until

pytestmark = pytest.mark.server

LIMITS = SharedLimits(prefix_of("n", "g"))
NAMES = count()


@pytest.fixture(scope="module", params=["valkey", "redis"])
def state(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateServer]:
    with serving_state(tmp_path_factory.mktemp("state"), "--appendonly", "no", kind=request.param) as state:
        yield state


@pytest.fixture(autouse=True)
def _empty(state: StateServer) -> None:
    state.ask("FLUSHALL")


def requests(number: int, window: float = 3600.0) -> RequestLimit:
    return RequestLimit("r/requests", "requests", "Client", number, window)


def tokens(number: int, window: float = 3600.0) -> TokenLimit:
    return TokenLimit("r/tokens", "tokens", "Client", number, window)


def slots(number: int, queue: int = 0) -> ConcurrencyLimit:
    return ConcurrencyLimit("r/slots", "slots", "Client", number, queue, 1.0)


def budget(dollars: float) -> BudgetLimit:
    return BudgetLimit("r/budget", "budget", "Client", round(dollars * PICODOLLARS), "Month")


@dataclass
class Call:
    """An admitted call."""

    state: StateServer
    name: str
    taken: Sequence[Taken]

    def settle(self, used: int = 0, cost: int = 0) -> None:
        ask = LIMITS.settle(self.taken, used, cost, self.name, time.time())
        if ask is not None:
            assert run(self.state, ask) == 1

    def undo(self) -> None:
        assert run(self.state, LIMITS.undo(self.taken, self.name, time.time())) == 1


def run(state: StateServer, ask: Ask) -> object:
    answer = state.ask("EVAL", script().decode(), *ask.words())  # type: ignore[arg-type]
    assert not isinstance(answer, hiredis.ReplyError), answer
    return answer


def admit(
    state: StateServer, *rules: Limit, demand: int = 1, cost: int = 0, key: str = "k"
) -> Call | Refused | SlotsMissing:
    uses = [(rule, key) for rule in rules]
    name = f"pod-{next(NAMES)}"
    wanted = Demand(demand, 0)
    answer = run(state, LIMITS.admit(uses, wanted, cost, name, time.time()))
    assert isinstance(answer, list)
    outcome = LIMITS.answered(uses, wanted, cost, answer)
    return Call(state, name, outcome) if isinstance(outcome, list) else outcome


def admitted(outcome: Call | Refused | SlotsMissing) -> Call:
    assert isinstance(outcome, Call), outcome
    return outcome


def test_a_window_admits_its_number_and_names_the_wait(state: StateServer) -> None:
    for left in (2, 1, 0):
        assert admitted(admit(state, requests(3))).taken[0].remaining == left
    refused = admit(state, requests(3))
    assert isinstance(refused, Refused)
    assert (refused.standing.name, refused.standing.limit, refused.standing.remaining) == ("requests", 3, 0)
    assert 3590 < refused.retry_after <= 3600 * (1 + 1 / 256)
    admitted(admit(state, requests(3), key="other"))


def test_a_window_slides(state: StateServer) -> None:
    rule = requests(2, window=1.0)
    admitted(admit(state, rule))
    admitted(admit(state, rule))
    wait_until(lambda: isinstance(admit(state, rule), Call), "the window to have room again")


def test_all_or_none_are_counted_whichever_refuses(state: StateServer) -> None:
    every: list[Limit] = [requests(10), tokens(100), slots(10), budget(10)]
    full: dict[int, Limit] = {0: requests(1), 1: tokens(1), 2: slots(1), 3: budget(0.001)}
    for place, rule in full.items():
        state.ask("FLUSHALL")
        holder = admitted(admit(state, *every, cost=PICODOLLARS // 1000))
        refusing: list[Limit] = [rule if index == place else other for index, other in enumerate(every)]
        before = {key: state.ask("DUMP", key) for key in state.limits() if ":budget:" not in key}
        refused = admit(state, *refusing, cost=PICODOLLARS // 1000)
        assert isinstance(refused, Refused)
        assert refused.standing.name == rule.name
        assert {key: state.ask("DUMP", key) for key in before} == before
        holder.undo()
        assert [one.remaining for one in admitted(admit(state, *every)).taken[:3]] == [9, 99, 9]


def test_only_missing_slots_with_a_line_are_told_apart(state: StateServer) -> None:
    admitted(admit(state, slots(1, queue=1)))
    missing = admit(state, requests(5), slots(1, queue=1))
    assert isinstance(missing, SlotsMissing)
    assert missing.rule.name == "slots"
    assert isinstance(admit(state, requests(0), slots(1, queue=1)), Refused)


def test_what_was_not_used_comes_back_and_what_was_used_beyond_counts(state: StateServer) -> None:
    rule = tokens(100)
    call = admitted(admit(state, rule, demand=90))
    assert isinstance(admit(state, rule, demand=11), Refused)
    call.settle(used=20)
    second = admitted(admit(state, rule, demand=80))
    assert second.taken[0].remaining == 0
    second.settle(used=200)
    refused = admit(state, rule, demand=1)
    assert isinstance(refused, Refused)
    assert refused.standing.remaining == 0


def test_settling_what_the_server_has_lost_makes_nothing_negative(state: StateServer) -> None:
    call = admitted(admit(state, requests(5), tokens(100), slots(1), budget(1), demand=50, cost=PICODOLLARS // 2))
    state.ask("FLUSHALL")
    call.undo()
    again = admitted(admit(state, requests(5), tokens(100), slots(1), budget(1)))
    assert [one.remaining for one in again.taken] == [4, 99, 0, 10**9]


def test_money_is_reserved_then_spent(state: StateServer) -> None:
    rule, third = budget(1), PICODOLLARS * 4 // 10
    first, second = (admitted(admit(state, rule, cost=third)) for _ in range(2))
    waiting = admit(state, rule, cost=third)
    assert isinstance(waiting, Refused)
    assert waiting.retry_after == 1.0  # only calls in flight leave no room
    first.settle(cost=PICODOLLARS)
    spent = admit(state, rule, cost=1)
    assert isinstance(spent, Refused)
    assert spent.retry_after > 1.0
    second.settle(cost=0)
    assert state.ask("HGET", LIMITS.prefix + "budget:r/budget:k", "reserved") == "0"


def test_leases_that_nobody_renews_end_and_their_money_is_charged(state: StateServer) -> None:
    died = admitted(admit(state, slots(1), budget(1), cost=PICODOLLARS // 2))
    slot_key, held = LIMITS.prefix + "slots:r/slots:k", LIMITS.prefix + "reserved:r/budget:k"
    state.ask("ZADD", slot_key, 1, died.name)  # as if its time had come
    state.ask("ZADD", held, 1, f"{died.name}:{PICODOLLARS // 2 // NANO}")
    live = admitted(admit(state, slots(1), budget(1)))
    assert live.taken[1].remaining == 10**9 // 2
    died.settle(cost=PICODOLLARS // 4)  # it lived after all: what it cost takes the place of what was thought
    assert state.ask("HGET", LIMITS.prefix + "budget:r/budget:k", "spent") == str(10**9 // 4)


def test_a_call_that_seemed_free_is_charged_what_it_cost(state: StateServer) -> None:
    first, second, died = (admitted(admit(state, budget(1), slots(9), cost=0)) for _ in range(3))
    first.settle(cost=PICODOLLARS // 4)
    second.undo()
    assert admitted(admit(state, budget(1), slots(9))).taken[1].remaining == 9 - 2
    state.ask("ZADD", LIMITS.prefix + "reserved:r/budget:k", 1, f"{died.name}:0")  # as if its time had come
    assert admitted(admit(state, budget(1), slots(9))).taken[0].remaining == 10**9 * 3 // 4


def test_renewing_prolongs_leases(state: StateServer) -> None:
    call = admitted(admit(state, slots(1), budget(1), cost=PICODOLLARS // 2))
    ask = LIMITS.renew([(call.name, call.taken)])
    assert ask is not None
    key = LIMITS.prefix + "slots:r/slots:k"
    state.ask("ZADD", key, 1, call.name)
    assert run(state, ask) == 1
    assert float(state.ask("ZSCORE", key, call.name)) > 1


def test_every_key_has_an_end_and_a_bounded_size(state: StateServer) -> None:
    for _ in range(50):
        admitted(admit(state, requests(100, 1.0), tokens(10_000, 1.0), slots(100), budget(100)))
    for key in state.limits():
        assert state.ask("PTTL", key) > 0, key
        assert state.ask("MEMORY", "USAGE", key, "SAMPLES", 0) < 8000, key
        assert key.startswith("llmroute:{n/g}:")


def test_names_that_clients_make_up_have_bounded_keys() -> None:
    assert len({made_up_key(f"model-{number}") for number in range(40_000)}) <= MADE_UP_KEYS
    assert made_up_key("a") == made_up_key("a") != made_up_key("b")


@dataclass
class Model:
    """What must hold, of windows too long to slide."""

    counted: int = 0
    used: int = 0
    held: int = 0
    calls: list[Call] = field(default_factory=list)


STEP = st.one_of(
    st.tuples(st.just("admit"), st.integers(1, 60)),
    st.tuples(st.just("settle"), st.integers(0, 90)),
    st.tuples(st.just("undo"), st.just(0)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=30))
def test_whatever_happens_the_sums_are_those_of_a_plain_count(state: StateServer, steps: list[tuple[str, int]]) -> None:
    state.ask("FLUSHALL")
    model = Model()
    rules = (requests(12), tokens(200), slots(4))
    for step, amount in steps:
        if step == "admit":
            room = model.counted < 12 and model.used + amount <= 200 and model.held < 4
            outcome = admit(state, *rules, demand=amount)
            assert isinstance(outcome, Call) == room
            if isinstance(outcome, Call):
                model.counted, model.used, model.held = model.counted + 1, model.used + amount, model.held + 1
                assert [one.remaining for one in outcome.taken] == [
                    12 - model.counted, 200 - model.used, 4 - model.held,
                ]  # fmt: skip
                model.calls.append(outcome)
        elif model.calls:
            call = model.calls.pop()
            model.held -= 1
            if step == "settle":
                call.settle(used=amount)
                model.used += amount - call.taken[1].amount
            else:
                call.undo()
                model.used -= call.taken[1].amount
                model.counted -= 1

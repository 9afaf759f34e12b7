"""All kinds of limits at once: counted in all of them, or in none."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.limits.demand import (
    FIRST_GUESS,
    LEAST_OUTPUT,
    MOST_OUTPUT,
    Demand,
    LearntOutputs,
    prompt_tokens,
)
from llmroute_sidecar.policy.limits.ledger import InLine, Ledger, Moment, PodLease, Use
from llmroute_sidecar.policy.limits.rules import (
    PICODOLLARS,
    BudgetLimit,
    ConcurrencyLimit,
    Kind,
    Refused,
    RequestLimit,
    TokenLimit,
)
from llmroute_sidecar.policy.limits.slots import Slot

NOON = 43200.0


def requests(number: int) -> RequestLimit:
    return RequestLimit("r/requests", "requests", "Client", number, 60.0)


def tokens(number: int) -> TokenLimit:
    return TokenLimit("r/tokens", "tokens", "Model", number, 60.0)


def slots(number: int, queue: int = 0, name: str = "slots") -> ConcurrencyLimit:
    return ConcurrencyLimit(f"r/{name}", name, "Gateway", number, queue, 5.0)


def budget(dollars: int) -> BudgetLimit:
    return BudgetLimit("r/spend", "spend", "Client", dollars * PICODOLLARS, "Day")


def uses(*limits: Any, key: str = "k") -> list[Use]:
    return [(limit, key) for limit in limits]


def admit(ledger: Ledger, *limits: Any, now: float = 0.0, total: int = 10, cost: int = PICODOLLARS) -> Any:
    return ledger.admit(uses(*limits), Demand(total, 0), cost, Moment(now, NOON + now))


def left(ledger: Ledger, *limits: Any, now: float = 0.0) -> list[int]:
    return [ledger.remaining(limit, Moment(now, NOON + now)) for limit in limits]


def test_a_call_is_counted_in_every_limit_and_settled_once() -> None:
    ledger = Ledger()
    limits = (requests(5), tokens(100), slots(2), budget(10))
    lease = admit(ledger, *limits)
    assert left(ledger, *limits) == [4, 90, 1, 9 * PICODOLLARS]
    assert lease.requests.remaining == 4
    assert lease.tokens.remaining == 90
    for _ in range(3):
        lease.settle(25, 2 * PICODOLLARS, Moment(1.0, NOON))
        lease.release()
    assert left(ledger, *limits) == [4, 75, 2, 8 * PICODOLLARS]


def test_nothing_is_counted_where_any_kind_refuses() -> None:
    refusing: dict[Kind, Any] = {
        "requests": requests(1),
        "tokens": tokens(15),
        "concurrency": slots(1),
        "budget": budget(1),
    }
    for kind, full in refusing.items():
        ledger = Ledger()
        admit(ledger, full)
        others = [limit for limit in (requests(9), tokens(900), slots(9), budget(9)) if limit.id != full.id]
        before = left(ledger, *others)
        for order in ([full, *others], [*others, full]):
            refused = admit(ledger, *order)
            assert isinstance(refused, Refused)
            assert refused.standing.kind == kind
            assert refused.standing.name == full.name
            assert ledger.refusal(uses(*order), Demand(10, 0), PICODOLLARS, Moment(0.0, NOON)) == refused
        assert left(ledger, *others) == before


def test_the_one_with_the_longest_wait_is_named() -> None:
    ledger = Ledger()
    limits = (slots(1), requests(1), budget(1), tokens(10))
    admit(ledger, *limits)
    lease = admit(ledger, budget(1), total=1, cost=0)
    assert isinstance(lease, Refused)  # used up
    refused = admit(ledger, *limits, now=30.0)
    assert refused.standing.kind == "requests"  # 30 s; as are tokens, which come later; the budget waits for a call
    assert refused.retry_after == 30.0


def test_a_full_limit_with_a_line_lets_a_call_wait_and_counts_nothing_meanwhile() -> None:
    ledger = Ledger()
    limits = (requests(5), slots(1, queue=1), tokens(100))
    first = admit(ledger, *limits)
    waiting = admit(ledger, *limits)
    assert isinstance(waiting, InLine)
    assert left(ledger, *limits) == [4, 0, 90]
    assert isinstance(admit(ledger, *limits), Refused)  # the line is full
    first.release()
    assert waiting.ticket.granted
    second = ledger.admit(uses(*limits), Demand(10, 0), 0, Moment(1.0, NOON), [waiting.ticket.slot()])
    assert isinstance(second, PodLease)
    assert left(ledger, *limits) == [3, 0, 80]
    second.release()
    assert left(ledger, *limits) == [3, 1, 80]


def test_who_comes_out_of_line_too_late_for_another_limit_gives_the_slot_on() -> None:
    ledger = Ledger()
    limits = (slots(1, queue=3), requests(2))
    first = admit(ledger, *limits)
    waiting = [admit(ledger, *limits).ticket for _ in range(3)]
    first.release()
    second = ledger.admit(uses(*limits), Demand(1, 0), 0, Moment(0.0, NOON), [waiting[0].slot()])
    assert isinstance(second, PodLease)
    second.release()
    refused = ledger.admit(uses(*limits), Demand(1, 0), 0, Moment(0.0, NOON), [waiting[1].slot()])
    assert isinstance(refused, Refused)
    assert waiting[2].granted


def test_a_call_waits_in_one_line_after_the_other_and_keeps_what_it_has() -> None:
    ledger = Ledger()
    limits = (slots(1, queue=2, name="client"), slots(1, queue=2, name="all"))
    first, other = admit(ledger, limits[0]), admit(ledger, limits[1])
    ticket = admit(ledger, *limits).ticket
    assert ticket.rule.name == "client"
    first.release()
    held = [ticket.slot()]
    later = ledger.admit(uses(*limits), Demand(1, 0), 0, Moment(0.0, NOON), held)
    assert isinstance(later, InLine)
    assert later.ticket.rule.name == "all"
    other.release()
    lease = ledger.admit(uses(*limits), Demand(1, 0), 0, Moment(0.0, NOON), [*held, later.ticket.slot()])
    assert left(ledger, *limits) == [0, 0]
    assert isinstance(lease, PodLease)
    lease.release()
    assert left(ledger, *limits) == [1, 1]


LIMITS = (requests(8), tokens(60), slots(2, queue=2), budget(3))
STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(["admit", "admit", "end", "cancel"]),
        st.lists(st.sampled_from(LIMITS), min_size=1, unique=True),
        st.integers(1, 40),
        st.integers(0, 2 * PICODOLLARS),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_slots_never_leak_and_refusals_count_nothing(
    steps: list[tuple[int, str, list[Any], int, int, int]],
) -> None:
    """Calls come, wait, leave while they wait, end; at the end all slots are free and nothing is reserved."""
    ledger, now = Ledger(), 0.0
    ledger.keep_only(LIMITS)
    leases: list[PodLease] = []
    waiting: list[tuple[InLine, list[Any], int, int]] = []

    def come_forward() -> None:
        for entry in [entry for entry in waiting if entry[0].ticket.granted]:
            waiting.remove(entry)
            line, limits, total, cost = entry
            take(limits, total, cost, [line.ticket.slot()])

    def take(limits: list[Any], total: int, cost: int, held: list[Slot]) -> None:
        before = left(ledger, *LIMITS, now=now)
        outcome = ledger.admit(uses(*limits), Demand(total, 0), cost, Moment(now, NOON + now), held)
        if isinstance(outcome, PodLease):
            leases.append(outcome)
            return
        after = left(ledger, *LIMITS, now=now)
        assert [after[place] for place in (0, 1, 3)] == [before[place] for place in (0, 1, 3)]
        if isinstance(outcome, InLine):
            waiting.append((outcome, limits, total, cost))
        else:
            assert outcome.retry_after > 0
            come_forward()

    for ticks, step, limits, total, cost, which in steps:
        now += ticks / 64
        if step == "admit":
            take(limits, total, cost, [])
        elif step == "end" and leases:
            lease = leases.pop(which % len(leases))
            lease.settle(total, cost, Moment(now, NOON + now))
            lease.release()
            come_forward()
        elif step == "cancel" and waiting:
            waiting.pop(which % len(waiting))[0].ticket.leave()
        held = sum(len(lease.held) for lease in leases)
        assert held <= 2
        assert left(ledger, LIMITS[2]) == [2 - held]
        assert not waiting or held == 2
    for line, *_ in waiting:
        line.ticket.leave()
    for lease in leases:
        lease.settle(0, 0, Moment(now, NOON + now))
        lease.release()
    assert left(ledger, LIMITS[2]) == [2]
    account = ledger.budgets._accounts.get(LIMITS[3].id)
    assert account is None or all(each.reserved == 0 for each in account.by_key.values())


# -- demand ------------------------------------------------------------------------------------------------------------


def test_a_prompt_is_counted_by_its_bytes_and_an_image_as_an_image() -> None:
    assert prompt_tokens(b"{}") == 1
    assert prompt_tokens(b"x" * 4000) == 1000
    image = b'{"url": "data:image/png;base64,' + b"A" * 4_000_000 + b'"}'
    assert 1000 <= prompt_tokens(image) < 1100
    anthropic = b'{"type":"base64","data":"' + b"A" * 400_000 + b'"},' + b'{"data": "' + b"A" * 400_000 + b'"}'
    assert 2000 <= prompt_tokens(anthropic) < 2100
    assert prompt_tokens(b'{"data":"' + b"A" * 400_000) > 90_000  # without an end, whatever that is


def test_outputs_are_learnt_and_stay_within_bounds() -> None:
    learnt = LearntOutputs()
    assert learnt.expect("m") == FIRST_GUESS
    for _ in range(50):
        learnt.learn("m", 100)
    assert 100 <= learnt.expect("m") < 120
    for _ in range(50):
        learnt.learn("m", 10**9)
    assert learnt.expect("m") == MOST_OUTPUT
    for _ in range(200):
        learnt.learn("m", 0)
    assert learnt.expect("m") == LEAST_OUTPUT
    learnt.keep_only(["other"])
    assert learnt.expect("m") == FIRST_GUESS

"""All limits of one process, of every kind: a call is counted in all of its limits, or in none.

Theory of operation
===================

    admit:   every limit has room                        all are counted      -> Lease
             one has none, and no line either            nothing is counted   -> Refused, the longest wait
             only slots are missing, and there is a line nothing is counted   -> InLine: wait, then admit again

    Lease:   `settle` with what was used, then `release`

A call waits in one line at a time, in the order of its limits, and brings the slots that it has been granted
(`held`). Meanwhile others may use up what it would need: then it is refused all the same, and its slots are given on.

Requests are counted when a call is admitted and never given back, but for a call that is refused by those who count for
several pods (`PodLease.undo`). Tokens and money are reserved and settled, slots held and given back. A lease does each
once, whatever it is told how often, so that each way out of a call can say it.

Whoever counts for several pods (`shared.py`) asks a server and has to wait for it; this one answers at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmroute_sidecar.policy.limits.budgets import BudgetReservation, Budgets
from llmroute_sidecar.policy.limits.demand import Demand
from llmroute_sidecar.policy.limits.requests import Limiter
from llmroute_sidecar.policy.limits.rules import (
    BudgetLimit,
    ConcurrencyLimit,
    Limit,
    Refused,
    RequestLimit,
    Standing,
    TokenLimit,
    longer,
)
from llmroute_sidecar.policy.limits.slots import Slot, Slots, Ticket
from llmroute_sidecar.policy.limits.tokens import TokenReservation, TokenWindows

Use = tuple[Limit, str]
"""A limit, and the key of it under which a call is counted."""
KEYS_LOOKED_AT = 100
"""Of a rule's keys, when the gauge of what remains is read: a scrape must not hold up calls."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by the loop's clock (windows) and by the wall clock (calendar periods)."""

    loop: float
    unix: float


@dataclass(frozen=True, slots=True)
class InLine:
    """Not admitted yet: the ticket is granted, or given up."""

    ticket: Ticket


class Lease(Protocol):
    """What an admitted call holds."""

    @property
    def requests(self) -> Standing | None:
        """Of its strictest limit on requests."""
        ...

    @property
    def tokens(self) -> Standing | None:
        """Of its strictest limit on tokens."""
        ...

    def settle(self, tokens: int, cost: int, now: Moment) -> None:
        """It used `tokens` and cost `cost` picodollars."""
        ...

    def release(self) -> None:
        """Its last byte is out, or its client has gone."""
        ...


@dataclass(slots=True)
class PodLease:
    """`Lease` of a `Ledger`."""

    ledger: "Ledger"
    requests: Standing | None = None
    tokens: Standing | None = None
    token_reservations: list[TokenReservation] = field(default_factory=list)
    budget_reservations: list[BudgetReservation] = field(default_factory=list)
    held: list[Slot] = field(default_factory=list)
    counted: Sequence[tuple[RequestLimit, str]] = ()
    admitted: float = 0.0
    """By the loop's clock."""

    def settle(self, tokens: int, cost: int, now: Moment) -> None:
        reserved, self.token_reservations = self.token_reservations, []
        for taken in reserved:
            self.ledger.tokens.settle(taken, tokens, now.loop)
        set_aside, self.budget_reservations = self.budget_reservations, []
        for money in set_aside:
            self.ledger.budgets.settle(money, cost, now.unix)

    def release(self) -> None:
        held, self.held = self.held, []
        for slot in held:
            slot.give_back()

    def undo(self, now: Moment) -> None:
        """Gives all of it back, requests too: the call is refused elsewhere."""
        self.settle(0, 0, now)
        self.release()
        counted, self.counted = self.counted, ()
        self.ledger.requests.take_back(counted, self.admitted, now.loop)


class Ledger:
    """Counts for this process alone."""

    __slots__ = ("budgets", "requests", "slots", "tokens")

    def __init__(self) -> None:
        self.requests = Limiter()
        self.tokens = TokenWindows()
        self.budgets = Budgets()
        self.slots = Slots()

    def admit(
        self, uses: Sequence[Use], demand: Demand, cost: int, now: Moment, held: Sequence[Slot] = ()
    ) -> PodLease | Refused | InLine:
        """Counts a call in all of `uses`, or in none. `held` are slots from tickets, which are the call's own until it
        is admitted: refused, it has lost them."""
        refused = self._refusal(uses, demand, cost, now)
        missing: Use | None = None
        for rule, key in uses:
            if isinstance(rule, ConcurrencyLimit) and not _has(held, rule) and not self.slots.free(rule, key):
                if not self.slots.line_has_room(rule, key):
                    refused = longer(refused, self.slots.refusal(rule))
                elif missing is None:
                    missing = (rule, key)
        if refused is not None:
            for slot in held:
                slot.give_back()
            return refused
        if missing is not None:
            rule, key = missing
            assert isinstance(rule, ConcurrencyLimit)
            return InLine(self.slots.queue(rule, key))
        return self._count(uses, demand, cost, now, held)

    def refusal(self, uses: Sequence[Use], demand: Demand, cost: int, now: Moment) -> Refused | None:
        """The refusal that `admit` would give; counts nothing, and knows of no line."""
        refused = self._refusal(uses, demand, cost, now)
        for rule, key in uses:
            if isinstance(rule, ConcurrencyLimit) and not self.slots.free(rule, key):
                refused = longer(refused, self.slots.refusal(rule))
        return refused

    def _refusal(self, uses: Sequence[Use], demand: Demand, cost: int, now: Moment) -> Refused | None:
        """Of all limits but those on slots."""
        refused: Refused | None = None
        for rule, key in uses:
            match rule:
                case RequestLimit():
                    refused = longer(refused, self.requests.peek(rule, key, now.loop))
                case TokenLimit():
                    refused = longer(refused, self.tokens.refusal(rule, key, demand.total, now.loop))
                case BudgetLimit():
                    refused = longer(refused, self.budgets.refusal(rule, key, cost, now.unix))
                case ConcurrencyLimit():
                    pass
        return refused

    def _count(self, uses: Sequence[Use], demand: Demand, cost: int, now: Moment, held: Sequence[Slot]) -> PodLease:
        """Counts what has been found to fit."""
        lease = PodLease(self, held=list(held))
        requests: list[tuple[RequestLimit, str]] = []
        for rule, key in uses:
            match rule:
                case RequestLimit():
                    requests.append((rule, key))
                case TokenLimit():
                    taken, standing = self.tokens.reserve(rule, key, demand.total, now.loop)
                    lease.token_reservations.append(taken)
                    lease.tokens = stricter(lease.tokens, standing)
                case BudgetLimit():
                    lease.budget_reservations.append(self.budgets.reserve(rule, key, cost, now.unix))
                case ConcurrencyLimit():
                    if not _has(held, rule):
                        lease.held.append(self.slots.take(rule, key))
        counted = self.requests.admit(requests, now.loop)
        lease.counted, lease.admitted = requests, now.loop
        lease.requests = counted.standing
        return lease

    def keep_only(self, rules: Iterable[Limit]) -> None:
        """Forgets what belongs to rules that are gone; changed numbers apply to what is held."""
        rules = list(rules)
        self.requests.keep_only(rule for rule in rules if isinstance(rule, RequestLimit))
        self.tokens.keep_only(rule for rule in rules if isinstance(rule, TokenLimit))
        self.budgets.keep_only(rule for rule in rules if isinstance(rule, BudgetLimit))
        self.slots.keep_only(rule for rule in rules if isinstance(rule, ConcurrencyLimit))

    def remaining(self, rule: Limit, now: Moment) -> int:
        """What is left to the key that has the least: requests, tokens, slots or picodollars. Of a window, only the
        KEYS_LOOKED_AT that were used last are looked at."""
        match rule:
            case RequestLimit():
                return self.requests.remaining(rule, KEYS_LOOKED_AT, now.loop)
            case TokenLimit():
                return self.tokens.remaining(rule, KEYS_LOOKED_AT, now.loop)
            case BudgetLimit():
                return self.budgets.remaining(rule, now.unix)
            case ConcurrencyLimit():
                return self.slots.remaining(rule)


def _has(held: Sequence[Slot], rule: ConcurrencyLimit) -> bool:
    return any(slot.rule.id == rule.id for slot in held)


def stricter(one: Standing | None, other: Standing) -> Standing:
    """The least remaining, then the longest reset; the first where they are alike."""
    if one is None:
        return other
    return other if (other.remaining, -other.reset) < (one.remaining, -one.reset) else one

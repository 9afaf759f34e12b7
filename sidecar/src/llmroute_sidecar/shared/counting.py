"""Counts calls in limits that several gateways share: one round trip for an admission, none to wait for afterwards.

What was taken is given back on every way out: by a call's end (`SharedLease.release`), by a caller that has left or
waited too long before the answer came (it is undone when it comes), by the server itself when this gateway dies
(leases are renewed while they are held).
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import count

from llmroute_sidecar.policy.limits.demand import Demand
from llmroute_sidecar.policy.limits.ledger import Moment, Use
from llmroute_sidecar.policy.limits.rules import (
    BudgetLimit,
    ConcurrencyLimit,
    Limit,
    Refused,
    RequestLimit,
    Standing,
    TokenLimit,
)
from llmroute_sidecar.policy.limits.shared import (
    NANO,
    RENEW_SECONDS,
    SharedLimits,
    SlotsMissing,
    Taken,
    Unavailable,
    standing_of_taken,
)
from llmroute_sidecar.shared.connection import Answer, ErrorReply, Lost
from llmroute_sidecar.shared.link import Link

_RENEWED_AT_ONCE = 100
"""Leases in one command."""


class SharedLease:
    """`Lease` of limits that are counted together."""

    __slots__ = ("_cost", "_counting", "_tokens", "name", "requests", "taken", "tokens")

    def __init__(self, counting: "SharedCounting", name: str, taken: Sequence[Taken]) -> None:
        self._counting = counting
        self.name = name
        self.taken = taken
        self.requests = _strictest(taken, RequestLimit)
        self.tokens = _strictest(taken, TokenLimit)
        self._tokens = 0
        self._cost = 0

    def settle(self, tokens: int, cost: int, now: Moment) -> None:  # noqa: ARG002 - the server's clock counts
        self._tokens, self._cost = tokens, cost

    def release(self) -> None:
        taken, self.taken = self.taken, ()
        if taken:
            self._counting.settled(self, taken, self._tokens, self._cost)

    def undo(self) -> None:
        """The call is refused elsewhere, or nobody waits for it any more."""
        taken, self.taken = self.taken, ()
        if taken:
            self._counting.undone(self, taken)


class SharedCounting:
    """One for a process; the link may change under it."""

    def __init__(self, limits: SharedLimits, link: Link, pod: str) -> None:
        """`pod` is a name that no other process has."""
        self.link = link
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._pod = pod
        self._numbers = count(1)
        self._held: dict[str, SharedLease] = {}
        """Leases with something that has to be renewed."""
        self._remaining: dict[str, tuple[float, int]] = {}
        """By rule id: when it was last heard of, and what remained then to the key that was asked for."""
        self._renewal = self._loop.call_later(RENEW_SECONDS, self.renew)

    def close(self) -> None:
        self._renewal.cancel()

    async def admit(self, uses: Sequence[Use], demand: Demand, cost: int) -> SharedLease | Refused | SlotsMissing:
        """Counts a call in all of `uses` or in none. Raises Unavailable within the link's timeout. Cancelled, nothing
        stays counted."""
        link = self.link
        await link.ready()
        name = f"{self._pod}-{next(self._numbers):x}"
        decided: asyncio.Future[SharedLease | Refused | SlotsMissing | Unavailable] = self._loop.create_future()
        began = self._loop.time()

        def on_answer(answer: Answer) -> None:
            outcome = self._decide(name, uses, demand, cost, answer)
            if decided.done():  # too late, or its caller has left
                if isinstance(outcome, SharedLease):
                    outcome.undo()
                return
            if not isinstance(outcome, Unavailable):
                link.fine(self._loop.time() - began)
            decided.set_result(outcome)

        def on_timeout() -> None:
            if not decided.done():
                link.trouble("timeout")
                decided.set_result(Unavailable("timeout"))

        link.ask(self._limits.admit(uses, demand, cost, name, time.time()), on_answer)
        timer = self._loop.call_later(link.timeout, on_timeout)
        try:
            outcome = await decided
        except asyncio.CancelledError:
            if decided.done() and not decided.cancelled() and isinstance(lease := decided.result(), SharedLease):
                lease.undo()  # it was answered in the very moment that its caller left
            raise
        finally:
            timer.cancel()
        if isinstance(outcome, Unavailable):
            raise outcome
        return outcome

    def charge(self, uses: Sequence[Use], cost: int) -> None:
        """A call that was counted in the pod has cost `cost` picodollars: what was spent is spent."""
        ask = self._limits.charge(uses, cost, time.time())
        if ask is not None:
            self.link.tell(ask)

    def remaining(self, rule: Limit) -> int:
        """What was left of a rule when it was last asked for; all of it where that is long ago."""
        heard, left = self._remaining.get(rule.id, (float("-inf"), 0))
        age = self._loop.time() - heard
        match rule:
            case RequestLimit():
                return left if age < rule.window else rule.requests
            case TokenLimit():
                return left if age < rule.window else rule.tokens
            case ConcurrencyLimit():
                return left if heard > float("-inf") else rule.concurrency
            case BudgetLimit():
                return left * NANO if heard > float("-inf") else rule.amount

    def settled(self, lease: SharedLease, taken: Sequence[Taken], tokens: int, cost: int) -> None:
        self._held.pop(lease.name, None)
        ask = self._limits.settle(taken, tokens, cost, lease.name, time.time())
        if ask is not None:
            self.link.tell(ask)
        for one in taken:
            if isinstance(one.rule, ConcurrencyLimit):
                heard, left = self._remaining.get(one.rule.id, (0.0, 0))
                self._remaining[one.rule.id] = (heard, min(one.rule.concurrency, left + 1))

    def undone(self, lease: SharedLease, taken: Sequence[Taken]) -> None:
        self._held.pop(lease.name, None)
        self.link.tell(self._limits.undo(taken, lease.name, time.time()))

    def _decide(
        self, name: str, uses: Sequence[Use], demand: Demand, cost: int, answer: Answer
    ) -> SharedLease | Refused | SlotsMissing | Unavailable:
        if isinstance(answer, ErrorReply):
            return Unavailable(self.link.heard(answer))
        if isinstance(answer, Lost) or not isinstance(answer, list):
            return Unavailable("connection_lost")
        now = self._loop.time()
        for (rule, _), left in zip(uses, answer[2::3], strict=True):
            self._remaining[rule.id] = (now, left)
        outcome = self._limits.answered(uses, demand, cost, answer)
        if not isinstance(outcome, list):
            return outcome
        lease = SharedLease(self, name, outcome)
        if any(isinstance(rule, ConcurrencyLimit | BudgetLimit) for rule, _ in uses):
            self._held[name] = lease
        return lease

    def renew(self) -> None:
        """Now, and each RENEW_SECONDS from now on: what calls in flight hold lives on."""
        self._renewal.cancel()
        self._renewal = self._loop.call_later(RENEW_SECONDS, self.renew)
        held = [(lease.name, lease.taken) for lease in self._held.values()]
        for begin in range(0, len(held), _RENEWED_AT_ONCE):
            ask = self._limits.renew(held[begin : begin + _RENEWED_AT_ONCE])
            try:
                if ask is not None:
                    self.link.ask(ask, _ignore)
            except Unavailable:
                return  # when it is back they are taken up again, if their calls still run


def _ignore(_: Answer) -> None:
    pass


def _strictest(taken: Sequence[Taken], kind: type[RequestLimit] | type[TokenLimit]) -> Standing | None:
    standings = [standing_of_taken(one) for one in taken if isinstance(one.rule, kind)]
    return min(standings, key=lambda one: (one.remaining, -one.reset), default=None)

"""Limits that pods count together, as a call meets them: the pod's own and the shared ones, all or none.

    take in the pod ─► ask the shared state ─► admitted           both leases are one
        │                     │ refused        what the pod took is undone                            (429)
        │ refused (429)       │ slots missing  undone; in line where there is room, then from the top (429)
        │                     │ no answer      FailOpen: taken in the pod; FailClosed: undone         (503)

The pod's part is taken first, so that nothing has to be undone across the network for what the pod itself refuses. A
caller that leaves, wherever it waits, leaves nothing behind.

The line for shared slots is each pod's own: its order and size hold within the pod, and who is first asks again until
a slot is there, wherever it came free.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llmroute_sidecar.policy.limits.demand import Demand
from llmroute_sidecar.policy.limits.ledger import Lease, Moment, PodLease, Use, stricter
from llmroute_sidecar.policy.limits.rules import ConcurrencyLimit, Refused, Standing
from llmroute_sidecar.policy.limits.shared import SlotsMissing, Unavailable
from llmroute_sidecar.policy.limits.slots import no_slot
from llmroute_sidecar.telemetry.metrics import Metrics

if TYPE_CHECKING:  # its libraries are loaded only where a shared state is configured
    from llmroute_sidecar.shared.state import SharedState

ASK_AGAIN_SECONDS = 0.025
"""Until the first in line asks for a slot again, at least; at most twice that."""
RETRY_SECONDS = 1.0
"""What a call is told to wait that could not be counted: the server is looked for more often than that."""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """The shared state is away, and the route fails closed."""

    retry_after: float = RETRY_SECONDS


class Takes(Protocol):
    """Counts in this pod, waiting in its lines."""

    def __call__(self, uses: Sequence[Use], demand: Demand, cost: int) -> Awaitable[PodLease | Refused]: ...


@dataclass(slots=True)
class JointLease:
    """`Lease` of a call that was counted in two places."""

    here: Lease
    there: Lease
    on_spent: Callable[[int], None] | None = None
    """Told what the call cost, where the shared state could not be asked."""

    @property
    def requests(self) -> Standing | None:
        here, there = self.here.requests, self.there.requests
        return here if there is None else stricter(here, there)

    @property
    def tokens(self) -> Standing | None:
        here, there = self.here.tokens, self.there.tokens
        return here if there is None else stricter(here, there)

    def settle(self, tokens: int, cost: int, now: Moment) -> None:
        self.here.settle(tokens, cost, now)
        self.there.settle(tokens, cost, now)
        on_spent, self.on_spent = self.on_spent, None
        if on_spent is not None:
            on_spent(cost)

    def release(self) -> None:
        self.here.release()
        self.there.release()


@dataclass(slots=True)
class _Line:
    """Of one limit and key, in this pod."""

    lock: asyncio.Lock
    """Given to who came first."""
    waiting: int = 0


class Together:
    """Admits calls that other pods count too. One for a process; `state` may change under it."""

    def __init__(self, take: Takes, now: Callable[[], Moment], metrics: Metrics) -> None:
        self.state: SharedState | None = None
        self._take = take
        self._now = now
        self._metrics = metrics
        self._lines: dict[tuple[str, str], _Line] = {}

    def waiting(self, rule_id: str) -> int:
        """Calls in line for a limit's slots, of all keys."""
        return sum(line.waiting for (id_, _), line in self._lines.items() if id_ == rule_id)

    async def admit(
        self, uses: Sequence[Use], shared: Sequence[Use], demand: Demand, cost: int, *, fail_closed: bool
    ) -> Lease | Refused | Uncounted:
        """Counts a call in `uses` here and in `shared` together, or in none."""
        missing = self._overtaken(shared)
        if missing is None:
            outcome = await self._try(uses, shared, demand, cost, fail_closed=fail_closed)
            if not isinstance(outcome, SlotsMissing):
                return outcome
            missing = (outcome.rule, outcome.key)
        rule, key = missing
        line = self._lines.setdefault((rule.id, key), _Line(asyncio.Lock()))
        if line.waiting >= rule.queue_size:
            return no_slot(rule, rule.concurrency)
        line.waiting += 1
        try:
            async with asyncio.timeout(rule.queue_timeout), line.lock:
                while True:
                    outcome = await self._try(uses, shared, demand, cost, fail_closed=fail_closed)
                    if not isinstance(outcome, SlotsMissing):
                        return outcome
                    await asyncio.sleep(ASK_AGAIN_SECONDS * (1 + random.random()))  # noqa: S311 - jitter
        except TimeoutError:
            return no_slot(rule, rule.concurrency)
        finally:
            line.waiting -= 1
            if not line.waiting:
                self._lines.pop((rule.id, key), None)

    def _overtaken(self, shared: Sequence[Use]) -> tuple[ConcurrencyLimit, str] | None:
        """Where others wait already, whom this call would overtake."""
        if self._lines:
            for rule, key in shared:
                if isinstance(rule, ConcurrencyLimit) and (rule.id, key) in self._lines:
                    return rule, key
        return None

    async def _try(
        self, uses: Sequence[Use], shared: Sequence[Use], demand: Demand, cost: int, *, fail_closed: bool
    ) -> Lease | Refused | Uncounted | SlotsMissing:
        here = await self._take(uses, demand, cost)
        if isinstance(here, Refused):
            return here
        try:
            there, on_spent = await self._take_there(shared, demand, cost, fail_closed=fail_closed)
        except BaseException:  # the client has left, most likely
            here.undo(self._now())
            raise
        if isinstance(there, Refused | Uncounted | SlotsMissing):
            here.undo(self._now())
            return there
        return JointLease(here, there, on_spent)

    async def _take_there(
        self, shared: Sequence[Use], demand: Demand, cost: int, *, fail_closed: bool
    ) -> tuple[Lease | Refused | Uncounted | SlotsMissing, Callable[[int], None] | None]:
        state = self.state
        if state is None:  # taken away by a reload while this call was on its way
            return await self._take(shared, demand, cost), None
        try:
            return await state.admit(shared, demand, cost), None
        except Unavailable:
            if fail_closed:
                self._metrics.shared_state_fallbacks.add(("fail_closed",))
                return Uncounted(), None
        self._metrics.shared_state_fallbacks.add(("fail_open",))
        return await self._take(shared, demand, cost), lambda spent: state.charge(shared, spent)

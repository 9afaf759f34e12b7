"""Limits that several gateways count together: what the script (`shared.lua`) is asked, and what its answers mean.

Theory of operation
===================

    admit    every limit has room     all are counted, in one step of the server   -> Taken
             one has none             nothing is counted                           -> Refused, the longest wait
             only slots are missing   nothing is counted                           -> SlotsMissing: there may be a line
    settle   what was taken becomes what it came to; slots are given back
    renew    what calls in flight hold (slots, reserved money) lives LEASE_SECONDS longer

What is counted is what the pod's own modules count (`requests.py`, `tokens.py`, `slots.py`, `budgets.py`), by the
server's clock. A request, too, can be taken back here, as the call may be refused elsewhere while it was counted.

*Windows* are 256 buckets and the one under way: in no window is more admitted than the limit, and a call may be refused
up to a 256th of the window too long. *Slots and reserved money* end by themselves after LEASE_SECONDS, unless they are
renewed: so those of a gateway that died come back. Its money is then charged as it was estimated. Money is counted in
billionths of a dollar, as 64 bits hold no more of it.

*Keys* are `llmroute:{<namespace>/<gateway>}:<kind>:<route>/<limit>[:<window>]:<key>`: the braces keep all of a gateway
in one slot of a cluster. A client's or a configured model's name is the key itself; model names that clients make up
share MADE_UP_KEYS places, so that what a limit takes is bounded.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from llmroute_sidecar.policy.limits.budgets import period_end, period_start
from llmroute_sidecar.policy.limits.demand import Demand
from llmroute_sidecar.policy.limits.rules import (
    BudgetLimit,
    ConcurrencyLimit,
    Kind,
    Limit,
    Refused,
    RequestLimit,
    Standing,
    TokenLimit,
    longer,
)

Use = tuple[Limit, str]
Words = list[bytes | str | int]
"""Parts of a command."""

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
MADE_UP_KEYS = 16_384
NANO = 1000
"""Picodollars in the unit that the server counts money in."""


def script() -> bytes:
    """The text of `shared.lua`."""
    from importlib.resources import files  # whoever never asks should not pay for it

    return files("llmroute_sidecar.policy.limits").joinpath("shared.lua").read_bytes()


def prefix_of(namespace: str, gateway: str) -> str:
    return f"llmroute:{{{namespace}/{gateway}}}:"


def made_up_key(name: str) -> str:
    """The key for a name that no configuration bounds. No client or model has it as its own name."""
    return f"~{int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big') % MADE_UP_KEYS}"


@dataclass(frozen=True, slots=True)
class Taken:
    """What one limit has counted. `mark` is the window's bucket."""

    rule: Limit
    key: str
    amount: int
    mark: int
    remaining: int


@dataclass(frozen=True, slots=True)
class SlotsMissing:
    """Nothing was counted: `rule`'s slots are all held, and it has a line."""

    rule: ConcurrencyLimit
    key: str
    refused: Refused


class Unavailable(Exception):
    """Nobody has answered in time. `reason` is a word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Ask:
    """A question to the script: the keys that it touches, and its arguments."""

    keys: Words
    arguments: Words

    def words(self) -> Words:
        """As EVAL and EVALSHA take them, after the script."""
        return [len(self.keys), *self.keys, *self.arguments]


class SharedLimits:
    """The questions of one gateway: of its limits, and of its breakers' openings."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def admit(self, uses: Sequence[Use], demand: Demand, cost: int, lease: str, unix: float) -> Ask:
        """`cost` in picodollars; `lease` is a name that no other lease has."""
        ask = _ask("admit")
        for rule, key in uses:
            amount = _amount(rule, demand, cost)
            match rule:
                case RequestLimit() | TokenLimit():
                    limit = rule.requests if isinstance(rule, RequestLimit) else rule.tokens
                    ask.arguments += ["w", limit, *_window(rule), amount]
                    ask.keys.append(self._key(rule, key))
                case ConcurrencyLimit():
                    ask.arguments += ["s", rule.concurrency, lease]
                    ask.keys.append(self._key(rule, key))
                case BudgetLimit():
                    ask.arguments += ["b", rule.amount // NANO, amount, f"{lease}:{amount}", *_periods(rule, unix)]
                    ask.keys += self._account(rule, key)
        return ask

    def answered(
        self, uses: Sequence[Use], demand: Demand, cost: int, answer: Sequence[int]
    ) -> list[Taken] | Refused | SlotsMissing:
        """What an answer to `admit` says."""
        rows = list(zip(answer[1::3], answer[2::3], answer[3::3], strict=True))
        if answer[0]:
            return [
                Taken(rule, key, _amount(rule, demand, cost), mark, remaining)
                for (rule, key), (_, remaining, mark) in zip(uses, rows, strict=True)
            ]
        refused: Refused | None = None
        missing: SlotsMissing | None = None
        only_slots = True
        for (rule, key), (wait, remaining, _) in zip(uses, rows, strict=True):
            if wait < 0:
                continue
            one = Refused(_standing(rule, remaining, wait / 1e6), wait / 1e6)
            refused = longer(refused, one)
            if not isinstance(rule, ConcurrencyLimit) or not rule.queue_size:
                only_slots = False
            elif missing is None:
                missing = SlotsMissing(rule, key, one)
        if missing is not None and only_slots:
            return missing
        assert refused is not None
        return refused

    def settle(self, taken: Sequence[Taken], tokens: int, cost: int, lease: str, unix: float) -> Ask | None:
        """The call is over: used `tokens`, cost `cost` picodollars. None where there is nothing to say."""
        ask = _ask("settle")
        for one in taken:
            match one.rule:
                case RequestLimit():
                    pass
                case TokenLimit():
                    if tokens != one.amount:
                        self._settle_window(ask, one, tokens)
                case ConcurrencyLimit():
                    ask.arguments += ["s", lease]
                    ask.keys.append(self._key(one.rule, one.key))
                case BudgetLimit():
                    self._settle_budget(ask, one.rule, one.key, f"{lease}:{one.amount}", one.amount, cost, unix)
        return ask if ask.keys else None

    def undo(self, taken: Sequence[Taken], lease: str, unix: float) -> Ask:
        """The call is as good as never made."""
        ask = self.settle(taken, 0, 0, lease, unix) or _ask("settle")
        for one in taken:
            if isinstance(one.rule, RequestLimit):
                self._settle_window(ask, one, 0)
        return ask

    def charge(self, uses: Sequence[Use], cost: int, unix: float) -> Ask | None:
        """A call that was counted elsewhere has cost `cost` picodollars."""
        ask = _ask("settle")
        for rule, key in uses:
            if isinstance(rule, BudgetLimit) and cost:
                self._settle_budget(ask, rule, key, "-", 0, cost, unix)
        return ask if ask.keys else None

    def renew(self, held: Sequence[tuple[str, Sequence[Taken]]]) -> Ask | None:
        """For leases (name, what they have taken) in flight."""
        ask = _ask("renew")
        for lease, taken in held:
            for one in taken:
                if isinstance(one.rule, ConcurrencyLimit):
                    ask.arguments += ["s", lease]
                    ask.keys.append(self._key(one.rule, one.key))
                elif isinstance(one.rule, BudgetLimit):
                    ask.arguments += ["b", f"{lease}:{one.amount}"]
                    ask.keys.append(self._account(one.rule, one.key)[1])
        return ask if ask.keys else None

    def open(self, breaker: str, by: str, seconds: float) -> Ask:
        """Tells that the pod `by` has opened a breaker, for `seconds`."""
        ask = _ask("open")
        ask.keys.append(self._breaker(breaker))
        ask.arguments += [by, max(1, round(seconds * 1000))]
        return ask

    def opened(self, breakers: Sequence[str]) -> Ask:
        """Asks which of these were opened: the answer has by whom (empty: not open) and the milliseconds left of
        each."""
        ask = _ask("opened")
        ask.keys += [self._breaker(breaker) for breaker in breakers]
        return ask

    def _breaker(self, upstream: str) -> str:
        return f"{self.prefix}breaker:{upstream}"

    def probe(self) -> Ask:
        """Whether the server would take any of these."""
        ask = _ask("probe")
        ask.keys.append(f"{self.prefix}probe")
        return ask

    def _settle_window(self, ask: Ask, one: Taken, used: int) -> None:
        assert isinstance(one.rule, RequestLimit | TokenLimit)
        ask.arguments += ["w", *_window(one.rule), one.mark, one.amount, used]
        ask.keys.append(self._key(one.rule, one.key))

    def _settle_budget(
        self, ask: Ask, rule: BudgetLimit, key: str, member: str, amount: int, cost: int, unix: float
    ) -> None:
        ask.arguments += ["b", member, amount, _rounded(cost), *_periods(rule, unix)]
        ask.keys += self._account(rule, key)

    def _key(self, rule: RequestLimit | TokenLimit | ConcurrencyLimit, key: str) -> str:
        if isinstance(rule, ConcurrencyLimit):
            return f"{self.prefix}slots:{rule.id}:{key}"
        kind = "requests" if isinstance(rule, RequestLimit) else "tokens"
        return f"{self.prefix}{kind}:{rule.id}:{rule.window:g}s:{key}"

    def _account(self, rule: BudgetLimit, key: str) -> list[str]:
        return [f"{self.prefix}budget:{rule.id}:{key}", f"{self.prefix}reserved:{rule.id}:{key}"]


def _ask(operation: str) -> Ask:
    return Ask([], [operation, round(LEASE_SECONDS * 1e6)])


def _window(rule: RequestLimit | TokenLimit) -> tuple[int, int]:
    """Bits of a bucket, and the window's length in microseconds."""
    return 32 if isinstance(rule, RequestLimit) else 64, round(rule.window * 1e6)


def _amount(rule: Limit, demand: Demand, cost: int) -> int:
    match rule:
        case TokenLimit():
            return min(demand.total, rule.tokens)
        case BudgetLimit():
            return _rounded(min(cost, rule.amount))
        case RequestLimit() | ConcurrencyLimit():
            return 1


def _rounded(picodollars: int) -> int:
    return (picodollars + NANO // 2) // NANO


def _periods(rule: BudgetLimit, unix: float) -> tuple[int, int, int, int]:
    """The starts of the periods before, of, and after `unix`, and of the one after that: the server's clock decides."""
    start = period_start(rule.period, unix)
    end = period_end(rule.period, unix)
    return (
        int(period_start(rule.period, start - 1)),
        int(start),
        int(end),
        int(period_end(rule.period, end)),
    )


def _standing(rule: Limit, remaining: int, reset: float) -> Standing:
    kind: Kind
    limit: int
    match rule:
        case RequestLimit():
            kind, limit, reset = "requests", rule.requests, max(reset, rule.window)
        case TokenLimit():
            kind, limit, reset = "tokens", rule.tokens, max(reset, rule.window)
        case ConcurrencyLimit():
            kind, limit = "concurrency", rule.concurrency
        case BudgetLimit():
            kind, limit, remaining = "budget", rule.amount, remaining * NANO
        case never:
            assert_never(never)
    return Standing(rule.name, limit, remaining, reset, kind)


def standing_of_taken(one: Taken) -> Standing:
    """For the `x-ratelimit-*` headers: a window that has just counted is whole again after its length."""
    return _standing(one.rule, one.remaining, 0.0)

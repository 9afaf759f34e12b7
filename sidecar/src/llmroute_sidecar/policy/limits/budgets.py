"""Budgets: money in a calendar period, reserved by estimate when a call is admitted, settled by what it cost.

Theory of operation
===================

Money is a whole number of picodollars (`rules.PICODOLLARS`): sums are exact, and nothing is rounded.

    reserve:  spent + reserved + estimate within the budget, and the budget not used up   reserved += estimate
              else                                                                        nothing, refused
    settle:                                                reserved -= estimate, spent += cost

- A call is charged to the period in which it ends: that is when its cost is known. What is reserved lives on into the
  next period, so no period can be overdrawn by calls that began before it.
- An estimate above the whole budget is taken for the budget: such a call passes where nothing is spent or reserved.
- So spending is above the budget by no more than what the calls in flight cost beyond their estimates.
- A call whose price is not known reserves and costs nothing; it is refused, as all are, once the budget is used up.

*Retry-After* is the time to the period's end, unless it is only the calls in flight that leave no room: what they give
back may be enough in a moment.

*Keys* with money on them cannot be dropped before their period ends: MAX_KEYS for each rule, further ones share one
account. When a period has ended, those that hold nothing go.

*Reload*: state belongs to a rule's id; a new amount applies to what is spent. With a new period an account keeps what
it holds if any of it was spent in the current one: rather refused too early than spent twice.

`unix` is the wall clock, in seconds since 1970. One that runs back ends no period, unless by more than a whole one:
then it was wrong before and has been put right, and what was spent by it counts in the period that is now.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from llmroute_sidecar.policy.limits.places import MAX_KEYS
from llmroute_sidecar.policy.limits.rules import BudgetLimit, Period, Refused, Standing

SETTLING_SECONDS = 1.0
"""What a call is told to wait where only calls in flight leave no room for it."""


def period_start(period: Period, unix: float) -> float:
    """When the period of `unix` began, in UTC. Weeks begin on Monday (ISO 8601)."""
    return _start(period, datetime.fromtimestamp(unix, UTC)).timestamp()


def period_end(period: Period, unix: float) -> float:
    """When the period of `unix` ends."""
    start = _start(period, datetime.fromtimestamp(unix, UTC))
    match period:
        case "Hour":
            return (start + timedelta(hours=1)).timestamp()
        case "Day":
            return (start + timedelta(days=1)).timestamp()
        case "Week":
            return (start + timedelta(weeks=1)).timestamp()
        case "Month":
            return (start + timedelta(days=31)).replace(day=1).timestamp()


def _start(period: Period, instant: datetime) -> datetime:
    hour = instant.replace(minute=0, second=0, microsecond=0)
    match period:
        case "Hour":
            return hour
        case "Day":
            return hour.replace(hour=0)
        case "Week":
            return hour.replace(hour=0) - timedelta(days=instant.weekday())
        case "Month":
            return hour.replace(hour=0, day=1)


class _Account:
    """Money of one key."""

    __slots__ = ("charged", "reserved", "spent")

    def __init__(self) -> None:
        self.reserved = 0
        self.spent = 0
        self.charged = float("-inf")
        """When anything was last spent."""

    def begin_anew(self, since: float) -> None:
        """Nothing that was spent before `since` counts any more."""
        if self.charged < since:
            self.spent = 0


@dataclass(slots=True)
class BudgetReservation:
    """What a call in flight has set aside. Settled once."""

    limit: BudgetLimit
    key: str
    account: _Account
    amount: int


class _Accounts:
    """Those of one rule. The period's ends are kept until it is over: a calendar costs more than a comparison."""

    __slots__ = ("by_key", "end", "overflow", "period", "start")

    def __init__(self) -> None:
        self.by_key: dict[str, _Account] = {}
        self.overflow = _Account()
        self.period: Period | None = None
        self.start = 0.0
        self.end = float("-inf")

    def turn(self, period: Period, unix: float) -> None:
        """Begins a new period where the last one has ended."""
        if period == self.period and 2 * self.start - self.end <= unix < self.end:
            return
        self.period = period
        self.start, self.end = period_start(period, unix), period_end(period, unix)
        for account in (*self.by_key.values(), self.overflow):
            account.begin_anew(self.start)
            account.charged = min(account.charged, unix)
        self.by_key = {key: account for key, account in self.by_key.items() if account.spent or account.reserved}

    def find(self, key: str) -> _Account:
        """The key's own account, a new one where there is room for it, else the one that further keys share."""
        account = self.by_key.get(key)
        if account is not None:
            return account
        return self.overflow if len(self.by_key) >= MAX_KEYS else _Account()

    def used(self, key: str, account: _Account) -> None:
        if account is not self.overflow:
            self.by_key[key] = account


class Budgets:
    """All accounts of this process."""

    __slots__ = ("_accounts", "_newest")

    def __init__(self) -> None:
        self._accounts: dict[str, _Accounts] = {}
        """By rule id."""
        self._newest: dict[str, BudgetLimit] = {}
        """By rule id: calls in flight may come with an older rule, and its calendar must not end a period."""

    def refusal(self, rule: BudgetLimit, key: str, cost: int, unix: float) -> Refused | None:
        """Why a call of about `cost` is not admitted; None where it is. Counts nothing."""
        rule, accounts = self._of(rule, unix)
        account = accounts.find(key)
        taken = account.spent + account.reserved
        amount = min(cost, rule.amount)
        if taken < rule.amount and taken + amount <= rule.amount:
            return None
        left = max(0.0, accounts.end - unix)
        used_up = account.spent >= rule.amount or account.spent + amount > rule.amount
        standing = Standing(rule.name, rule.amount, max(0, rule.amount - taken), left, "budget")
        return Refused(standing, left if used_up else min(left, SETTLING_SECONDS))

    def reserve(self, rule: BudgetLimit, key: str, cost: int, unix: float) -> BudgetReservation:
        """Sets aside what `refusal` has found room for."""
        rule, accounts = self._of(rule, unix)
        account = accounts.find(key)
        amount = min(cost, rule.amount)
        account.reserved += amount
        accounts.used(key, account)
        return BudgetReservation(rule, key, account, amount)

    def settle(self, taken: BudgetReservation, cost: int, unix: float) -> None:
        """The call is over, and cost `cost`."""
        taken.account.reserved -= taken.amount
        if cost and taken.limit.id in self._accounts:  # else the rule is gone
            _, accounts = self._of(taken.limit, unix)
            account = accounts.find(taken.key)
            account.spent += cost
            account.charged = max(account.charged, unix)
            accounts.used(taken.key, account)

    def keep_only(self, rules: Iterable[BudgetLimit]) -> None:
        """Forgets the accounts of rules that are gone; by id, so a rule with new numbers keeps its history."""
        self._newest = {rule.id: rule for rule in rules}
        for gone in self._accounts.keys() - self._newest.keys():
            del self._accounts[gone]

    def remaining(self, rule: BudgetLimit, unix: float) -> int:
        """What is left to the key that has the least."""
        rule, accounts = self._of(rule, unix)
        most = max(account.spent + account.reserved for account in (*accounts.by_key.values(), accounts.overflow))
        return max(0, rule.amount - most)

    def _of(self, rule: BudgetLimit, unix: float) -> tuple[BudgetLimit, _Accounts]:
        """The rule as it is in the newest configuration, and its accounts in the current period."""
        rule = self._newest.get(rule.id, rule)
        accounts = self._accounts.get(rule.id)
        if accounts is None:
            accounts = self._accounts[rule.id] = _Accounts()
        accounts.turn(rule.period, unix)
        return rule, accounts

"""Limits on tokens: reserved by estimate when a call is admitted, settled by what it came to.

Theory of operation
===================

A rule of N tokens per window W promises for each key: when a call is admitted, what was reserved and settled within the
last W seconds, its own reservation included, is not above N.

    reserve:  room for the estimate   count it, at the time of admission
              none                    count nothing, say how long until there is
    settle:   used less               the rest is given back, where the reservation stands
              used more               the excess is counted now: it may refuse calls, it takes back no admission

- An estimate above N is taken for N: such a call passes where the window is empty, as an estimate proves nothing.
- A reservation counts from its call's admission, and leaves the window W later, in flight or not: this is a rate, and
  how many calls are in flight is for a concurrency limit to say. Of a call that is longer than W the excess alone can
  still count, at its end.
- So the sum of what calls of one window used is above N by no more than what they used beyond their estimates.

*A window is a run of slots*, as that of requests is. A slot takes what comes within W/SLOTS of its first call, and
leaves when its last is W old: a call may be refused up to W/SLOTS too long (a quarter of a second for a minute). A
reservation knows its slot, so that giving back costs no search.

*Keys, reload, clock*: as for requests.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from llmroute_sidecar.policy.limits.places import Places
from llmroute_sidecar.policy.limits.rules import Refused, Standing, TokenLimit

SLOTS = 256


class _Slot:
    """Tokens that leave the window together."""

    __slots__ = ("amount", "began", "end", "gone")

    def __init__(self, amount: int, began: float, end: float) -> None:
        self.amount = amount
        self.began = began
        self.end = end
        self.gone = False


class _Window:
    """The tokens of one key."""

    __slots__ = ("count", "slots")

    def __init__(self) -> None:
        self.count = 0
        self.slots: deque[_Slot] = deque()

    def expire(self, length: float, now: float) -> None:
        slots = self.slots
        while slots and slots[0].end + length <= now:
            slot = slots.popleft()
            slot.gone = True
            self.count -= slot.amount

    def idle(self, length: float, now: float) -> bool:
        return not self.slots or self.slots[-1].end + length <= now

    def inherit(self, other: "_Window") -> None:
        self.count = other.count
        end = other.slots[-1].end
        self.slots.append(_Slot(other.count, end, end))

    def add(self, amount: int, length: float, now: float) -> _Slot:
        self.count += amount
        if self.slots:
            slot = self.slots[-1]
            if now - slot.began < length / SLOTS:
                slot.end = now
                slot.amount += amount
                return slot
        slot = _Slot(amount, now, now)
        self.slots.append(slot)
        return slot

    def give_back(self, slot: _Slot, amount: int) -> None:
        if not slot.gone:
            slot.amount -= amount
            self.count -= amount

    def standing(self, rule: TokenLimit, now: float) -> Standing:
        reset = self.slots[-1].end + rule.window - now if self.slots else 0.0
        return Standing(rule.name, rule.tokens, max(0, rule.tokens - self.count), reset, "tokens")

    def refusal(self, rule: TokenLimit, amount: int, now: float) -> Refused:
        """Why there is no room for `amount`, and how long until so many have left that there is."""
        surplus = self.count + amount - rule.tokens
        wait = rule.window
        for slot in self.slots:
            surplus -= slot.amount
            if surplus <= 0:
                wait = slot.end + rule.window - now
                break
        return Refused(self.standing(rule, now), wait)


@dataclass(slots=True)
class TokenReservation:
    """What a call in flight has taken. Settled once."""

    limit: TokenLimit
    key: str
    window: _Window
    slot: _Slot
    amount: int


class TokenWindows:
    """All windows of tokens of this process."""

    __slots__ = ("_keys", "_now")

    def __init__(self) -> None:
        self._keys: dict[str, Places[_Window]] = {}
        """By rule id."""
        self._now = float("-inf")

    def refusal(self, rule: TokenLimit, key: str, tokens: int, now: float) -> Refused | None:
        """Why a call of about `tokens` is not admitted; None where it is. Counts nothing."""
        now = self._clock(now)
        window = self._window(rule, key, now)
        amount = min(tokens, rule.tokens)
        is_full = window.count + amount > rule.tokens or rule.tokens == 0  # no share of a limit: not even for nothing
        return window.refusal(rule, amount, now) if is_full else None

    def reserve(self, rule: TokenLimit, key: str, tokens: int, now: float) -> tuple[TokenReservation, Standing]:
        """Takes what `refusal` has found room for."""
        now = self._clock(now)
        window = self._window(rule, key, now)
        amount = min(tokens, rule.tokens)
        slot = window.add(amount, rule.window, now)
        self._keys[rule.id].used(key, window)
        return TokenReservation(rule, key, window, slot, amount), window.standing(rule, now)

    def settle(self, taken: TokenReservation, tokens: int, now: float) -> None:
        """The call is over, and used `tokens`."""
        excess = tokens - taken.amount
        if excess <= 0:
            taken.window.give_back(taken.slot, -excess)
        elif (keys := self._keys.get(taken.limit.id)) is not None:  # else the rule is gone
            now = self._clock(now)
            window = self._window(taken.limit, taken.key, now)
            window.add(excess, taken.limit.window, now)
            keys.used(taken.key, window)

    def keep_only(self, rules: Iterable[TokenLimit]) -> None:
        """Forgets the windows of rules that are gone; by id, so a rule with new numbers keeps its history."""
        wanted = {rule.id for rule in rules}
        for gone in self._keys.keys() - wanted:
            del self._keys[gone]

    def remaining(self, rule: TokenLimit, keys: int, now: float) -> int:
        """What is left to the key that has the least, of the `keys` that were used last."""
        now = self._clock(now)
        return max(0, rule.tokens - max((window.count for window in self._newest(rule, keys, now)), default=0))

    def _newest(self, rule: TokenLimit, keys: int, now: float) -> Iterator[_Window]:
        places = self._keys.get(rule.id)
        if places is not None:
            for window in (*islice(reversed(places.windows.values()), keys), places.overflow):
                window.expire(rule.window, now)
                yield window

    def _window(self, rule: TokenLimit, key: str, now: float) -> _Window:
        keys = self._keys.get(rule.id)
        if keys is None:
            keys = self._keys[rule.id] = Places(_Window)
        window = keys.windows.get(key)
        if window is None:
            return keys.newcomer(rule.window, now)
        window.expire(rule.window, now)
        return window

    def _clock(self, now: float) -> float:
        """`now`, or what it was before where the clock runs back."""
        if now < self._now:
            return self._now
        self._now = now
        return now

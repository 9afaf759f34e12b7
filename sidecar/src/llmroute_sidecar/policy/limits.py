"""Limits on requests: a sliding window for each rule and key, exact in the safe direction.

Theory of operation
===================

A rule of N requests per window W promises for each of its keys: in no half-open span of W seconds are more than N
requests admitted, however the calls fall. What would need endless memory or time is rounded, and always towards
refusing too early, never towards admitting too many.

    admit:   every (rule, key) has room    count in all of them   -> Admitted(the strictest's standing)
             one is full                   count in none of them  -> Refused(the one with the longest wait)

*A window is a run of slots*: (end, count), in order of time, and the count of them all. A slot leaves when its end,
the time of its last request, is W old. Up to N = SLOTS requests only those of the very same instant share a slot, so
the window is exact to the stamp. For larger N a slot takes what comes within W/SLOTS of its first request: a window
costs about SLOTS slots however large N is, and a request may be refused up to W/SLOTS too long (59 ms for a minute).

*Keys are bounded*, since a client may ask for any model name and each would be a key: MAX_KEYS for each rule. They
stand in order of their last counted request, so the first is always the one that goes idle (empty) first; each new
key drops up to two idle ones before it takes a place. Only a counted request makes a key. Where no place is left, new
keys share one overflow window with the rule's numbers: together they get what one of them would have had alone.

The overflow window must not be a way to twice the limit: a key may have used it up before a place became free. So
while it holds anything, a key that takes a place inherits its whole count, as one slot that leaves when the overflow
window's last request does. No key can be kept out for longer than W by that, as nothing is added to the overflow
window while places are free.

*Reload*: state belongs to a rule's id. Changed numbers apply to the history that is there; what had left a shorter
window is not remembered for a longer one.

`now` is the caller's clock, in seconds. One that runs back is taken as standing still. The length of keys is the
caller's to bound.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

SLOTS = 1024
MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """A rule: at most `requests` in any `window` seconds, counted apart `per` what it says."""

    id: str
    """Identity over reloads: `<route>/<limit>`."""
    name: str
    per: Literal["Client", "Model", "Upstream", "Gateway"]
    requests: int
    window: float


class Standing(msgspec.Struct, frozen=True):
    """How a key stands with a limit, for the `x-ratelimit-*` headers."""

    name: str
    limit: int
    remaining: int
    reset: float
    """Seconds until the window is empty again if nothing more comes: OpenAI's "time until the limit resets to its
    initial state"."""


class Admitted(msgspec.Struct, frozen=True):
    standing: Standing | None
    """Of the strictest limit: the least remaining, then the longest reset. None where no limit applies."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was counted. Where several limits refuse, it is the one with the longest wait."""

    standing: Standing
    retry_after: float
    """Seconds until a request of this kind may be admitted, if nothing else takes its place."""


_UNLIMITED = Admitted(None)


class _Window:
    """The counted requests of one key: slots in order of time."""

    __slots__ = ("count", "counts", "ends", "newest_began")

    def __init__(self) -> None:
        self.count = 0
        self.ends: deque[float] = deque()
        self.counts: deque[int] = deque()
        self.newest_began = 0.0
        """When the first request of the newest slot came."""

    def expire(self, rule: RequestLimit, now: float) -> None:
        ends, window = self.ends, rule.window
        while ends and ends[0] + window <= now:
            ends.popleft()
            self.count -= self.counts.popleft()

    def idle(self, rule: RequestLimit, now: float) -> bool:
        return not self.ends or self.ends[-1] + rule.window <= now

    def add(self, rule: RequestLimit, now: float) -> None:
        self.count += 1
        ends = self.ends
        if ends and (ends[-1] == now or (rule.requests > SLOTS and now - self.newest_began < rule.window / SLOTS)):
            ends[-1] = now
            self.counts[-1] += 1
            return
        ends.append(now)
        self.counts.append(1)
        self.newest_began = now

    def inherit(self, other: "_Window") -> None:
        """Takes all that `other` holds as if it were its own, in one slot. Only for an empty window."""
        self.count = other.count
        self.newest_began = other.ends[-1]
        self.ends.append(other.ends[-1])
        self.counts.append(other.count)

    def refusal(self, rule: RequestLimit, now: float) -> Refused:
        """Why a full window refuses, and for how long: until so many have left that one more has room."""
        surplus = self.count - rule.requests + 1
        wait = rule.window  # of a rule that admits none at all
        for end, count in zip(self.ends, self.counts, strict=True):
            surplus -= count
            if surplus <= 0:
                wait = end + rule.window - now
                break
        reset = self.ends[-1] + rule.window - now if self.ends else 0.0
        return Refused(Standing(rule.name, rule.requests, 0, reset), wait)


class _Keys:
    """The windows of one rule, by key, the longest unused first."""

    __slots__ = ("overflow", "windows")

    def __init__(self) -> None:
        self.windows: OrderedDict[str, _Window] = OrderedDict()
        self.overflow = _Window()

    def newcomer(self, rule: RequestLimit, now: float) -> _Window:
        """A window for a key that has none: the overflow window, or one that takes its place once it has counted."""
        windows = self.windows
        for _ in range(2):  # one more than can be added, so that idle keys do not pile up
            if not windows or not next(iter(windows.values())).idle(rule, now):
                break
            windows.popitem(last=False)
        overflow = self.overflow
        overflow.expire(rule, now)
        if len(windows) >= MAX_KEYS:
            return overflow
        window = _Window()
        if overflow.count:
            window.inherit(overflow)
        return window


class Limiter:
    """All windows of this process."""

    __slots__ = ("_keys", "_now")

    def __init__(self) -> None:
        self._keys: dict[str, _Keys] = {}
        """By rule id."""
        self._now = float("-inf")

    def admit(self, uses: Sequence[tuple[RequestLimit, str]], now: float) -> Admitted | Refused:
        """Counts one request in every (rule, key) of `uses`, or in none of them.

        A pair should stand in `uses` once; twice may cost it more than one request, never admit more.
        """
        if not uses:
            return _UNLIMITED
        if now < self._now:
            now = self._now
        self._now = now
        found: list[_Window] = []
        refused: Refused | None = None
        for rule, key in uses:
            keys = self._keys.get(rule.id)
            if keys is None:
                keys = self._keys[rule.id] = _Keys()
            window = keys.windows.get(key)
            if window is None:
                window = keys.newcomer(rule, now)
            else:
                window.expire(rule, now)
            if window.count >= rule.requests:
                refusal = window.refusal(rule, now)
                if refused is None or refusal.retry_after > refused.retry_after:
                    refused = refusal
            elif refused is None:
                found.append(window)
        if refused is not None:
            return refused
        strictest: RequestLimit | None = None
        least = 0
        for (rule, key), window in zip(uses, found, strict=True):
            window.add(rule, now)
            keys = self._keys[rule.id]
            if key in keys.windows:
                keys.windows.move_to_end(key)
            elif window is not keys.overflow:
                keys.windows[key] = window
            remaining = rule.requests - window.count
            # A window that has just counted a request is empty again after exactly its length.
            if strictest is None or remaining < least or (remaining == least and rule.window > strictest.window):
                strictest, least = rule, remaining
        assert strictest is not None
        return Admitted(Standing(strictest.name, strictest.requests, max(0, least), strictest.window))

    def peek(self, rule: RequestLimit, key: str, now: float) -> Refused | None:
        """The refusal that `admit` would give for this pair alone, or None; counts nothing."""
        if now < self._now:
            now = self._now
        self._now = now
        keys = self._keys.get(rule.id)
        if keys is None:
            keys = self._keys[rule.id] = _Keys()
        window = keys.windows.get(key)
        if window is None:
            window = keys.newcomer(rule, now)
        else:
            window.expire(rule, now)
        return window.refusal(rule, now) if window.count >= rule.requests else None

    def keep_only(self, rules: Iterable[RequestLimit]) -> None:
        """Forgets the windows of rules that are gone; by id, so a rule with new numbers keeps its history."""
        wanted = {rule.id for rule in rules}
        for gone in self._keys.keys() - wanted:
            del self._keys[gone]

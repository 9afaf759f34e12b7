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

*Keys are bounded* in number: see `places.py`.

*Reload*: state belongs to a rule's id. Changed numbers apply to the history that is there; what had left a shorter
window is not remembered for a longer one.

`now` is the caller's clock, in seconds. One that runs back is taken as standing still. The length of keys is the
caller's to bound.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from llmroute_sidecar.policy.limits.places import Places
from llmroute_sidecar.policy.limits.rules import Admitted, Refused, RequestLimit, Standing

SLOTS = 1024

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

    def expire(self, length: float, now: float) -> None:
        ends = self.ends
        while ends and ends[0] + length <= now:
            ends.popleft()
            self.count -= self.counts.popleft()

    def idle(self, length: float, now: float) -> bool:
        return not self.ends or self.ends[-1] + length <= now

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

    def take_back(self, then: float) -> None:
        """One of those that were counted at `then`, and have not left: in the first slot that ends no earlier."""
        for place in range(len(self.ends) - 1, -1, -1):
            if place == 0 or self.ends[place - 1] < then:
                if self.ends[place] >= then and self.counts[place] > 0:
                    self.counts[place] -= 1
                    self.count -= 1
                return

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


class Limiter:
    """All windows of requests of this process."""

    __slots__ = ("_keys", "_now")

    def __init__(self) -> None:
        self._keys: dict[str, Places[_Window]] = {}
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
                keys = self._keys[rule.id] = Places(_Window)
            window = keys.windows.get(key)
            if window is None:
                window = keys.newcomer(rule.window, now)
            else:
                window.expire(rule.window, now)
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
        for place, window in enumerate(found):
            rule, key = uses[place]
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

    def take_back(self, uses: Iterable[tuple[RequestLimit, str]], then: float, now: float) -> None:
        """A request that `admit` counted at `then` is as good as never made."""
        for rule, key in uses:
            keys = self._keys.get(rule.id)
            if keys is not None and then + rule.window > now:  # else it has left by itself
                keys.windows.get(key, keys.overflow).take_back(then)

    def peek(self, rule: RequestLimit, key: str, now: float) -> Refused | None:
        """The refusal that `admit` would give for this pair alone, or None; counts nothing."""
        if now < self._now:
            now = self._now
        self._now = now
        keys = self._keys.get(rule.id)
        if keys is None:
            keys = self._keys[rule.id] = Places(_Window)
        window = keys.windows.get(key)
        if window is None:
            window = keys.newcomer(rule.window, now)
        else:
            window.expire(rule.window, now)
        return window.refusal(rule, now) if window.count >= rule.requests else None

    def remaining(self, rule: RequestLimit, keys: int, now: float) -> int:
        """What is left to the key that has the least, of the `keys` that were used last."""
        places = self._keys.get(rule.id)
        most = 0
        for window in () if places is None else (*islice(reversed(places.windows.values()), keys), places.overflow):
            window.expire(rule.window, max(now, self._now))
            most = max(most, window.count)
        return max(0, rule.requests - most)

    def keep_only(self, rules: Iterable[RequestLimit]) -> None:
        """Forgets the windows of rules that are gone; by id, so a rule with new numbers keeps its history."""
        wanted = {rule.id for rule in rules}
        for gone in self._keys.keys() - wanted:
            del self._keys[gone]

"""Limits on requests: a sliding window per limit and key, exact in the safe direction.

Theory of operation. A limit of N requests per window W promises: in no half-open span of length W are more than N
admitted. The window of a key is a run of slots, each (first, last, count): requests that came within `W / SLOTS` of a
slot's first share it, so that a window costs at most SLOTS + 1 slots however large N is. A slot leaves only when its
*last* request is W old; the rounding can thus delay an admission by up to W / SLOTS, and never allow one too many.
With W = 60 s that is 59 ms.

    admit:  expire slots; for each (rule, key): count < N ?        all of them  -> count in all, Admitted(strictest)
                                                                    any is full -> count in none, Refused(longest wait)

`now` is any clock that does not run back; a caller's that does is taken as standing still. The keys of a rule are
bounded: past MAX_KEYS live ones, idle ones are dropped, and if none is idle all further keys share one window
(refusing too early, never late). State belongs to a rule's id, so a reload that changes N or W keeps the history
under the new numbers.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

SLOTS = 1024
MAX_KEYS = 10_000
_SHARED_KEY = "\0others"


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """A rule: at most `requests` in any `window` seconds, counted apart `per` what it says."""

    id: str
    """Identity over reloads: `<route>/<limit>`."""
    name: str
    per: Literal["Client", "Model", "Upstream", "Gateway"]
    requests: int
    window: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands with a limit."""

    name: str
    limit: int
    remaining: int
    reset: float
    """Seconds until the window is empty again, if nothing more comes."""


@dataclass(frozen=True, slots=True)
class Admitted:
    standing: Standing | None
    """Of the limit with the least remaining; None where no limit applies."""


@dataclass(frozen=True, slots=True)
class Refused:
    standing: Standing
    retry_after: float
    """Seconds until one more may be admitted."""


class _Window:
    """The requests of one key: run-length slots in order of time."""

    __slots__ = ("count", "slots")

    def __init__(self) -> None:
        self.count = 0
        self.slots: deque[list[float]] = deque()  # [first, last, count]

    def expire(self, now: float, window: float) -> None:
        slots = self.slots
        while slots and slots[0][1] + window <= now:
            self.count -= int(slots.popleft()[2])

    def add(self, now: float, window: float) -> None:
        self.count += 1
        if self.slots:
            newest = self.slots[-1]
            if now - newest[0] <= window / SLOTS:
                newest[1] = now
                newest[2] += 1
                return
        self.slots.append([now, now, 1])

    def until_free(self, now: float, window: float, limit: int) -> float:
        """Seconds until fewer than `limit` are in the window."""
        surplus = self.count - limit + 1
        for slot in self.slots:
            surplus -= int(slot[2])
            if surplus <= 0:
                return max(0.0, slot[1] + window - now)
        return 0.0

    def until_empty(self, now: float, window: float) -> float:
        return max(0.0, self.slots[-1][1] + window - now) if self.slots else 0.0


class Limiter:
    """All windows of this process."""

    def __init__(self) -> None:
        self._windows: dict[str, dict[str, _Window]] = {}
        self._now = float("-inf")

    def admit(self, uses: Sequence[tuple[RequestLimit, str]], now: float) -> Admitted | Refused:
        """Counts one request in every (limit, key) of `uses`, or in none of them."""
        now = self._now = max(now, self._now)
        strictest: tuple[int, float, RequestLimit, _Window] | None = None
        refused: Refused | None = None
        windows = []
        for rule, key in uses:
            window = self._window(rule, key, now)
            window.expire(now, rule.window)
            if window.count >= rule.requests:
                wait = window.until_free(now, rule.window, rule.requests)
                if refused is None or wait > refused.retry_after:
                    refused = Refused(_standing(rule, window, now), wait)
            windows.append((rule, window))
        if refused is not None:
            return refused
        for rule, window in windows:
            window.add(now, rule.window)
            remaining = rule.requests - window.count
            if strictest is None or (remaining, -rule.window) < (strictest[0], -strictest[1]):
                strictest = (remaining, rule.window, rule, window)
        return Admitted(None if strictest is None else _standing(strictest[2], strictest[3], now))

    def keep_only(self, rules: Iterable[RequestLimit]) -> None:
        """Forgets the windows of rules that are gone."""
        wanted = {rule.id for rule in rules}
        for gone in self._windows.keys() - wanted:
            del self._windows[gone]

    def _window(self, rule: RequestLimit, key: str, now: float) -> _Window:
        keys = self._windows.get(rule.id)
        if keys is None:
            keys = self._windows[rule.id] = {}
        window = keys.get(key)
        if window is None:
            if len(keys) >= MAX_KEYS and not _drop_idle(keys, rule.window, now):
                key = _SHARED_KEY
                window = keys.get(key)
                if window is not None:
                    return window
            window = keys[key] = _Window()
        return window


def _drop_idle(keys: dict[str, _Window], window: float, now: float) -> bool:
    """Drops what has nothing in its window; whether that made room."""
    idle = [key for key, held in keys.items() if not held.slots or held.slots[-1][1] + window <= now]
    for key in idle:
        del keys[key]
    return bool(idle)


def _standing(rule: RequestLimit, window: _Window, now: float) -> Standing:
    remaining = max(0, rule.requests - window.count)
    return Standing(rule.name, rule.requests, remaining, window.until_empty(now, rule.window))

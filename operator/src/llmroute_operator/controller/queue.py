"""The work queue: each key at most once in it, and at most once in work. Sans-IO: clock and waiting are
`workers.py`'s.

A key is *due* at a time, *running*, or both: what is added while its key is in work is looked at again afterwards,
since the work may have begun before the change. Of several times for one key the earliest counts. A key that failed
comes back after a backoff of its own; one success forgets its failures.
"""

import heapq
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from llmroute_operator.controller.backoff import backoff

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    def __init__(self, dice: Callable[[], float]) -> None:
        self._dice = dice
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        """Has an entry for each of `_due`, and left-overs of keys that were taken or moved to an earlier time."""
        self._count = 0
        self._running: set[K] = set()
        self._failures: dict[K, int] = {}

    def depth(self, now: float) -> int:
        """Keys whose time has come and that nobody works on."""
        return sum(due <= now and key not in self._running for key, due in self._due.items())

    @property
    def running(self) -> int:
        """Keys in work."""
        return len(self._running)

    def add(self, key: K, due: float) -> None:
        """Asks for `key` to be worked on once it is `due`."""
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            if key not in self._running:
                self._push(key)

    def take(self, now: float) -> K | None:
        """The key to work on next, or None. It is running until `done` or `failed`."""
        self._drop_leftovers()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._running.add(key)
        return key

    def next_due(self) -> float | None:
        """When `take` will give a key; None where nothing waits."""
        self._drop_leftovers()
        return self._heap[0][0] if self._heap else None

    def done(self, key: K, again: float | None = None) -> None:
        """The work on `key` succeeded; it wants to be looked at `again` then."""
        self._failures.pop(key, None)
        self._end(key, again)

    def failed(self, key: K, now: float) -> float:
        """The work on `key` failed; the answer is for how many seconds it rests, where nothing new is added."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        rest = backoff(failures, self._dice())
        self._end(key, now + rest)
        return rest

    def _end(self, key: K, again: float | None) -> None:
        self._running.remove(key)
        if key in self._due:
            self._push(key)
        if again is not None:
            self.add(key, again)

    def _push(self, key: K) -> None:
        self._count += 1  # first come, first served, among those due at one time
        heapq.heappush(self._heap, (self._due[key], self._count, key))

    def _drop_leftovers(self) -> None:
        while self._heap:
            due, _, key = self._heap[0]
            if key not in self._running and self._due.get(key) == due:
                return
            heapq.heappop(self._heap)

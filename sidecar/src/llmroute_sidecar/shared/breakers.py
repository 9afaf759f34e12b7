"""Breakers of scope Gateway: one that opens tells the others, which look each second.

What is told is that it opened and for how long; that it works again each pod finds out with a probe of its own.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from llmroute_sidecar.policy.breaker import Breaker
from llmroute_sidecar.policy.limits.shared import SharedLimits, Unavailable
from llmroute_sidecar.shared.connection import Answer
from llmroute_sidecar.shared.link import Link, State

LOOK_SECONDS = 1.0


class SharedBreakers:
    """One for a process; the link may change under it. `pod` is this process's name."""

    def __init__(self, limits: SharedLimits, link: Link, pod: str) -> None:
        self.link = link
        self._limits = limits
        self._pod = pod
        self._loop = asyncio.get_running_loop()
        self._breakers: Mapping[str, Breaker] = {}
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def watch(self, breakers: Mapping[str, Breaker]) -> None:
        """These from now on, by their upstreams' ids."""
        for breaker in self._breakers.values():
            breaker.on_open = None
        self._breakers = breakers
        for name, breaker in breakers.items():
            breaker.on_open = self._teller(name)

    def close(self) -> None:
        self._timer.cancel()
        self.watch({})

    def _teller(self, name: str) -> Callable[[float], None]:
        def on_open(seconds: float) -> None:
            with suppress(Unavailable):  # the others will find out for themselves
                self.link.ask(self._limits.open(name, self._pod, seconds), lambda _: None)

        return on_open

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        names = list(self._breakers)
        if not names or self.link.state is not State.UP:
            return

        def on_answer(answer: Answer) -> None:
            if isinstance(answer, list):
                self._hear(names, answer)

        with suppress(Unavailable):
            self.link.ask(self._limits.opened(names), on_answer)

    def _hear(self, names: list[str], answer: list[bytes | int]) -> None:
        now = self._loop.time()
        for name, by, left in zip(names, answer[0::2], answer[1::2], strict=True):
            breaker = self._breakers.get(name)
            if breaker is not None and by and by != self._pod.encode() and isinstance(left, int):
                breaker.open_for(left / 1000, now)

"""List, then watch, for ever: what every watch of our own does alike. What is listed and what an event means are the
follower's; this owns signs of life, backoff, and when a list is due again.

It is due where the API server refuses to go on from where the watch was, at once if that is only too old: unless it
is so again and again, for a list of thousands is dear to an API server that cannot keep up. One that is overloaded is
asked for no list. A watch that ends as soon as it began (a proxy's, say) is a failure like any other.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from typing import Protocol

from llmroute_operator.controller.api_server import ClusterError, Refused, Unreachable
from llmroute_operator.controller.backoff import backoff
from llmroute_operator.controller.life import SignsOfLife

_logger = logging.getLogger(__name__)

RETRY_MOST_SECONDS = 5.0
SHORTEST_SECONDS = 1.0
"""Of a watch without an event. The API server's are a hundred times as long, and have bookmarks."""


class Follower(Protocol):
    async def read_all(self) -> str:
        """Reads all there is, and tells of what went meanwhile; the resourceVersion to watch from."""
        ...

    def watch(self, since: str) -> AsyncIterator[str]:
        """Handles each event; what comes out is the resourceVersion after it."""
        ...


async def follow(follower: Follower, name: str, life: SignsOfLife) -> None:
    """`name` is what its signs of life go by."""
    failures = 0
    since: str | None = None
    while True:
        began, told = float("inf"), False
        try:
            if since is None:
                since = await follower.read_all()
                life.heard(name)
            began = time.monotonic()
            async for version in follower.watch(since):
                life.heard(name)
                since, told = version, True
            if not _held(began, told):
                raise Unreachable("the watch ended as soon as it began")
            life.heard(name)
            failures = 0
        except ClusterError as error:
            life.moved(name)
            failures = 1 if _held(began, told) else failures + 1
            if isinstance(error, Refused) and not error.is_overload:
                since = None
                if error.is_too_old and failures == 1:
                    continue
            rest = backoff(failures, random.random(), RETRY_MOST_SECONDS)  # noqa: S311 - jitter
            _logger.warning(
                "watch failed",
                extra={"fields": {"watch": name, "error": str(error), "retry_in_seconds": round(rest, 1)}},
            )
            await asyncio.sleep(rest)


def _held(began: float, told: bool) -> bool:
    """Whether a watch was one: what comes then is no failure in a row with those before."""
    return told or time.monotonic() - began >= SHORTEST_SECONDS

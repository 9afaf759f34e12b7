"""List, then watch, for ever: what every watch of our own does alike. What is listed and what an event means are the
follower's; this owns signs of life, backoff, and when a list is due again."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Protocol

from llmroute_operator.controller.api_server import ClusterError, Refused
from llmroute_operator.controller.backoff import backoff
from llmroute_operator.controller.life import SignsOfLife

_logger = logging.getLogger(__name__)

RETRY_MOST_SECONDS = 5.0


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
        try:
            if since is None:
                since = await follower.read_all()
            life.seen(name)
            async for version in follower.watch(since):
                life.seen(name)
                failures = 0
                since = version
            life.seen(name)
        except ClusterError as error:
            life.seen(name)
            if isinstance(error, Refused):
                since = None
                if error.is_too_old:
                    continue
            failures += 1
            rest = backoff(failures, random.random(), RETRY_MOST_SECONDS)  # noqa: S311 - jitter
            _logger.warning(
                "watch failed",
                extra={"fields": {"watch": name, "error": str(error), "retry_in_seconds": round(rest, 1)}},
            )
            await asyncio.sleep(rest)

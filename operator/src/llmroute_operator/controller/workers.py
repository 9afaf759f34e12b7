"""Workers on the queue: brings the clock and the waiting that `queue.py` leaves out, and outlives what fails."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from llmroute_operator.controller.cluster import ClusterError
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.queue import WorkQueue
from llmroute_operator.controller.route import GatewayKey

_logger = logging.getLogger(__name__)

Reconcile = Callable[[GatewayKey], Awaitable[float | None]]
"""Brings one gateway to what it should be; the answer is in how many seconds it wants to be looked at again."""


class Workers:
    def __init__(self, reconcile: Reconcile, metrics: Metrics) -> None:
        self._reconcile = reconcile
        self._metrics = metrics
        self._queue: WorkQueue[GatewayKey] = WorkQueue(random.random)
        self._news = asyncio.Event()

    @property
    def depth(self) -> int:
        return self._queue.depth(time.monotonic())

    @property
    def running(self) -> int:
        return self._queue.running

    def add(self, keys: Iterable[GatewayKey]) -> None:
        """Asks for each of `keys` to be reconciled. Nothing is done before `run`."""
        now = time.monotonic()
        for key in keys:
            self._queue.add(key, now)
        self._news.set()

    async def run(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = self._queue.take(time.monotonic())
            if key is None:
                await self._wait()
            else:
                await self._work_on(key)

    async def _wait(self) -> None:
        self._news.clear()
        due = self._queue.next_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                await self._news.wait()

    async def _work_on(self, key: GatewayKey) -> None:
        started = time.monotonic()
        try:
            again = await self._reconcile(key)
        except Exception as error:  # one gateway's trouble must not stop the others
            ended = time.monotonic()
            self._metrics.reconciled("error", ended - started)
            rest = self._queue.failed(key, ended)
            _logger.log(
                logging.WARNING if isinstance(error, ClusterError) else logging.ERROR,
                "reconcile failed",
                exc_info=not isinstance(error, ClusterError),
                extra={"fields": {"gateway": str(key), "error": str(error), "retry_in_seconds": round(rest, 1)}},
            )
        else:
            ended = time.monotonic()
            self._metrics.reconciled("success", ended - started)
            self._queue.done(key, None if again is None else ended + again)
            self._news.set()  # a key that was added meanwhile is due now, and others may wait longer than that

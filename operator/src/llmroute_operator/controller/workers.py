"""Workers on the queue: brings the clock and the waiting that `queue.py` leaves out, and outlives what fails."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

from llmroute_operator.controller.api_server import ClusterError
from llmroute_operator.controller.metrics import ReconcileResult
from llmroute_operator.controller.queue import WorkQueue

_logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
RESTS_KEPT = 2048


class Workers(Generic[K]):
    """`work` does what is to be done for one key; its answer is in how many seconds it wants to be called again. `what`
    is the word for it in the log. After it is done a key rests for `rest_seconds`, whatever comes: a storm of changes
    costs what its first and its last one do."""

    def __init__(
        self,
        what: str,
        work: Callable[[K], Awaitable[float | None]],
        worked: Callable[[ReconcileResult, float], None] = lambda _result, _seconds: None,
        rest_seconds: float = 0.0,
    ) -> None:
        self._what = what
        self._do = work
        self._worked = worked
        self._rest_seconds = rest_seconds
        self._rests: dict[K, float] = {}
        """Until when."""
        self._held_back: set[K] = set()
        """Keys that are due but for their rest."""
        self._queue: WorkQueue[K] = WorkQueue(random.random)
        self._news = asyncio.Event()

    @property
    def depth(self) -> int:
        return self._queue.depth(time.monotonic()) + len(self._held_back)

    @property
    def running(self) -> int:
        return self._queue.running

    def add(self, keys: Iterable[K], after: float = 0.0) -> None:
        """Asks for each of `keys` to be worked on in `after` seconds at the latest. Nothing is done before `run`."""
        due = time.monotonic() + after
        for key in keys:
            self._queue.add(key, due)
        self._news.set()

    async def run(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            now = time.monotonic()
            key = self._queue.take(now)
            if key is None:
                await self._wait()
            elif (until := self._rests.pop(key, now)) > now:
                self._rests[key] = until
                self._held_back.add(key)
                self._queue.done(key, until)
            else:
                self._held_back.discard(key)
                await self._work_on(key)

    async def _wait(self) -> None:
        self._news.clear()
        due = self._queue.next_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                await self._news.wait()

    async def _work_on(self, key: K) -> None:
        started = time.monotonic()
        try:
            again = await self._do(key)
        except Exception as error:  # one key's trouble must not stop the others
            ended = time.monotonic()
            self._worked("error", ended - started)
            rest = self._queue.failed(key, ended)
            _logger.log(
                logging.WARNING if isinstance(error, ClusterError) else logging.ERROR,
                "%s failed",
                self._what,
                exc_info=not isinstance(error, ClusterError),
                extra={"fields": {"of": str(key), "error": str(error), "retry_in_seconds": round(rest, 1)}},
            )
        else:
            ended = time.monotonic()
            self._worked("success", ended - started)
            if self._rest_seconds:
                if len(self._rests) > RESTS_KEPT:  # of keys that are no more
                    self._rests = {key: until for key, until in self._rests.items() if until > ended}
                self._rests[key] = ended + self._rest_seconds
            self._queue.done(key, None if again is None else ended + again)
            self._news.set()  # a key that was added meanwhile is due now, and others may wait longer than that

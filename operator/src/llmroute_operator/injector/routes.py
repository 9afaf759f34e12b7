"""The routes of all gateways, as the API server has them: watched, and read anew every so often.

On the controller's watch and store; what is kept of them here is which Secrets each gateway needs.
"""

import asyncio
import contextlib
import logging
import random
import time
from pathlib import Path

from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_operator.controller.api_server import ClusterError, Document
from llmroute_operator.controller.backoff import backoff
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.controller.settings import SILENCE_MAX_SECONDS
from llmroute_operator.controller.store import RouteStore
from llmroute_operator.controller.watch_routes import WATCH, RouteWatch
from llmroute_operator.injector.metrics import Metrics
from llmroute_operator.injector.needs import GatewayNeeds, needs_of
from llmroute_operator.injector.options import WAITING_MAX

_logger = logging.getLogger(__name__)

_RETRY_MOST_SECONDS = 10.0


class Routes:
    def __init__(self, kubeconfig: Path | None, cluster: Cluster, relist_seconds: float, metrics: Metrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._relist_seconds = relist_seconds
        self._store = RouteStore()
        self.life = SignsOfLife([WATCH], time.monotonic, SILENCE_MAX_SECONDS)
        self._relist_wanted = asyncio.Event()
        self._news = asyncio.Condition()
        self._waiting = 0
        self._watch = RouteWatch(
            kubeconfig, [None], cluster, self.life, self._on_event, lambda _: self._relist_wanted.set()
        )
        self.ready = asyncio.Event()
        """Set once all routes are known."""
        metrics.show_routes(lambda: len(self._store), lambda: self.life.silences()[WATCH], lambda: self._watch.began)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run())
            group.create_task(self._relist_always())

    async def needs(self, key: GatewayKey, wait_seconds: float) -> GatewayNeeds:
        """What the gateway's routes need; where there is none yet, one is waited for that long, unless many wait."""
        if not self._store.routes_of(key) and self._waiting < WAITING_MAX:
            await self._wait_for_one(key, wait_seconds)
        return needs_of(route.spec for route in self._store.routes_of(key) if isinstance(route.spec, LLMRouteSpec))

    async def _wait_for_one(self, key: GatewayKey, seconds: float) -> None:
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds), self._news:
                    await self._news.wait_for(lambda: self._store.routes_of(key))
        finally:
            self._waiting -= 1

    async def _on_news(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _on_event(self, kind: str | None, route: Document) -> None:
        if kind == "DELETED":
            self._store.remove(route)
        elif self._store.put(route):
            self._telling = asyncio.create_task(self._on_news())

    async def _relist_always(self) -> None:
        await self._relist_wanted.wait()
        failures = 0
        while True:
            self._relist_wanted.clear()
            self._store.begin_relist(None)
            try:
                self._store.relisted(None, await self._cluster.list_routes(None))
            except ClusterError as error:
                failures += 1
                self._metrics.relisted("error", time.time())
                rest = backoff(failures, random.random(), _RETRY_MOST_SECONDS)  # noqa: S311 - jitter
                _logger.warning("routes cannot be listed", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(rest)
                continue
            failures = 0
            self._metrics.relisted("success", time.time())
            self.ready.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._relist_seconds):
                    await self._relist_wanted.wait()

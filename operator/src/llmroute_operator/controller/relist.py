"""The full relist: reads all routes and ConfigMaps from the API server, and has every gateway looked at.

The net below the watches: what one of them missed, a route deleted while nobody looked, a ConfigMap left behind. Done
first of all at the start, then every so often, and soon after a watch has begun anew. After the first time, gateways of
which nothing new was found are looked at one by one over a while: a person's edit shall not wait behind all of them.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

from llmroute_operator.controller.api_server import ClusterError
from llmroute_operator.controller.backoff import backoff
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.configmap import gateway_of
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.controller.store import RouteStore

_logger = logging.getLogger(__name__)

RETRY_MOST_SECONDS = 10.0
SPREAD_MOST_SECONDS = 60.0


class Relister:
    """What is listed apart (each namespace that is looked after) is so on its own: one that is gone, or without rights,
    must not keep the others waiting."""

    def __init__(
        self,
        store: RouteStore,
        cluster: Cluster,
        metrics: Metrics,
        scopes: Sequence[str | None],
        every_seconds: float,
        look_at: Callable[[Iterable[GatewayKey], float], None],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._look_at = look_at
        self._wanted = {scope: asyncio.Event() for scope in scopes}
        self._last: dict[str | None, float] = {}
        """When each was read, in seconds since 1970."""

    def want(self, scope: str | None) -> None:
        """Asks for a relist as soon as may be."""
        self._wanted[scope].set()

    def knows(self, key: GatewayKey) -> bool:
        """Whether the store holds all routes of a gateway: whoever compiles before that would drop routes. Once it
        does, the gateway is looked at."""
        return None in self._last or key.namespace in self._last

    async def run(self) -> None:
        """The first one begins when it is wanted: once the routes are watched, so that none is missed in between."""
        async with asyncio.TaskGroup() as group:
            for scope in self._wanted:
                group.create_task(self._keep(scope))

    async def _keep(self, scope: str | None) -> None:
        await self._wanted[scope].wait()
        while True:
            await self._relist_until_done(scope)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds):
                    await self._wanted[scope].wait()

    async def _relist_until_done(self, scope: str | None) -> None:
        failures = 0
        while True:
            try:
                self._wanted[scope].clear()
                await self._relist(scope)
                return
            except ClusterError as error:
                failures += 1
                self._metrics.relisted("error", 0.0)
                rest = backoff(failures, random.random(), RETRY_MOST_SECONDS)  # noqa: S311 - jitter
                _logger.warning(
                    "relist failed", extra={"fields": {"error": str(error), "retry_in_seconds": round(rest, 1)}}
                )
                await asyncio.sleep(rest)

    async def _relist(self, scope: str | None) -> None:
        self._store.begin_relist(scope)
        routes = await self._cluster.list_routes(scope)
        configmaps, _ = await self._cluster.list_configmaps(scope)
        changed = self._store.relisted(scope, routes)
        named = {
            GatewayKey(item["metadata"]["namespace"], gateway)
            for item in configmaps
            if (gateway := gateway_of(item["metadata"]["name"])) is not None
        }
        known = self._store.keys()
        every = named | {key for key in known if scope in (None, key.namespace)}
        at_once = changed if scope in self._last else changed | every
        self._last[scope] = time.time()
        self._look_at(at_once, 0.0)
        later = every - at_once
        spread = min(SPREAD_MOST_SECONDS, self._every_seconds / 2)
        for place, key in enumerate(later):
            self._look_at([key], spread * place / len(later))
        # One that was never read is told by the errors, and by the silence of its watches.
        self._metrics.relisted("success", min(self._last.values()))
        _logger.info("relisted", extra={"fields": {"routes": len(routes), "configmaps": len(configmaps)}})

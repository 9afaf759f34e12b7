"""The controller, put together, from start to end.

kopf's watch of LLMRoutes ─┐                                      ┌─► ConfigMap
full relist ───────────────┼─► store ─► queue ─► workers ─► reconcile
watch of our ConfigMaps ───┤                                      ├─► status of each route ─► store
fleet: pods, asked ────────┘                                      └─► fleet: pods, touched

Beside them, where it is asked for: the keeper of the injector's certificate.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.config import ConfigException

from llmroute_operator.certificates.keeper import CertificateKeeper
from llmroute_operator.certificates.requests import CertificateRequests
from llmroute_operator.controller.api_server import ApiServer, Document, load_configuration
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.fleet.fleet import Fleet, watch_name
from llmroute_operator.controller.health import health_application, serving
from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.reconcile import Reconciler
from llmroute_operator.controller.relist import Relister
from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.controller.settings import (
    RECONCILE_REST_SECONDS,
    SILENCE_MAX_SECONDS,
    CannotStart,
    Settings,
)
from llmroute_operator.controller.store import RouteStore
from llmroute_operator.controller.trouble import routes_in_trouble
from llmroute_operator.controller.watch_configmaps import ConfigMapWatch
from llmroute_operator.controller.watch_routes import WATCH, RouteWatch
from llmroute_operator.controller.workers import Workers
from llmroute_operator.version import VERSION

_logger = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart."""
    try:
        configuration = await load_configuration(settings.kubeconfig)
    except (ConfigException, OSError) as error:
        raise CannotStart(f"no way to the API server: {error}") from None
    api = ApiServer(settings.kubeconfig, configuration)
    try:
        await _run(settings, api)
    finally:
        await api.close()


async def _run(settings: Settings, api: ApiServer) -> None:
    cluster = Cluster(api)
    metrics = Metrics(VERSION)
    configmap_watches = {scope: f"configmaps/{scope}" if scope else "configmaps" for scope in settings.scopes}
    pod_watches = [watch_name(scope) for scope in settings.scopes]
    life = SignsOfLife([WATCH, *configmap_watches.values(), *pod_watches], time.monotonic, SILENCE_MAX_SECONDS)
    store = RouteStore()

    async def reconcile(key: GatewayKey) -> float | None:
        return await reconciler.reconcile(key) if relister.knows(key) else None

    workers = Workers("reconcile", reconcile, metrics.reconciled, RECONCILE_REST_SECONDS)
    state_secret = settings.shared_state.secret if settings.shared_state is not None else None
    fleet = Fleet(api, metrics, life, settings.scopes, settings.touches_per_second, state_secret, workers.add)
    reconciler = Reconciler(
        store,
        cluster,
        metrics,
        fleet,
        lambda: datetime.now(UTC),
        settings.remove_empty_after,
        settings.status_writes,
        workers.add,
        settings.shared_state,
    )
    relister = Relister(store, cluster, metrics, settings.scopes, settings.relist_seconds, workers.add)

    def on_route(kind: str | None, route: Document) -> None:
        workers.add(store.remove(route) if kind == "DELETED" else store.put(route))

    def on_configmap(key: GatewayKey, resource_version: str) -> None:
        if not reconciler.knows(key, resource_version):
            workers.add([key])

    routes = RouteWatch(settings.kubeconfig, settings.scopes, cluster, life, on_route, relister.want)
    configmaps = [ConfigMapWatch(cluster, scope, name, life, on_configmap) for scope, name in configmap_watches.items()]
    metrics.show(lambda: workers.depth, lambda: workers.running, lambda: len(store))
    metrics.show_troubles(lambda: routes_in_trouble(store.all()))
    for watch in (WATCH, *configmap_watches.values(), *pod_watches):
        metrics.show_silence(watch, lambda watch=watch: life.silences()[watch])  # type: ignore[misc]

    async def work() -> None:
        await fleet.until_listed()
        await workers.run(settings.workers)

    parts = [routes.run(), relister.run(), work(), *(watch.run() for watch in configmaps), *fleet.parts()]
    if settings.certificates is not None:
        metrics.show_certificate()
        parts.append(CertificateKeeper(CertificateRequests(api), metrics, settings.certificates).run())
    application = health_application(life, metrics)
    async with serving(application, settings.health_host, settings.health_port):
        try:
            await _until_signal(*parts)
        finally:
            await fleet.close()


async def _until_signal(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all of them until the process is told to end. None ends of itself: one that does is a bug, and is raised."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(part) for part in parts]
    stopping = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *tasks):
        task.cancel()
    await asyncio.gather(stopping, *tasks, return_exceptions=True)
    for task in ended - {stopping}:
        task.result()
    _logger.info("ended")

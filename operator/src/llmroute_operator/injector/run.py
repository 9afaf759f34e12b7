"""The injector, put together, from start to end.

certificate ─┐                              ┌─► refused, with what to do
settings ────┼─► /mutate: read ─► inject ───┤
routes ──────┘                              └─► JSON patch

At SIGTERM it is not ready any more, goes on serving until nobody sends it anything, and ends what is under way.
"""

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from aiohttp import web
from kubernetes.aio.config import ConfigException

from llmroute_operator.controller.api_server import ApiServer, load_configuration
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.settings import CannotStart
from llmroute_operator.injector.certificate import ServingCertificate
from llmroute_operator.injector.metrics import Metrics
from llmroute_operator.injector.options import CUT_SECONDS, Options
from llmroute_operator.injector.routes import Routes
from llmroute_operator.injector.settings import InjectorSettings, parse_settings
from llmroute_operator.injector.watched_file import WatchedFiles
from llmroute_operator.injector.webhook import Webhook, health_application
from llmroute_operator.version import VERSION

_logger = logging.getLogger(__name__)


async def run(options: Options) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart."""
    try:
        configuration = await load_configuration(options.kubeconfig)
    except (ConfigException, OSError) as error:
        raise CannotStart(f"no way to the API server: {error}") from None
    api = ApiServer(options.kubeconfig, configuration)
    try:
        await _Injector(options, Cluster(api)).run()
    finally:
        await api.close()


class _Injector:
    def __init__(self, options: Options, cluster: Cluster) -> None:
        self._options = options
        self._metrics = Metrics(VERSION)
        self._settings: InjectorSettings | None = None
        self._certificate = ServingCertificate()
        self._files = (
            WatchedFiles("certificate", [options.tls_cert, options.tls_key], self._certificate.take, self._metrics),
            WatchedFiles("settings", [options.settings], self._take_settings, self._metrics),
        )
        self._routes = Routes(options.kubeconfig, cluster, options.relist_seconds, self._metrics)
        self._webhook = Webhook(self._settings_now, self._routes, self._metrics)
        self._metrics.show_in_flight(lambda: self._webhook.in_flight)
        self._metrics.show_certificate(lambda: ends.timestamp() if (ends := self._certificate.ends) else 0)
        self._draining = False

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        health = health_application(lambda: not self._routes.life.hanging(), self._why_not_ready, self._metrics)
        options = self._options
        async with _serving(health, options.health_host, options.health_port, "health", None):
            parts: list[Coroutine[Any, Any, None]] = [self._routes.run(), *(one.run() for one in self._files)]
            tasks = [asyncio.create_task(part) for part in parts]
            stopping = asyncio.create_task(stop.wait())
            serving = asyncio.create_task(self._serve(stopping))
            everything: list[asyncio.Task[None]] = [serving, *tasks]
            ended, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in everything:
                task.cancel()
            await asyncio.gather(stopping, *everything, return_exceptions=True)
            for task in ended:
                task.result()
        _logger.info("ended")

    async def _serve(self, stopping: "asyncio.Task[Any]") -> None:
        """Listens once it can answer: before that a refused connection says the same, and sooner."""
        ready = asyncio.create_task(self._until_all_ready())
        await asyncio.wait([ready, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            ready.cancel()
            return
        options = self._options
        application = self._webhook.application()
        async with _serving(application, options.host, options.port, "webhook", self._certificate.context):
            await stopping
            self._draining = True
            _logger.info("draining", extra={"fields": {"seconds": options.drain_seconds}})
            await asyncio.sleep(options.drain_seconds)

    async def _until_all_ready(self) -> bool:
        for event in (*(one.ready for one in self._files), self._routes.ready):
            await event.wait()
        return True

    def _why_not_ready(self) -> str | None:
        if self._draining:
            return "draining"
        certificate, settings = self._files
        for event, reason in (
            (certificate.ready, "no usable certificate yet"),
            (settings.ready, "no usable settings yet"),
            (self._routes.ready, "the routes are not all known yet"),
        ):
            if not event.is_set():
                return reason
        return None

    def _take_settings(self, contents: Sequence[bytes]) -> None:
        self._settings = parse_settings(contents[0].decode(errors="replace"))

    def _settings_now(self) -> InjectorSettings:
        assert self._settings is not None  # nothing listens before
        return self._settings


@contextlib.asynccontextmanager
async def _serving(
    application: web.Application, host: str, port: int, what: str, tls: ssl.SSLContext | None
) -> AsyncIterator[None]:
    """Raises CannotStart where the port is taken. At the end, what is under way is waited for."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=CUT_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls, backlog=512).start()
        except OSError as error:
            raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        _logger.info("listening", extra={"fields": {"what": what, "host": host, "port": runner.addresses[0][1]}})
        yield
    finally:
        await runner.cleanup()

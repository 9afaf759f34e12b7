"""The gateway process: puts the parts together, opens the ports, follows the configuration, and drains when told to
go.

A signal (SIGTERM, SIGINT) begins the drain: `/ready` turns 503 and new calls are refused with `not_ready`, calls and
streams under way go on for at most the grace time, then the process exits with 0. A second signal ends it at once.
"""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import uvicorn

from llmroute_sidecar.config.reload import Reload, Reloader
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.server.admin import admin_app
from llmroute_sidecar.server.connection import ServerLimits
from llmroute_sidecar.server.data_port import DataPort
from llmroute_sidecar.telemetry.log import LogWriter
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.version import VERSION

logger = logging.getLogger("llmroute.gateway")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen and how long to take leave. Ports may be 0: the system chooses."""

    host: str = "127.0.0.1"
    port: int = 8790
    admin_host: str = "127.0.0.1"
    admin_port: int = 8791
    grace: float = 30.0
    """Seconds that calls under way get at the end."""
    limits: ServerLimits = field(default_factory=ServerLimits)


@dataclass(frozen=True, slots=True)
class Listening:
    """The ports that were opened."""

    port: int
    admin_port: int


class _AdminServer(uvicorn.Server):
    """uvicorn without its signal handlers: this process has its own."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield

    @property
    def bound_port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


async def run(
    reloader: Reloader,
    settings: Settings,
    log: LogWriter,
    on_listening: Callable[[Listening], None],
    on_reload: Callable[[Reload], None],
) -> None:
    """Serves until a signal comes and the drain is over. Raises OSError where a port cannot be opened."""
    loop = asyncio.get_running_loop()
    log.attach(loop)
    metrics = Metrics(VERSION)
    gateway = Gateway(metrics, log, loop)
    data_port = DataPort(gateway, metrics, settings.limits, loop)

    def take_over(reload: Reload) -> None:
        metrics.reload(reload.result)
        metrics.config_healthy.set(reload.status.healthy)
        if reload.snapshot is not None:
            gateway.use(reload.snapshot)
            metrics.serves(reload.snapshot.revision, reload.status.since or 0.0)
        _log_reload(reload)
        on_reload(reload)

    first = reloader.tick()
    if first is not None:
        take_over(first)
    gc.collect()
    gc.freeze()  # what was imported stays: later collections need not look at it
    admin = _AdminServer(
        uvicorn.Config(
            admin_app(gateway, metrics, lambda: reloader.status, VERSION),
            host=settings.admin_host,
            port=settings.admin_port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    port = await data_port.listen(settings.host, settings.port)
    admin_task = asyncio.create_task(admin.serve())
    while not admin.started:
        if admin_task.done():
            data_port.shut()
            await admin_task
            raise OSError(f"the admin port {settings.admin_host}:{settings.admin_port} cannot be opened")
        await asyncio.sleep(0.005)
    stop = asyncio.Event()
    _on_signals(loop, stop)
    watch = asyncio.create_task(reloader.watch(take_over))
    logger.info("listening", extra={"fields": {"host": settings.host, "port": port, "admin_port": admin.bound_port}})
    on_listening(Listening(port, admin.bound_port))
    await stop.wait()
    await _drain(gateway, data_port, settings.grace)
    watch.cancel()
    data_port.shut()
    admin.should_exit = True
    await asyncio.gather(watch, admin_task, return_exceptions=True)
    logger.info("stopped")
    log.detach()


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            raise SystemExit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


async def _drain(gateway: Gateway, data_port: DataPort, grace: float) -> None:
    idle = asyncio.Event()
    logger.info("draining", extra={"fields": {"grace_seconds": grace}})
    gateway.drain(idle.set)
    data_port.close_idle()
    try:
        async with asyncio.timeout(grace):
            await idle.wait()
    except TimeoutError:
        logger.warning("the grace time is over; calls under way are cut")


def _log_reload(reload: Reload) -> None:
    status = reload.status
    fields: dict[str, object] = {"revision": status.revision, "wanted_revision": status.wanted_revision}
    rejected = {route.name: route.reason for route in status.routes if not route.accepted}
    if status.error:
        fields["error"] = status.error
    if rejected:
        fields["rejected"] = rejected
    if status.missing_secrets:
        fields["missing_secrets"] = list(status.missing_secrets)
    if status.problems:
        fields["problems"] = list(status.problems)
    if reload.result == "applied":
        logger.info("configuration applied", extra={"fields": fields})
    elif reload.result == "partial":
        logger.warning("configuration applied in part; the rest keeps its last good version", extra={"fields": fields})
    else:
        logger.warning("configuration not applied; the last good one is served", extra={"fields": fields})

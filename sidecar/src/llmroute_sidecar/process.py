"""The gateway process: puts the parts together, opens the ports, follows the configuration, and drains when told to
go.

A signal (SIGTERM, SIGINT) begins the drain: `/ready` turns 503 and new calls are refused with `not_ready`, calls and
streams under way go on for at most the grace time, then the process exits with 0. A second signal ends it at once.
"""

import asyncio
import errno
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmroute_sidecar.config.reload import Reload, Reloader
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.policy.web_pages import LocalHosts
from llmroute_sidecar.server.admin import LIMITS as ADMIN_LIMITS
from llmroute_sidecar.server.admin import AdminPort
from llmroute_sidecar.server.data_port import DataPort
from llmroute_sidecar.server.head import ServerLimits
from llmroute_sidecar.server.port import Port
from llmroute_sidecar.telemetry.held import HeldSeries
from llmroute_sidecar.telemetry.log import LogWriter
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.otlp import Exporter
from llmroute_sidecar.telemetry.otlp_settings import OtlpSettings
from llmroute_sidecar.telemetry.tracing import Tracer
from llmroute_sidecar.telemetry.workers import WorkerSeries
from llmroute_sidecar.upstream.pool import HttpCaller
from llmroute_sidecar.upstream.worker import Workers, WorkerSettings
from llmroute_sidecar.version import VERSION

FLUSH_SECONDS = 3.0
"""What the last spans may take at the end, after all calls."""

SWITCH_SECONDS = 0.0005
"""How long the thread that reads a changed configuration may keep the interpreter from calls; Python's own 5 ms is the
whole pause that a reload is allowed."""
GC_OBJECTS = 20_000
"""New objects after which cycles are looked for. Python's own 700 are a dozen requests in flight, which are then walked
through time and again (a tenth of a request's time); served calls leave no cycles behind, tests hold them to it."""
logger = logging.getLogger("llmroute.gateway")


LOOPBACK = ("127.0.0.1",)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen and how long to take leave. Ports may be 0: the system chooses."""

    host: str = "127.0.0.1"
    port: int = 8790
    admin_hosts: tuple[str, ...] = LOOPBACK
    admin_port: int = 8791
    grace: float = 30.0
    """Seconds that calls under way get at the end."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    litellm: WorkerSettings = field(default_factory=WorkerSettings)
    otlp: OtlpSettings | None = None
    """Where spans go; None: nowhere, and none are made."""
    allow_hosts: tuple[str, ...] = ()
    """Names that are answered to on loopback addresses, beside this machine's own."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses that were opened, with the ports that the system chose."""

    host: str
    port: int
    admin_host: str
    admin_port: int


class CannotListen(Exception):
    """A port could not be opened; the text says which and why."""


class Observer:
    """Is told what happens, on the event loop, after it was logged. This one does nothing with it."""

    def listening(self, listening: Listening) -> None:
        """Both ports are open."""

    def reloaded(self, reload: Reload) -> None:
        """A changed configuration was taken over, or was not. The first time before the ports are open."""

    def draining(self, grace: float) -> None:
        """A signal came; calls under way have `grace` seconds."""


async def run(reloader: Reloader, settings: Settings, log: LogWriter, observer: Observer) -> None:
    """Serves until a signal comes and the drain is over. Raises CannotListen where a port cannot be opened."""
    loop = asyncio.get_running_loop()
    log.attach(loop)
    metrics = Metrics(VERSION)
    workers = Workers(settings.litellm, loop)
    exporter = _exporter(settings.otlp, metrics, loop)
    tracer = None if exporter is None or settings.otlp is None else Tracer(settings.otlp.ratio, exporter.add)
    gateway = Gateway(metrics, log, loop, workers, tracer)
    metrics.registry.register(
        WorkerSeries(lambda: [(worker.name, worker.resident_bytes, worker.restarts) for worker in workers])
    )
    local_hosts = LocalHosts(settings.allow_hosts)
    data_port = Port(DataPort(gateway, metrics, loop), settings.limits, loop, local_hosts)
    admin = AdminPort(gateway, metrics, lambda: reloader.status, VERSION, workers, loop)
    admin_port = Port(admin, ADMIN_LIMITS, loop, local_hosts)
    metrics.registry.register(
        HeldSeries(
            lambda: len(asyncio.all_tasks(loop)), lambda: data_port.open_connections, lambda: gateway.open_connections
        )
    )

    def take_over(reload: Reload) -> None:
        if reload.snapshot is not None:
            gateway.use(reload.snapshot)
            metrics.serves(reload.snapshot.revision, reload.status.since or 0.0)
        metrics.reload(reload.result)
        metrics.config_healthy.set(reload.status.healthy)
        _log_reload(reload)
        observer.reloaded(reload)

    first = reloader.tick()
    if first is not None:
        take_over(first)
    gc.collect()
    gc.freeze()  # what was imported stays: later collections need not look at it
    gc.set_threshold(GC_OBJECTS, 20, 100)
    sys.setswitchinterval(SWITCH_SECONDS)
    port = await _open(data_port, (settings.host,), settings.port)
    try:
        admin_number = await _open(admin_port, settings.admin_hosts, settings.admin_port)
    except CannotListen:
        data_port.shut()
        raise
    stop = asyncio.Event()
    _on_signals(loop, stop)
    watch = asyncio.create_task(reloader.watch(take_over))
    logger.info("listening", extra={"fields": {"host": settings.host, "port": port, "admin_port": admin_number}})
    observer.listening(Listening(settings.host, port, settings.admin_hosts[0], admin_number))
    await stop.wait()
    observer.draining(settings.grace)
    await _drain(gateway, data_port, settings.grace)
    watch.cancel()
    data_port.shut()
    admin_port.close_idle()
    await asyncio.gather(watch, return_exceptions=True)
    await gateway.end()
    await workers.end()
    if exporter is not None:
        await exporter.close(FLUSH_SECONDS)
    admin_port.shut()
    logger.info("stopped")
    log.detach()


def _exporter(otlp: OtlpSettings | None, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> Exporter | None:
    if otlp is None:
        return None
    try:
        caller = HttpCaller(otlp, loop)
    except (ssl.SSLError, ValueError):
        logger.warning("no traces are exported: a certificate of OTEL_EXPORTER_OTLP_* is no good")
        return None
    exporter = Exporter(caller, otlp, VERSION, metrics, loop)
    exporter.start()
    return exporter


async def _open(port: Port, hosts: Sequence[str], number: int) -> int:
    """The number that was opened. Raises CannotListen."""
    try:
        return await port.listen(hosts, number)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why += "; end what listens there, or choose others with --port and --admin-port"
        raise CannotListen(f"cannot listen on {' and '.join(hosts)} port {number}: {why}") from None


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            raise SystemExit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


async def _drain(gateway: Gateway, data_port: Port, grace: float) -> None:
    idle = asyncio.Event()
    logger.info("draining", extra={"fields": {"grace_seconds": grace}})
    gateway.drain(idle.set)
    data_port.close_idle()
    try:
        async with asyncio.timeout(grace):
            await idle.wait()
            while data_port.unsent:  # noqa: ASYNC110 - a transport offers no event for it
                await asyncio.sleep(0.01)
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
    extra: dict[str, object] = {"fields": fields}
    if reload.result == "applied":
        logger.info("configuration applied", extra=extra)
    elif reload.result == "partial":
        logger.warning("configuration applied in part; the rest keeps its last good version", extra=extra)
    elif status.revision is not None:
        logger.warning("configuration not applied; the last good one is served", extra=extra, exc_info=reload.fault)
    else:
        logger.warning("there is no configuration yet; calls are answered 503", extra=extra, exc_info=reload.fault)

"""`/healthz` and `/metrics`, for kubelet and Prometheus."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.settings import CannotStart

_logger = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def health_application(life: SignsOfLife, metrics: Metrics) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        """200 while every watch moves, 503 once one has hung for longer than it can. `seconds_since` it got data."""
        hanging = life.hanging()
        seconds = {watch: round(silence, 1) for watch, silence in life.silences().items()}
        return web.json_response({"hanging": hanging, "seconds_since": seconds}, status=503 if hanging else 200)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": METRICS_TYPE})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/metrics", show_metrics)])
    return application


@asynccontextmanager
async def serving(application: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serves on `port` (0: any free one); the value is the port. Raises CannotStart where it is taken."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise CannotStart(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        found: int = runner.addresses[0][1]
        _logger.info("listening", extra={"fields": {"host": host, "port": found}})
        yield found
    finally:
        await runner.cleanup()

"""A gateway in this process with short limits in time, for what a person would wait half a minute for."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmroute_sidecar.config.directory import DirectorySource
from llmroute_sidecar.config.reload import Reloader
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.policy.web_pages import LocalHosts
from llmroute_sidecar.server.data_port import DataPort
from llmroute_sidecar.server.head import ServerLimits
from llmroute_sidecar.server.port import Port
from llmroute_sidecar.telemetry.log import LogWriter
from llmroute_sidecar.telemetry.metrics import Metrics
from tests.gateway_process import KEY, spec, write_config, write_secret

SHORT = ServerLimits(head_seconds=0.2, body_seconds=0.2, keep_alive_seconds=0.2)


@contextmanager
def running_with_short_limits(
    folder: Path, limits: ServerLimits = SHORT, route: dict[str, Any] | None = None
) -> Iterator[int]:
    """The data port's number."""
    write_secret(folder / "secrets", "clients", {"app": KEY})
    write_config(folder / "config", {"chat": route or spec("mock://local")})
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    port = 0
    ready = threading.Event()

    async def main() -> None:
        nonlocal port
        sink = os.open(os.devnull, os.O_WRONLY)
        metrics = Metrics("test")
        gateway = Gateway(metrics, LogWriter(sink), loop)
        first = Reloader(DirectorySource(folder / "config", folder / "secrets")).tick()
        assert first is not None
        assert first.snapshot is not None
        gateway.use(first.snapshot)
        data_port = Port(DataPort(gateway, metrics, loop), limits, loop, LocalHosts())
        port = await data_port.listen(["127.0.0.1"], 0)
        ready.set()
        await stop.wait()
        data_port.shut()
        for upstream in gateway.serving.live.values() if gateway.serving else ():
            if upstream.caller is not None:
                upstream.caller.close()
        await asyncio.sleep(0)
        os.close(sink)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()

"""A way to the real API server that can be made to fail: refuse, cut, or end watches as soon as they begin.

What is not made to fail is handed on as it comes, with the caller's own credentials. Faults are those that API servers
and what stands before them do to a client: 429 and 503, 410, an answer that breaks off, a watch that is empty.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.cluster.control_plane import ControlPlane, write_kubeconfig


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    selector: str
    """Of labels."""
    is_watch: bool
    at: float = field(compare=False)
    """By the monotonic clock."""


@dataclass(frozen=True)
class Fault:
    """An answer in the API server's stead. Status 200: a watch that ends at once."""

    status: int
    reason: str = ""
    after: bool = False
    """The API server has done what was asked; only its answer is lost."""


@dataclass
class Between:
    """`fails` is asked before each request."""

    fails: Callable[[Asked], Fault | None] = lambda _: None
    seen: list[Asked] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def cut(self) -> None:
        """All that is under way, watches most of all."""
        for task in list(self._open):
            self._loop.call_soon_threadsafe(task.cancel)


@contextmanager
def between(plane: ControlPlane, account: str) -> Iterator[tuple[Between, Path]]:
    """And a kubeconfig by which a service account takes this way."""
    made = Between()
    thread = threading.Thread(target=made._loop.run_forever, daemon=True)
    thread.start()
    stop = asyncio.Event()
    port: asyncio.Future[int] = made._loop.create_future()
    serving = asyncio.run_coroutine_threadsafe(_serve(made, plane, port, stop), made._loop)
    try:
        number = asyncio.run_coroutine_threadsafe(asyncio.wait_for(port, 20), made._loop).result(30)
        direct = plane.kubeconfig_for(account)
        token = json.loads(plane.kubectl("config", "view", "--raw", "-o", "json", f"--kubeconfig={direct}").stdout)
        path = direct.with_suffix(f".{number}.kubeconfig")
        write_kubeconfig(path, f"http://127.0.0.1:{number}", plane.ca_file, token["users"][0]["user"]["token"])
        yield made, path
    finally:
        made._loop.call_soon_threadsafe(stop.set)
        serving.result(30)
        made._loop.call_soon_threadsafe(made._loop.stop)
        thread.join(10)
        made._loop.close()


async def _serve(made: Between, plane: ControlPlane, port: "asyncio.Future[int]", stop: asyncio.Event) -> None:
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(plane.url, connector=connector, auto_decompress=False) as session:

        async def answer(request: web.Request) -> web.StreamResponse:
            return await _answer(made, session, request)

        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.set_result(runner.addresses[0][1])
        await stop.wait()
        await runner.cleanup()


async def _answer(made: Between, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
    query = request.query
    asked = Asked(request.method, request.path, query.get("labelSelector", ""), "watch" in query, time.monotonic())
    made.seen.append(asked)
    fault = made.fails(asked)
    if fault is not None and not fault.after:
        return _refusal(fault)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
    task = asyncio.current_task()
    assert task is not None
    made._open.add(task)
    try:
        async with session.request(
            request.method,
            request.rel_url,
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as found:
            if fault is not None:
                await found.read()
                assert request.transport is not None
                request.transport.abort()
                return web.Response(status=500)
            response = web.StreamResponse(status=found.status)
            for name in ("Content-Type", "Content-Encoding", "Date", "Retry-After"):
                if name in found.headers:
                    response.headers[name] = found.headers[name]
            await response.prepare(request)
            async for chunk in found.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
    except (asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    finally:
        made._open.discard(task)


def _refusal(fault: Fault) -> web.Response:
    if fault.status == 200:
        return web.Response(content_type="application/json")
    status = {"kind": "Status", "apiVersion": "v1", "code": fault.status, "reason": fault.reason, "message": "no"}
    headers = {"Retry-After": "1"} if fault.status in (429, 503) else {}
    return web.json_response(status, status=fault.status, headers=headers)

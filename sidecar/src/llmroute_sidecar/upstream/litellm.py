"""Calling a `litellm://` upstream: HTTP/1.1 as to any other (pool, streaming, back pressure and cancellation are
`pool.py`'s and `http_connection.py`'s), over connections to the upstream's own worker.

What litellm must know beside the client's body (provider, model, credential, base URL) goes in the body's first line,
with each request: a worker is told nothing by its environment or arguments, and a changed route needs no new one. Of
the client's headers none go on.
"""

import asyncio
from collections.abc import Callable

import msgspec

from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.upstream.exchange import OutgoingRequest
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.pool import HttpCaller
from llmroute_sidecar.upstream.worker import Worker, Workers

_BACKSTOP_SECONDS = 5.0
"""How much later than the gateway litellm itself gives a call up."""


class LitellmCaller(HttpCaller):
    """Calls one litellm:// upstream (`Caller` in exchange.py)."""

    def __init__(self, upstream: Upstream, workers: Workers, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(upstream, loop)
        self._path = b""
        self._head_lines = b"host: worker\r\ncontent-type: application/x-llmroute-call\r\n"
        self._workers = workers
        self.worker: Worker = workers.of(upstream)
        self.worker.callers.add(self)
        self._parameters = _parameters(upstream)
        self._own_headers = {name.lower(): value for name, value in upstream.headers}

    async def open(self, request: OutgoingRequest, deadline: float, *, fresh: bool = False) -> HttpConnection:
        headers = dict(line.split(": ", 1) for line in request.id_lines.decode("ascii").splitlines())
        line = msgspec.json.encode(
            {**self._parameters, "model": request.model, "headers": {**headers, **self._own_headers}}
        )
        told = OutgoingRequest(request.path, [], line + b"\n" + request.body, request.model, request.stream)
        return await super().open(told, deadline, fresh=fresh)

    async def _dial(self, make: Callable[[], HttpConnection]) -> HttpConnection:
        self.worker.callers.add(self)  # a call that began before its route went may come late
        return await self.worker.connect(make)

    def _ended(self, connection: HttpConnection) -> None:
        self.worker.used()
        super()._ended(connection)

    def _give_place(self) -> None:
        super()._give_place()
        self._leave_worker()

    def close(self) -> None:
        super().close()
        self._leave_worker()

    def _leave_worker(self) -> None:
        """The last one to leave ends the process."""
        if self._closing and not self.open_connections:
            self.worker.callers.discard(self)
            if not self.worker.callers:
                self._workers.dismiss(self.worker)


def _parameters(upstream: Upstream) -> dict[str, object]:
    """The `Parameters` of litellm_worker/request.py, less what each request has of its own."""
    more = upstream.litellm
    return {
        "provider": upstream.url.host,
        "api_key": upstream.credential,
        "timeout": upstream.request_timeout + _BACKSTOP_SECONDS,
        "api_base": more.api_base if more else None,
        "api_version": more.api_version if more else None,
        "region": more.region if more else None,
        "drop_params": more.drop_params if more else False,
    }

"""The data port: which path goes where, and the listening socket with its drain.

Proxied POSTs go to the pipeline; the small endpoints are answered on the spot; everything else is refused by the
error table.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from llmroute_sidecar.pipeline.body import JSON_PATHS
from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import Answer, ErrorCode
from llmroute_sidecar.pipeline.form import FORM_PATHS
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.policy.web_pages import LocalHosts, is_loopback, not_answered_to
from llmroute_sidecar.server import endpoints
from llmroute_sidecar.server.connection import Connection
from llmroute_sidecar.server.head import ServerLimits
from llmroute_sidecar.server.room import Room
from llmroute_sidecar.server.turn import Turn
from llmroute_sidecar.telemetry.metrics import Metrics

_KNOWN_POSTS = JSON_PATHS | FORM_PATHS
_READING = ("GET", "HEAD")


class DataPort:
    """Serves the data port (`Handler` in connection.py)."""

    def __init__(
        self,
        gateway: Gateway,
        metrics: Metrics,
        limits: ServerLimits,
        loop: asyncio.AbstractEventLoop,
        local_hosts: LocalHosts,
    ) -> None:
        self._gateway = gateway
        self._limits = limits
        self._loop = loop
        self._connections: set[Connection] = set()
        self._room = Room(limits.bodies)
        self._local_hosts: LocalHosts | None = local_hosts
        self._server: asyncio.Server | None = None
        self._open_endpoints: Mapping[str, Callable[[Call], Answer]] = {
            "/health": lambda _: endpoints.health(),
            "/ready": lambda _: endpoints.ready(gateway),
            "/metrics": lambda _: endpoints.metrics(metrics),
            "/v1/circuit-breakers": lambda _: endpoints.circuit_breakers(gateway, loop.time()),
        }

    async def listen(self, host: str, port: int) -> int:
        """Opens the port and returns its number (of use with port 0). Raises OSError."""
        self._server = await self._loop.create_server(
            cast("Callable[[], asyncio.Protocol]", self._accept), host, port, backlog=2048, start_serving=False
        )
        opened: Any = self._server  # uvloop's, whose sockets are a list
        addresses = [one.getsockname() for one in opened.sockets]
        if not all(is_loopback(address[0]) for address in addresses):
            self._local_hosts = None
        await opened.start_serving()
        bound: int = addresses[0][1]
        return bound

    def _accept(self) -> Connection:
        return Connection(self, self._limits, self._loop, self._connections, self._room)

    def close_idle(self) -> None:
        """Connections without a request are closed; those with one are closed after their answer."""
        for connection in list(self._connections):
            connection.drain()

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def unsent(self) -> bool:
        """Whether a last answer is still on its way to a client."""
        return any(connection.unsent for connection in self._connections)

    def shut(self) -> None:
        """No more connections; what is still open is cut."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cut()

    # -- Handler -----------------------------------------------------------------------------------------------------

    def template(self, method: str, path: str) -> str:
        if path in _KNOWN_POSTS or path in self._open_endpoints or path == "/v1/models":
            return path
        return "/v1/*" if method == "POST" and path.startswith("/v1/") else "other"

    def begin(self, call: Call) -> None:
        self._gateway.begin(call)

    def screen(self, call: Call) -> Answer | None:
        if self._local_hosts is not None:
            for name, value in call.read_here:
                if name == b"host" and not self._local_hosts.answer_to(value):
                    return self._gateway.refuse(call, "host_not_allowed", not_answered_to(value))
        path, method = call.path, call.method
        if path in self._open_endpoints:
            return None if method in _READING else self._not_allowed(call, "GET, HEAD")
        refused = self._gateway.screen(call)
        if refused is not None or (method == "POST" and path in _KNOWN_POSTS):
            return refused
        if path == "/v1/models":
            return None if method in _READING else self._not_allowed(call, "GET, HEAD")
        if path in _KNOWN_POSTS:
            return self._not_allowed(call, "POST")
        if method == "POST" and path.startswith("/v1/") and path != "/v1/" and not path.startswith("/v1/v1/"):
            return None
        return self._gateway.refuse(call, "unknown_url", f"there is no {method} {path[:200]} here{_meant(path)}")

    def _not_allowed(self, call: Call, allowed: str) -> Answer:
        message = f"{call.path} has no {call.method}, only {allowed}"
        return self._gateway.refuse(call, "method_not_allowed", message, headers=[(b"allow", allowed.encode())])

    def serve(self, call: Call, reply: Turn) -> Coroutine[None, None, None]:
        endpoint = self._open_endpoints.get(call.path)
        if endpoint is None and call.path == "/v1/models":
            endpoint = endpoints.models
        # The gateway's own coroutine is handed on as it is: one around it would cost every call.
        return self._gateway.serve(call, reply) if endpoint is None else self._answer(call, reply, endpoint)

    async def _answer(self, call: Call, reply: Turn, endpoint: Callable[[Call], Answer]) -> None:
        self._gateway.answer(call, reply, endpoint)

    def refuse(self, call: Call, code: ErrorCode, message: str) -> Answer:
        return self._gateway.refuse(call, code, message, retry_after=1.0 if code == "overloaded" else None)

    def close(self, call: Call, status: int) -> None:
        self._gateway.close(call, status)

    def draining(self) -> bool:
        return self._gateway.draining


def _meant(path: str) -> str:
    """What to do, where a client's base URL is the likely mistake: OpenAI's SDKs add no `/v1`, Anthropic's do."""
    if path.startswith("/v1/v1/"):
        return "; this client adds /v1 itself, so its base URL must end without it"
    if f"/v1{path}" in _KNOWN_POSTS or path == "/models":
        return f"; did you mean /v1{path}? The base URL of OpenAI's SDKs ends with /v1"
    return ""

"""The data port: which path goes where.

Proxied POSTs go to the pipeline; the small endpoints are answered on the spot; everything else is refused by the
error table.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from llmroute_sidecar.pipeline.body import JSON_PATHS
from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import Answer, ErrorCode
from llmroute_sidecar.pipeline.form import FORM_PATHS
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.server import endpoints
from llmroute_sidecar.server.turn import Turn
from llmroute_sidecar.telemetry.metrics import Metrics

_KNOWN_POSTS = JSON_PATHS | FORM_PATHS
_READING = ("GET", "HEAD")


class DataPort:
    """Serves the data port (`Handler` in connection.py)."""

    def __init__(self, gateway: Gateway, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._gateway = gateway
        self._open_endpoints: Mapping[str, Callable[[Call], Answer]] = {
            "/health": lambda _: endpoints.health(),
            "/ready": lambda _: endpoints.ready(gateway),
            "/metrics": lambda _: endpoints.metrics(metrics),
            "/v1/circuit-breakers": lambda _: endpoints.circuit_breakers(gateway, loop.time()),
        }

    # -- Handler -----------------------------------------------------------------------------------------------------

    def template(self, method: str, path: str) -> str:
        if path in _KNOWN_POSTS or path in self._open_endpoints or path == "/v1/models":
            return path
        return "/v1/*" if method == "POST" and path.startswith("/v1/") else "other"

    def begin(self, call: Call) -> None:
        self._gateway.begin(call)

    def screen(self, call: Call) -> Answer | None:
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

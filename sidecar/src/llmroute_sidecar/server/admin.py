"""The admin port: for those who look after the gateway. It only reads.

`/` is a page for people (page.py) over what follows, `/docs` one that tells what there is to ask, from `/openapi.json`.
`/status` tells what is served and why (status.py); listings.py has `/models`, `/limits` and `/requests`; `/health`,
`/ready`, `/v1/circuit-breakers` and `/metrics` are the data port's own.

It is served as the data port is (connection.py), by a table of paths: a web framework for it was a fifth of the
gateway's memory and two fifths of its start. Nothing that is asked here is counted or logged.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

import msgspec

from llmroute_sidecar.config.reload import ReloadStatus
from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import JSON, Answer, ErrorCode, error
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.server import endpoints, listings
from llmroute_sidecar.server.head import ServerLimits
from llmroute_sidecar.server.openapi import Described, document
from llmroute_sidecar.server.page import page
from llmroute_sidecar.server.status import Status, status_of
from llmroute_sidecar.server.turn import Turn
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.upstream.worker import Workers

LIMITS = ServerLimits(connections=256, body=64 * 1024, bodies=1024 * 1024)
"""Who looks sends no body; a browser, a controller and some scrapers hold a few connections each."""
_ALLOWED = ("GET", "HEAD")
logger = logging.getLogger("llmroute.admin")


@dataclass(frozen=True, slots=True)
class _Served:
    answer: Callable[[], Answer]
    words: str = ""
    """For /openapi.json; a page for people has none and is left out there."""
    answers: type[msgspec.Struct] | None = None


class AdminPort:
    """Answers by a table of paths (`Handler` in connection.py)."""

    def __init__(
        self,
        gateway: Gateway,
        metrics: Metrics,
        reload_status: Callable[[], ReloadStatus],
        version: str,
        workers: Workers,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        def status() -> Status:
            return status_of(gateway, reload_status(), version, workers)

        self._paths: Mapping[str, _Served] = {
            "/": _Served(lambda: page("page.html")),
            "/docs": _Served(lambda: page("docs.html")),
            "/openapi.json": _Served(lambda: self._document(version)),
            "/status": _Served(
                lambda: _json(status()), "What is served, since when, and what is wrong with it.", Status
            ),
            "/models": _Served(
                lambda: _json(listings.models(gateway)), "Each model and where it goes.", listings.Models
            ),
            "/limits": _Served(lambda: _json(listings.limits(gateway)), "What is left of each limit.", listings.Limits),
            "/requests": _Served(
                lambda: _json(listings.requests(gateway)),
                "The last hundred calls, newest first, without their content.",
                listings.Requests,
            ),
            "/health": _Served(endpoints.health, "The process lives."),
            "/ready": _Served(
                lambda: endpoints.ready(gateway),
                "200 once there is a configuration, 503 before and while draining.",
            ),
            "/v1/circuit-breakers": _Served(
                lambda: endpoints.circuit_breakers(gateway, loop.time()),
                "Each upstream's breaker.",
                endpoints.BreakerViews,
            ),
            "/metrics": _Served(lambda: endpoints.metrics(metrics), "Prometheus metrics."),
        }

    def _document(self, version: str) -> Answer:
        told = (Described(path, one.words, one.answers) for path, one in self._paths.items() if one.words)
        return Answer(200, [JSON], document(version, told))

    # -- Handler -----------------------------------------------------------------------------------------------------

    def template(self, method: str, path: str) -> str:  # noqa: ARG002
        return path if path in self._paths else "other"

    def begin(self, call: Call) -> None:
        """It is counted nowhere."""

    def screen(self, call: Call) -> Answer | None:
        if call.path not in self._paths:
            there = "calls to models go to the data port" if call.path.startswith("/v1/") else "/docs has what is"
            return error("unknown_url", f"the admin port has no {call.method} {call.path[:200]}; {there}")
        if call.method not in _ALLOWED:
            message = f"{call.path} has no {call.method}, only GET, HEAD"
            return error("method_not_allowed", message, headers=[(b"allow", b"GET, HEAD")])
        return None

    def serve(self, call: Call, reply: Turn) -> Coroutine[None, None, None]:
        return self._answer(self._paths[call.path], reply)

    async def _answer(self, served: _Served, reply: Turn) -> None:
        try:
            answer = served.answer()
        except Exception:
            logger.exception("the admin port failed on a request")
            answer = error("internal_error", "the gateway failed on this request; its log says where")
        reply.whole(answer.status, answer.headers, answer.body)

    def refuse(self, call: Call, code: ErrorCode, message: str) -> Answer:  # noqa: ARG002
        return error(code, message, retry_after=1.0 if code == "overloaded" else None)

    def close(self, call: Call, status: int) -> None:
        """Nothing is kept of it."""

    def draining(self) -> bool:
        return False  # it tells of the drain to its end


def _json(view: msgspec.Struct) -> Answer:
    return Answer(200, [JSON], msgspec.json.encode(view))

"""The admin port: a FastAPI app for those who look after the gateway. It only reads.

`/` is a page for people (page.py) over what follows, `/docs` one that tells what there is to ask. `/status` tells what
is served and why; listings.py has `/models`, `/limits` and `/requests`; `/health`, `/ready`, `/v1/circuit-breakers` and
`/metrics` are the data port's own.
"""

import asyncio
from collections.abc import Callable, Container

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from llmroute_sidecar.config.reload import ReloadStatus
from llmroute_sidecar.pipeline.errors import Answer, error
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.policy.web_pages import LocalHosts, not_answered_to
from llmroute_sidecar.server import endpoints
from llmroute_sidecar.server.listings import add_listings
from llmroute_sidecar.server.page import page
from llmroute_sidecar.telemetry.log import timestamp
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.upstream.worker import Workers


class RouteState(BaseModel):
    name: str
    accepted: bool
    """False: its newest version was rejected, and the last good one (if there is one) is served."""
    generation: int | None
    """The LLMRoute's generation that is served; null where none is."""
    reason: str
    since: str


class UnavailableUpstream(BaseModel):
    route: str
    upstream: str
    reason: str


class MissingSecretEntry(BaseModel):
    """What the controller tells in the route's conditions. `key` is null where the whole Secret is missing;
    `trouble` is "is not there", "holds no key" of an entry of client keys, "is not usable" of a credential."""

    route: str
    field: str
    secret: str
    key: str | None
    trouble: str


class LitellmWorker(BaseModel):
    """The process behind a litellm:// upstream."""

    route: str
    upstream: str
    state: str
    """not_started, starting, ready, or resting after it died."""
    pid: int | None
    restarts: int
    resident_bytes: int


class SharedStateState(BaseModel):
    """The server that counts limits of scope Gateway."""

    address: str
    state: str
    """connecting, up or down."""
    reason: str | None
    """Why it is down, in a word."""
    since: str


class Status(BaseModel):
    """What this gateway serves from."""

    version: str
    ready: bool
    draining: bool
    namespace: str | None
    gateway: str | None
    revision: str | None
    """The revision that is served; the route's `status.revision` names the newest one."""
    wanted_revision: str | None
    """The newest revision seen; differs from `revision` while a route of it is rejected."""
    since: str | None
    healthy: bool
    error: str | None
    routes: list[RouteState]
    models: list[str]
    missing_secrets: list[str]
    missing_secret_entries: list[MissingSecretEntry]
    """The same, for programs."""
    unavailable_upstreams: list[UnavailableUpstream]
    litellm_workers: list[LitellmWorker]
    shared_state: SharedStateState | None
    """Null where none is configured."""
    problems: list[str]


def admin_app(
    gateway: Gateway, metrics: Metrics, reload_status: Callable[[], ReloadStatus], version: str, workers: Workers
) -> FastAPI:
    app = FastAPI(title="llmroute gateway", version=version, docs_url=None, redoc_url=None)

    add_listings(app, gateway)

    @app.get("/", response_class=Response, include_in_schema=False)
    async def look() -> Response:
        """A page to look at."""
        found = page("page.html")
        return Response(found.content, headers=found.headers)

    @app.get("/docs", response_class=Response, include_in_schema=False)
    async def docs() -> Response:
        """What there is to ask, from /openapi.json. FastAPI's own page would load scripts of another host."""
        found = page("docs.html")
        return Response(found.content, headers=found.headers)

    @app.get("/status")
    async def status() -> Status:
        """What is served, since when, and what is wrong with it."""
        return _status(gateway, reload_status(), version, workers)

    @app.get("/health", response_class=Response)
    async def health() -> Response:
        """The process lives."""
        return _response(endpoints.health())

    @app.get("/ready", response_class=Response)
    async def ready() -> Response:
        """200 once there is a configuration, 503 before and while draining."""
        return _response(endpoints.ready(gateway))

    @app.get("/v1/circuit-breakers", response_class=Response)
    async def circuit_breakers() -> Response:
        """Each upstream's breaker."""
        return _response(endpoints.circuit_breakers(gateway, asyncio.get_running_loop().time()))

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Prometheus metrics."""
        return _response(endpoints.metrics(metrics))

    @app.exception_handler(404)
    async def unknown(request: Request, _error: Exception) -> JSONResponse:
        asked = f"{request.method} {request.url.path[:200]}"
        there = "calls to models go to the data port" if request.url.path.startswith("/v1/") else "/docs has what is"
        return JSONResponse({"detail": f"the admin port has no {asked}; {there}"}, status_code=404)

    return app


def with_local_hosts(app: ASGIApp, hosts: LocalHosts, addresses: Container[str]) -> ASGIApp:
    """`app`, which at `addresses`, where it listens on loopback, answers to `hosts` alone."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["server"][0] in addresses:
            for name, value in scope["headers"]:
                if name == b"host" and not hosts.answer_to(value):
                    await _response(error("host_not_allowed", not_answered_to(value)))(scope, receive, send)
                    return
        await app(scope, receive, send)

    return answer


def _status(gateway: Gateway, reload: ReloadStatus, version: str, workers: Workers) -> Status:
    serving = gateway.serving
    snapshot = serving.snapshot if serving else None
    unavailable = [
        UnavailableUpstream(route=live.config.route, upstream=live.config.name, reason=live.unavailable)
        for live in (serving.live.values() if serving else ())
        if live.unavailable is not None
    ]
    return Status(
        version=version,
        ready=gateway.ready,
        draining=gateway.draining,
        namespace=snapshot.namespace if snapshot else None,
        gateway=snapshot.gateway if snapshot else None,
        revision=snapshot.revision if snapshot else None,
        wanted_revision=reload.wanted_revision,
        since=timestamp(reload.since) if reload.since else None,
        healthy=reload.healthy and snapshot is not None,
        error=reload.error,
        routes=[
            RouteState(
                name=route.name,
                accepted=route.accepted,
                generation=route.generation,
                reason=route.reason,
                since=timestamp(route.since),
            )
            for route in reload.routes
        ],
        models=sorted(snapshot.model_names) if snapshot else [],
        missing_secrets=list(reload.missing_secrets),
        missing_secret_entries=[
            MissingSecretEntry(route=one.route, field=one.field, secret=one.secret, key=one.key, trouble=one.trouble)
            for one in (snapshot.missing_secrets if snapshot else ())
        ],
        unavailable_upstreams=unavailable,
        litellm_workers=[
            LitellmWorker(
                route=worker.route,
                upstream=worker.name,
                state=worker.state,
                pid=worker.pid,
                restarts=worker.restarts,
                resident_bytes=worker.resident_bytes,
            )
            for worker in workers
        ],
        shared_state=_shared_state(gateway),
        problems=list(reload.problems),
    )


def _shared_state(gateway: Gateway) -> SharedStateState | None:
    if gateway.shared_state is None:
        return None
    standing = gateway.shared_state.standing
    return SharedStateState(
        address=standing.address, state=standing.state, reason=standing.reason, since=timestamp(standing.since)
    )


def _response(answer: Answer) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)

"""The two ports: `/mutate` over TLS for the API server; `/healthz`, `/readyz`, `/metrics` for kubelet and Prometheus.

Each answer to the API server ends its connection: there is then none that could be cut when the process ends, and each
admission meets the certificate and the replica of the moment. A handshake costs less than what that saves a person.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import web

from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.injector.inject import Allowed, Decision, Denied, Wanted, inject, read
from llmroute_operator.injector.metrics import Metrics, Result
from llmroute_operator.injector.options import BODY_MAX_BYTES, BODY_SECONDS, IN_FLIGHT_MAX, ROUTES_WAIT_SECONDS
from llmroute_operator.injector.review import NotAReview, Request, answer, read_review
from llmroute_operator.injector.routes import Routes
from llmroute_operator.injector.settings import InjectorSettings

_logger = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Webhook:
    def __init__(self, settings: Callable[[], InjectorSettings], routes: Routes, metrics: Metrics) -> None:
        self._settings = settings
        self._routes = routes
        self._metrics = metrics
        self.in_flight = 0

    def application(self) -> web.Application:
        made = web.Application(client_max_size=BODY_MAX_BYTES)
        made.add_routes([web.post("/mutate", self._mutate)])
        return made

    async def _mutate(self, request: web.Request) -> web.Response:
        if self.in_flight >= IN_FLIGHT_MAX:
            self._metrics.turned_away("overloaded")
            return _closing(web.Response(status=503, text="too many admissions at once; try again"))
        self.in_flight += 1
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await request.read()
            except TimeoutError:
                self._metrics.turned_away("bad_request")
                return _closing(web.Response(status=408, text="the body did not come in whole in time"))
            began = time.perf_counter()
            try:
                review = read_review(body)
            except NotAReview as error:
                self._metrics.turned_away("bad_request")
                return _closing(web.Response(status=400, text=f"the body {error}"))
            try:
                decision = await self._decide(review)
            except Exception:
                self._metrics.turned_away("error")
                _logger.exception("admission failed", extra={"fields": {"uid": review.uid}})
                return _closing(
                    web.Response(status=500, text="the injector met a fault of its own; its log says which")
                )
            made = answer(review.uid, decision)
            self._metrics.admitted(_result(decision), time.perf_counter() - began)
            _tell(review, decision)
            return _closing(web.Response(body=made, content_type="application/json"))
        finally:
            self.in_flight -= 1

    async def _decide(self, review: Request) -> Decision:
        if not review.is_new_pod:
            return Allowed()
        match read(review.object):
            case Wanted() as wanted:
                key = GatewayKey(review.namespace, wanted.wishes.gateway)
                needs = await self._routes.needs(key, ROUTES_WAIT_SECONDS)
                return inject(review.object, wanted, self._settings(), needs)
            case decided:
                return decided


def health_application(
    is_alive: Callable[[], bool], why_not_ready: Callable[[], str | None], metrics: Metrics
) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        """503 once the watch of routes has hung for longer than it can."""
        return web.json_response({"alive": is_alive()}, status=200 if is_alive() else 503)

    async def readyz(_: web.Request) -> web.Response:
        why_not = why_not_ready()
        return web.json_response({"ready": why_not is None, "reason": why_not}, status=200 if why_not is None else 503)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": METRICS_TYPE})

    made = web.Application()
    made.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    return made


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response


def _result(decision: Decision) -> Result:
    match decision:
        case Denied():
            return "denied"
        case Allowed(operations):
            return "injected" if operations else "unchanged"


def _tell(review: Request, decision: Decision) -> None:
    metadata = review.object.get("metadata") if isinstance(review.object, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    fields = {
        "namespace": review.namespace,
        "pod": metadata.get("name") or f"{metadata.get('generateName', '')}*",
        "result": _result(decision),
    }
    if isinstance(decision, Denied):
        fields["why"] = "; ".join(decision.messages)
    _logger.info("admission", extra={"fields": fields})

"""The small endpoints of the data port, as functions from the gateway's state to an answer. The admin port
serves them too."""

import time

import msgspec

from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import JSON, Answer
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.policy.keys import may_use
from llmroute_sidecar.telemetry.metrics import CONTENT_TYPE, Metrics

_encode = msgspec.json.Encoder().encode


class BreakerView(msgspec.Struct, frozen=True):
    """One upstream in `/v1/circuit-breakers`. Times are seconds."""

    upstream: str
    route: str
    state: str
    consecutive_failures: int
    retry_after: float
    credential_refused: bool
    unavailable: str | None


class BreakerViews(msgspec.Struct, frozen=True):
    circuit_breakers: list[BreakerView]


def health() -> Answer:
    """The process lives."""
    return Answer(200, [JSON], b'{"status":"ok"}')


def ready(gateway: Gateway) -> Answer:
    """It has a snapshot and is not draining."""
    if gateway.ready:
        return Answer(200, [JSON], b'{"status":"ready"}')
    reason = "draining" if gateway.draining else "no configuration yet"
    return Answer(503, [JSON], _encode({"status": "not ready", "reason": reason}), "not_ready")


def breakers(gateway: Gateway, now: float) -> list[BreakerView]:
    serving = gateway.serving
    views = []
    for upstream in serving.live.values() if serving else ():
        view = upstream.breaker.view(now)
        views.append(
            BreakerView(
                upstream.config.name,
                upstream.config.route,
                view.state.value,
                view.consecutive_failures,
                round(view.retry_after, 3),
                view.misconfigured,
                upstream.unavailable,
            )
        )
    return views


def circuit_breakers(gateway: Gateway, now: float) -> Answer:
    return Answer(200, [JSON], _encode(BreakerViews(breakers(gateway, now))))


def metrics(registry: Metrics) -> Answer:
    return Answer(200, [(b"content-type", CONTENT_TYPE.encode())], registry.exposition())


def models(call: Call) -> Answer:
    """What this client may use, in the shape of OpenAI's `GET /v1/models`. Prefix entries are no names and not
    listed."""
    assert call.serving is not None  # Gateway.screen has refused otherwise
    snapshot = call.serving.snapshot
    clients = {client.route: client for client in call.clients}
    now = time.time()
    data = []
    for name in snapshot.models.models():
        entry = snapshot.models.find(name)
        if entry is None:
            continue
        client = clients.get(entry.route)
        if snapshot.routes[entry.route].open or (client is not None and may_use(client, name, now) == "yes"):
            data.append({"id": name, "object": "model", "created": 0, "owned_by": entry.route})
    return Answer(200, [JSON], _encode({"object": "list", "data": data}))

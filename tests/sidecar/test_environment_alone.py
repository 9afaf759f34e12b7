"""The seed's way: a gateway from `GATEWAY_*` alone, and what it tells, name by name."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway_process import GatewayProcess, end, start
from tests.provider import providing

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """As it starts with nothing but upstreams: the defaults for all else."""
    upstreams = "mock=mock://local;llama=mock://fail;gpt-4o-mini=mock://fail;spare=mock://local?tokens=2"
    environment = {
        "GATEWAY_UPSTREAMS": upstreams,
        "GATEWAY_FALLBACKS": "llama=gpt-4o-mini,spare",
        "GATEWAY_DEFAULT_UPSTREAM": "mock",
    }
    gateway = start(tmp_path_factory.mktemp("gateway"), environment=environment, config=False)
    try:
        yield gateway
    finally:
        end(gateway)


def ask(gateway: GatewayProcess, model: str, key: str | None = "dev-key", **more: object) -> httpx.Response:
    return gateway.post({"model": model, "messages": [], **more}, key=key)


def breaker(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    breakers: list[dict[str, Any]] = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"]
    return next(breaker for breaker in breakers if breaker["upstream"] == name)


def test_the_defaults_and_what_they_tell(gateway: GatewayProcess) -> None:
    """One story, in order: each step's numbers go into the metrics that are read at its end."""
    first = ask(gateway, "mock")
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "60"
    assert first.headers["x-ratelimit-remaining-requests"] == "59"
    assert first.json()["choices"][0]["message"]["content"].startswith("This answer comes from a mock")
    assert ask(gateway, "anything-else").status_code == 200  # the default upstream
    assert ask(gateway, "mock", key="another-key").status_code == 401

    # Five failures open a breaker; the fallbacks go on.
    for number in range(6):
        answer = ask(gateway, "llama")
        assert answer.status_code == 200
        assert answer.headers["x-fallback-model"] == "spare"
        assert breaker(gateway, "llama")["state"] == ("closed" if number < 4 else "open")
    assert 29 < breaker(gateway, "llama")["retry_after"] <= 30
    alone = ask(gateway, "gpt-4o-mini")
    assert (alone.status_code, alone.json()["error"]["code"]) == (503, "circuit_open")
    assert 29 <= int(alone.headers["retry-after"]) <= 30

    # Sixty a minute: nine are used.
    statuses = [ask(gateway, "mock").status_code for _ in range(52)]
    assert statuses == [200] * 51 + [429]

    path = "/v1/chat/completions"
    assert gateway.metric("gateway_requests_total", method="POST", path=path, status="200") == 59
    assert gateway.metric("gateway_requests_total", method="POST", path=path, status="401") == 1
    assert gateway.metric("gateway_requests_total", method="POST", path=path, status="429") == 1
    assert gateway.metric("gateway_requests_total", method="POST", path=path, status="503") == 1
    assert gateway.metric("gateway_request_latency_seconds_count", method="POST", path=path) == 62
    assert gateway.metric("gateway_in_flight_requests") == 0
    assert gateway.metric("gateway_upstream_requests_total", upstream="mock", status="200") == 53
    assert gateway.metric("gateway_upstream_requests_total", upstream="llama", status="error") == 5
    assert gateway.metric("gateway_upstream_latency_seconds_count", upstream="spare") == 6
    assert gateway.metric("gateway_rate_limited_total") == 1
    assert gateway.metric("gateway_circuit_open_total", upstream="llama") == 1
    assert gateway.metric("gateway_circuit_open_total", upstream="gpt-4o-mini") == 2
    assert gateway.metric("gateway_fallback_used_total", from_model="llama", to_model="spare") == 6


EIGHT = {
    "gateway_requests": ("counter", {"method", "path", "status"}),
    "gateway_request_latency_seconds": ("histogram", {"method", "path"}),
    "gateway_in_flight_requests": ("gauge", set()),
    "gateway_upstream_requests": ("counter", {"upstream", "status"}),
    "gateway_upstream_latency_seconds": ("histogram", {"upstream"}),
    "gateway_rate_limited": ("counter", set()),
    "gateway_circuit_open": ("counter", {"upstream"}),
    "gateway_fallback_used": ("counter", {"from_model", "to_model"}),
}


def test_the_eight_metrics_have_their_names_kinds_and_labels(gateway: GatewayProcess) -> None:
    families = {family.name: family for family in text_string_to_metric_families(gateway.get("/metrics").text)}
    for name, (kind, labels) in EIGHT.items():
        family = families[name]
        assert family.type == kind
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == labels
    assert all(
        sample.name.endswith("_total")
        for sample in families["gateway_requests"].samples
        if "created" not in sample.name
    )


def test_a_log_line_has_the_seeds_fields(gateway: GatewayProcess) -> None:
    answer = ask(gateway, "llama")
    line = gateway.request_line(answer.headers["x-request-id"])
    assert line.keys() >= {
        "timestamp", "level", "message", "logger", "request_id", "trace_id", "method", "path", "status", "duration_ms",
        "upstream", "fallback_model", "client_ip", "model", "client", "attempts",
    }  # fmt: skip
    assert line["trace_id"] == answer.headers["x-trace-id"]


def test_keys_limit_and_timeout_are_taken_from_the_environment(tmp_path: Path) -> None:
    async def silent(*_: object) -> None:
        await asyncio.sleep(60)

    with providing(silent) as provider:
        environment = {
            "GATEWAY_API_KEYS": "one, two",
            "GATEWAY_RATE_LIMIT_PER_MINUTE": "2",
            "GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES": "1",
            "GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS": "3600",
            "GATEWAY_REQUEST_TIMEOUT_SECONDS": "0.2",
            "GATEWAY_UPSTREAMS": f"gpt={provider.url}",
        }
        gateway = start(tmp_path, environment=environment, config=False)
        try:
            answer = ask(gateway, "gpt", key="one")
            assert answer.status_code == 502
            assert answer.json()["error"]["attempts"][0]["reason"] == "first_token_timeout"
            assert ask(gateway, "gpt", key="two").json()["error"]["code"] == "circuit_open"
            assert ask(gateway, "gpt", key="one").status_code == 503
            assert ask(gateway, "gpt", key="one").status_code == 429
            assert ask(gateway, "gpt", key="two").status_code == 503  # each key is counted apart
            assert ask(gateway, "gpt", key="dev-key").status_code == 401
            assert ask(gateway, "other", key="two").status_code == 404  # without a default upstream
        finally:
            end(gateway)

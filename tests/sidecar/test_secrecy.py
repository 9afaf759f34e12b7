"""No key and no prompt is ever told: canaries are planted wherever a secret can come in, and looked for wherever the
gateway speaks of itself."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import GatewayProcess, end, spec, start, upstream, write_config, write_secret
from tests.provider import STREAM_HEAD, Provider, ProviderRequest, chunk, event, plain, providing, response
from tests.sidecar.collector import Collector
from tests.waiting import wait_until

pytestmark = pytest.mark.server

KEY = "canary-key"
WRONG_KEY = "canary-wrong-key"
CREDENTIAL = "canary-credential"
PROMPT = "canary-prompt"
HEADER = "canary-header"
QUERY = "canary-query"
UPSTREAM_ERROR = "canary-upstream-error"
ANSWER = "canary-answer"
COLLECTOR_TOKEN = "canary-collector-token"
CANARIES = (KEY, WRONG_KEY, CREDENTIAL, PROMPT, HEADER, QUERY, UPSTREAM_ERROR, ANSWER, COLLECTOR_TOKEN)
MODEL = "canary-model"
"""A name that a client made up: it stands in its own answer, in the log and in its spans, and nowhere else."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        upstream = request.path.split("/")[1]
        if upstream == "fails":
            writer.write(response(500, UPSTREAM_ERROR.encode(), f"x-error: {UPSTREAM_ERROR}"))
        elif upstream == "refuses":
            writer.write(response(401, UPSTREAM_ERROR.encode()))
        elif upstream == "redirects":
            writer.write(response(302, UPSTREAM_ERROR.encode(), f"location: http://{UPSTREAM_ERROR}/"))
        elif upstream == "babbles":
            writer.write(f"HTTP/1.1 {UPSTREAM_ERROR}\r\n\r\n".encode())
        elif upstream == "cut":
            writer.write(STREAM_HEAD + chunk(event(ANSWER)))
            await writer.drain()
            writer.close()
        else:
            await plain(request, writer)

    with providing(behaviour) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(
    provider: Provider, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    write_secret(folder / "secrets", "clients", {"app": KEY})
    write_secret(folder / "secrets", "provider", {"key": CREDENTIAL})
    names = ["good", "fails", "refuses", "redirects", "babbles", "cut"]
    credential = {"secretRef": {"name": "provider", "key": "key"}}
    chat = spec(
        provider.url,
        upstreams=[
            upstream(name, f"{provider.url}/{name}", credential=credential, headers={"x-secret": HEADER})
            for name in names
        ],
        models=[{"name": name, "targets": [{"upstream": name}]} for name in names],
        limits=[
            {"name": "some", "per": "Model", "requests": 3, "window": "1h"},
            {"name": "tokens", "per": "Gateway", "tokens": 1_000_000},
        ],
        logging={"sample": [{"status": "2xx", "client": "app", "rate": 0.5}]},
    )
    write_config(folder / "config", {"chat": chat})
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{COLLECTOR_TOKEN}",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    gateway = start(folder, "--log-level", "debug", environment=environment)
    try:
        yield gateway
    finally:
        end(gateway)


def body(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}], **more}).encode()


def test_no_canary_is_told(gateway: GatewayProcess, provider: Provider, collector: Collector) -> None:
    path = f"/v1/chat/completions?api_key={QUERY}"
    headers = {"x-canary": HEADER, "cookie": f"session={HEADER}", "proxy-authorization": f"Basic {HEADER}"}
    answers = [
        gateway.post(body(model, stream=stream), path=path, key=KEY, headers=headers)
        for model in ("good", "fails", "refuses", "redirects", "babbles", "cut", MODEL)
        for stream in (False, True)
    ]
    answers += [
        gateway.post(body("good"), path=path, key=WRONG_KEY, headers=headers),
        gateway.post(body("good"), key=KEY, headers={"x-api-key": WRONG_KEY}),
        gateway.post(body("good"), key=KEY, path=f"/v1/%zz?{QUERY}"),
        gateway.post(body("good")[:-5], key=KEY, headers=headers),
        gateway.post(body("good", stream=PROMPT), key=KEY),
        gateway.post(json.dumps({"model": [PROMPT]}).encode(), key=KEY),
        gateway.post(b"\xff" + PROMPT.encode(), key=KEY),
        gateway.get(f"/nothing?{QUERY}", headers={"authorization": f"Bearer {KEY}"}),
        gateway.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}),
        *(gateway.post(body("good"), key=KEY) for _ in range(5)),
    ]
    statuses = {answer.status_code for answer in answers}
    assert statuses >= {200, 400, 401, 404, 429, 502}
    assert CREDENTIAL in str(provider.requests[0].headers)  # the canary lives, and went where it belongs
    assert COLLECTOR_TOKEN in collector.requests[0].headers["authorization"]  # likewise
    wait_until(lambda: {span.trace_id for span in collector.spans} >= traces_of(answers), "all calls' spans")
    refused = next(answer for answer in reversed(answers) if answer.status_code == 429)
    gateway.request_line(refused.headers["x-request-id"])

    told = {
        "the log": gateway.log_path.read_text(),
        "/metrics": gateway.get("/metrics").text,
        "/status": json.dumps(gateway.status()),
        "/v1/circuit-breakers": gateway.get("/v1/circuit-breakers").text,
        "the process's title": gateway.command_line(),
        "spans": "".join(request.body.decode() for request in collector.requests),
    }
    assert [where for where, text in told.items() if MODEL in text] == ["the log", "spans"]
    own = [answer for answer in answers if answer.headers["x-llmroute-origin"] == "gateway"]
    told |= {f"answer {number}": answer.text + str(answer.headers) for number, answer in enumerate(own)}
    leaks = [(where, canary) for where, text in told.items() for canary in CANARIES if canary in text]
    assert leaks == []
    # The upstream's own answers may tell what the upstream likes, but neither key.
    for answer in answers:
        assert not [canary for canary in (KEY, WRONG_KEY, CREDENTIAL) if canary in answer.text + str(answer.headers)]


def traces_of(answers: list[httpx.Response]) -> set[str]:
    return {answer.headers["x-trace-id"] for answer in answers if answer.request.method == "POST"}


def test_a_fault_of_the_gateways_own_is_logged_without_the_data_that_caused_it(
    gateway: GatewayProcess,
) -> None:
    assert not [line for line in gateway.lines if "exc_info" in line]
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "nothing to be in flight")

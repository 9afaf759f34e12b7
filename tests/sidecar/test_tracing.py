"""Traces, as a collector gets them: a tree for each request, which goes on where the request goes."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_process import COMMAND, KEY, GatewayProcess, end, spec, start, upstream, write_config, write_secret
from tests.provider import STREAM_HEAD, Behaviour, Provider, ProviderRequest, chunk, event, plain, providing, response
from tests.sidecar.collector import CLIENT, LOCAL, REMOTE, SERVER, Collector, collecting
from tests.waiting import wait_until

pytestmark = pytest.mark.server

CALLER = "00f067aa0ba902b7"
NEVER_IN_TIME = "3600000"
USAGE = {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 1}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        match request.path.split("/")[1]:
            case "fails":
                writer.write(response(500, b"{}"))
            case "refuses":
                writer.write(response(400, b'{"error":{"message":"no"}}'))
            case "cut":
                writer.write(STREAM_HEAD + chunk(event("half")))
                await writer.drain()
                writer.close()
            case "silent":
                await asyncio.Event().wait()
            case _:
                await plain(request, writer)

    with providing(behaviour) as provider:
        yield provider


@contextmanager
def tracing(folder: Path, provider: Provider, endpoint: str, *arguments: str, **more: str) -> Iterator[GatewayProcess]:
    """A gateway that exports to `endpoint`, nearly at once; `more` are further variables."""
    write_secret(folder / "secrets", "clients", {"app": KEY})
    names = ["good", "fails", "refuses", "cut", "silent"]
    chat = spec(
        provider.url,
        upstreams=[upstream(name, f"{provider.url}/{name}") for name in names],
        models=[
            *({"name": name, "targets": [{"upstream": name}]} for name in names),
            {"name": "falls", "targets": [{"upstream": "fails", "model": "theirs"}], "fallbacks": ["good"]},
        ],
    )
    write_config(folder / "config", {"chat": chat})
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **more}
    gateway = start(folder, *arguments, environment=environment)
    try:
        yield gateway
    finally:
        end(gateway)


@pytest.fixture(scope="module")
def gateway(
    provider: Provider, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    resource = "deployment.environment.name=test,k8s.pod.name=web%2D7d"
    with tracing(
        folder, provider, collector.url, OTEL_RESOURCE_ATTRIBUTES=resource, OTEL_SERVICE_NAME="chat-gateway"
    ) as gateway:
        yield gateway


def call(gateway: GatewayProcess, model: str, traceparent: str | None = None, **more: Any) -> httpx.Response:
    headers = {"traceparent": traceparent} if traceparent else {}
    return gateway.post({"model": model, "messages": [], **more}, headers=headers)


def trace_of(number: int, flags: str = "01") -> tuple[str, str]:
    trace_id = f"{number:032x}"
    return trace_id, f"00-{trace_id}-{CALLER}-{flags}"


def test_a_request_makes_a_tree_of_itself_and_its_attempts(
    gateway: GatewayProcess, provider: Provider, collector: Collector
) -> None:
    trace_id, traceparent = trace_of(0x4BF92F35)
    before = len(provider.requests)
    answer = call(gateway, "falls", traceparent)
    assert answer.status_code == 200
    request, first, second = collector.trace(trace_id, 3)

    assert (request.parent_id, request.flags, request.kind) == (CALLER, REMOTE | 1, SERVER)
    assert request.name == "POST /v1/chat/completions"
    assert not request.failed
    told = request.attributes
    assert told.pop("llmroute.request_id") == answer.headers["x-request-id"]
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "falls",
        "llmroute.client": "app",
        "llmroute.route": "chat",
        "llmroute.upstream": "good",
        "llmroute.fallback_model": "good",
        "llmroute.attempts": 2,
        "llmroute.tried": ["fails: server_error", "good: served"],
        **USAGE,
    }

    assert [attempt.parent_id for attempt in (first, second)] == [request.span_id] * 2
    assert [attempt.kind for attempt in (first, second)] == [CLIENT] * 2
    assert [attempt.flags for attempt in (first, second)] == [LOCAL | 1] * 2
    assert [attempt.name for attempt in (first, second)] == ["chat theirs", "chat good"]
    assert [attempt.failed for attempt in (first, second)] == [True, False]
    address = {"server.address": "127.0.0.1", "server.port": int(provider.url.rpartition(":")[2])}
    common = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", **address}
    assert first.attributes == {
        **common,
        "gen_ai.request.model": "theirs",
        "llmroute.upstream": "fails",
        "llmroute.attempt": 1,
        "http.response.status_code": 500,
        "error.type": "server_error",
    }
    assert second.attributes == {
        **common,
        "gen_ai.request.model": "good",
        "llmroute.upstream": "good",
        "llmroute.attempt": 2,
        "http.response.status_code": 200,
        **USAGE,
    }
    assert request.begin <= first.begin <= first.end <= second.begin <= second.end

    # Each upstream was told of the attempt that came to it, the client of the request.
    sent = [request.headers["traceparent"] for request in provider.requests[before:]]
    assert sent == [f"00-{trace_id}-{attempt.span_id}-01" for attempt in (first, second)]
    assert answer.headers["traceparent"] == f"00-{trace_id}-{request.span_id}-01"


def test_the_resource_says_who_tells(gateway: GatewayProcess, collector: Collector) -> None:
    trace_id, traceparent = trace_of(0xA0)
    call(gateway, "good", traceparent)
    resource = collector.trace(trace_id, 2)[0].resource
    assert resource.pop("service.instance.id")
    assert resource.pop("service.version")
    assert resource == {
        "service.name": "chat-gateway",
        "deployment.environment.name": "test",
        "k8s.pod.name": "web-7d",
    }


def test_a_call_without_a_traceparent_begins_a_trace(gateway: GatewayProcess, collector: Collector) -> None:
    answer = call(gateway, "good")
    request, attempt = collector.trace(answer.headers["x-trace-id"], 2)
    assert request.parent_id is None
    assert request.flags == LOCAL | 1
    assert attempt.parent_id == request.span_id


def test_what_the_caller_does_not_sample_is_not_sampled(
    gateway: GatewayProcess, provider: Provider, collector: Collector
) -> None:
    trace_id, traceparent = trace_of(0xB0, "00")
    call(gateway, "good", traceparent)
    assert provider.requests[-1].headers["traceparent"].startswith(f"00-{trace_id}-")
    assert provider.requests[-1].headers["traceparent"].endswith("-00")
    later = call(gateway, "good")
    collector.trace(later.headers["x-trace-id"], 2)
    assert not [span for span in collector.spans if span.trace_id == trace_id]


@pytest.mark.parametrize(
    ("model", "status", "error", "attempt_error", "failed"),
    [
        ("unknown", 404, "model_not_found", None, False),
        ("refuses", 400, "400", "400", False),
        ("fails", 502, "upstream_failed", "server_error", True),
        ("cut", 200, "truncated_connection_lost", "truncated_connection_lost", True),
    ],
)
def test_a_span_says_what_went_wrong(
    gateway: GatewayProcess,
    collector: Collector,
    model: str,
    status: int,
    error: str,
    attempt_error: str | None,
    failed: bool,
) -> None:
    answer = call(gateway, model, stream=True)
    assert answer.status_code == status
    request, *attempts = collector.trace(answer.headers["x-trace-id"], 1 if attempt_error is None else 2)
    assert request.attributes["error.type"] == error
    assert request.attributes["http.response.status_code"] == status
    assert request.failed is failed
    assert [attempt.attributes["error.type"] for attempt in attempts] == ([attempt_error] if attempt_error else [])
    assert all(attempt.failed for attempt in attempts)


def test_a_call_whose_client_left_is_told_with_the_attempt_it_left(
    gateway: GatewayProcess, provider: Provider, collector: Collector
) -> None:
    trace_id, traceparent = trace_of(0xC0)
    before = len(provider.requests)
    body = b'{"model":"silent"}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\ntraceparent: {traceparent}\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: len(provider.requests) > before, "the upstream to be asked")
    request, attempt = collector.trace(trace_id, 2)
    assert request.attributes["error.type"] == attempt.attributes["error.type"] == "client_left"
    assert "http.response.status_code" not in request.attributes
    assert attempt.parent_id == request.span_id


def test_probes_and_lists_make_no_spans(gateway: GatewayProcess, collector: Collector) -> None:
    for path in ("/health", "/metrics", "/v1/models"):
        trace_id, traceparent = trace_of(0xD0)
        gateway.get(path, headers={"x-api-key": KEY, "traceparent": traceparent})
        answer = call(gateway, "good")
        collector.trace(answer.headers["x-trace-id"], 2)
        assert not [span for span in collector.spans if span.trace_id == trace_id], path


def test_traces_that_begin_here_are_sampled_by_the_ratio(
    provider: Provider, collector: Collector, tmp_path: Path
) -> None:
    with tracing(tmp_path, provider, collector.url, OTEL_TRACES_SAMPLER_ARG="0.5") as gateway:
        ids = [f"{number:032x}" for number in (1, 2**63 - 1, 2**63, 2**64 - 1)]
        for trace_id in ids:
            gateway.post({"model": "good"}, headers={"x-trace-id": trace_id})
            flags = provider.requests[-1].headers["traceparent"][-2:]
            assert flags == ("01" if trace_id in ids[:2] else "00"), trace_id
        last, traceparent = trace_of(2**64 - 2)  # the caller's word holds, whatever the ratio
        call(gateway, "good", traceparent)
        collector.trace(last, 2)
        for trace_id in ids[:2]:
            collector.trace(trace_id, 2)
        assert not [span for span in collector.spans if span.trace_id in ids[2:]]


def test_what_waits_is_delivered_before_the_end(provider: Provider, collector: Collector, tmp_path: Path) -> None:
    with tracing(tmp_path, provider, collector.url, OTEL_BSP_SCHEDULE_DELAY=NEVER_IN_TIME) as gateway:
        trace_id, traceparent = trace_of(0xE0)
        call(gateway, "good", traceparent)
        gateway.terminate()
        assert gateway.exit_code() == 0
        assert len(collector.trace(trace_id, 2)) == 2


def test_a_full_batch_does_not_wait(provider: Provider, collector: Collector, tmp_path: Path) -> None:
    more = {"OTEL_BSP_SCHEDULE_DELAY": NEVER_IN_TIME, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    with tracing(tmp_path, provider, collector.url, **more) as gateway:
        answers = [call(gateway, "good") for _ in range(2)]
        for answer in answers:
            collector.trace(answer.headers["x-trace-id"], 2)
        assert gateway.metric("llmroute_spans_exported_total") == 4


def test_the_option_comes_before_the_variable_and_headers_are_sent(
    provider: Provider, collector: Collector, tmp_path: Path
) -> None:
    more = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20token-of-the-collector,x-scope=a"}
    arguments = ("--otlp-endpoint", f"{collector.url}/")
    with tracing(tmp_path, provider, "http://127.0.0.1:1", *arguments, **more) as gateway:
        collector.trace(call(gateway, "good").headers["x-trace-id"], 2)
    assert collector.requests[-1].headers["authorization"] == "Bearer token-of-the-collector"
    assert collector.requests[-1].headers["x-scope"] == "a"


def dropped(gateway: GatewayProcess, reason: str) -> float:
    return gateway.metric("llmroute_spans_dropped_total", reason=reason)


def test_without_a_collector_calls_are_served_and_drops_are_counted(provider: Provider, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with tracing(tmp_path, provider, nowhere, OTEL_BSP_MAX_QUEUE_SIZE="8") as gateway:
            for _ in range(20):
                assert call(gateway, "good").status_code == 200
            assert dropped(gateway, "queue_full") == 40 - 8
            wait_until(lambda: "spans are not delivered" in gateway.log_path.read_text(), "the log to tell")
            gateway.terminate()
            assert gateway.exit_code() == 0
            (told,) = [line for line in gateway.lines if "last spans were not delivered" in line["message"]]
            assert told["spans"] == 8


def test_a_silent_collector_holds_up_neither_calls_nor_the_end(provider: Provider, tmp_path: Path) -> None:
    async def silent(_: ProviderRequest, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    with collecting(silent) as collector, tracing(tmp_path, provider, collector.url) as gateway:
        assert call(gateway, "good").status_code == 200
        wait_until(lambda: collector.requests, "the collector to be asked")
        assert call(gateway, "good").status_code == 200
        gateway.terminate()
        assert gateway.exit_code() == 0


def test_what_a_collector_cannot_take_now_it_gets_later(provider: Provider, tmp_path: Path) -> None:
    taken: list[bytes] = []

    async def busy_at_first(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        taken.append(request.body)
        writer.write(response(503 if len(taken) < 3 else 200, b"", content_type="application/x-protobuf"))

    with collecting(busy_at_first) as collector, tracing(tmp_path, provider, collector.url) as gateway:
        call(gateway, "good")
        wait_until(lambda: gateway.metric("llmroute_spans_exported_total") == 2, "the spans to be taken")
        assert collector.requests
        assert taken[0] == taken[1] == taken[2]
        wait_until(lambda: "spans are delivered again" in gateway.log_path.read_text(), "the log to tell")


@pytest.mark.parametrize(
    ("answer", "exported", "refused"),
    [
        (response(400, b""), 0, 2),
        (response(302, b"", "location: http://127.0.0.1:1/"), 0, 2),
        (response(200, b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"one"}}'), 1, 1),
        (response(200, b"not JSON"), 2, 0),
    ],
)
def test_what_a_collector_refuses_is_dropped_and_counted(
    provider: Provider, tmp_path: Path, answer: bytes, exported: int, refused: int
) -> None:
    def says(data: bytes) -> Behaviour:
        async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
            writer.write(data)

        return behaviour

    # Both spans of the call in one batch, and no other.
    more = {"OTEL_BSP_SCHEDULE_DELAY": NEVER_IN_TIME, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    with collecting(says(answer)) as collector, tracing(tmp_path, provider, collector.url, **more) as gateway:
        call(gateway, "good")

        def counts() -> tuple[float, float]:
            return gateway.metric("llmroute_spans_exported_total"), dropped(gateway, "refused")

        wait_until(lambda: any(counts()), "the spans to be told of")
        assert counts() == (exported, refused)
        assert len(collector.requests) == 1


def test_an_option_that_is_no_address_is_a_wrong_call() -> None:
    done = subprocess.run([COMMAND, "serve", "--otlp-endpoint", "collector:4318"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "llmroute: --otlp-endpoint must begin with http:// or https://\n"


def test_variables_without_sense_cost_the_traces_and_not_the_gateway(provider: Provider, tmp_path: Path) -> None:
    secret = "canary-of-a-header"
    certificate = tmp_path / "no-certificate"
    certificate.write_text("none")
    more = {"OTEL_EXPORTER_OTLP_HEADERS": secret, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate)}
    with tracing(tmp_path, provider, "https://127.0.0.1:1", **more) as gateway:
        assert call(gateway, "good").status_code == 200
        warnings = [line["message"] for line in gateway.lines if line["level"] == "warning"]
        assert warnings == [
            "OTEL_EXPORTER_OTLP_HEADERS is passed over: it is not a list of name=value, with commas between them",
            "no traces are exported: a certificate of OTEL_EXPORTER_OTLP_* is no good",
        ]
        assert secret not in gateway.log_path.read_text()
        gateway.terminate()
        assert gateway.exit_code() == 0

"""What the gateway tells of its calls: metrics under the GenAI names, tokens, its own time, and which log lines."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway_process import KEY, GatewayProcess, end, running, spec, start, upstream, write_config, write_secret
from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, event, plain, providing, response
from tests.sidecar.collector import Collector
from tests.waiting import wait_until
from tools.generate import REPOSITORY

pytestmark = pytest.mark.server

PATH = "/v1/chat/completions"


def usage(given: int, made: int) -> bytes:
    counts = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return (
        b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": counts}).encode() + b"\n\n"
    )


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        kind = request.path.split("/")[1]
        if kind == "fails":
            writer.write(response(500, b"{}"))
        elif kind == "refuses":
            writer.write(response(422, b"{}"))
        elif kind == "cut":
            writer.write(STREAM_HEAD + chunk(event("half ")))
            await writer.drain()
            writer.close()
        elif request.json.get("stream"):
            words = [event(word) for word in ("one ", "two ", "three")]
            writer.write(STREAM_HEAD + b"".join(map(chunk, [*words, event(None, "stop"), usage(7, 3), DONE])) + END)
        else:
            await plain(request, writer)

    with providing(behaviour) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(
    provider: Provider, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    write_secret(folder / "secrets", "clients", {"app": KEY, "batch": "key-of-batch"})
    names = ["good", "fails", "refuses", "cut"]
    chat = spec(
        provider.url,
        upstreams=[upstream(name, f"{provider.url}/{name}") for name in names],
        models=[
            *({"name": name, "targets": [{"upstream": name}]} for name in names),
            {"name": "falls", "targets": [{"upstream": "fails"}], "fallbacks": ["good"]},
            {"name": "llama*", "targets": [{"upstream": "good"}]},
        ],
        defaultUpstream="good",
        limits=[{"name": "tokens", "per": "Gateway", "tokens": 1_000_000}],
        logging={"sample": [{"status": "2xx", "client": "batch", "rate": 0.3}, {"status": "422", "rate": 0}]},
    )
    write_config(folder / "config", {"chat": chat})
    gateway = start(folder, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"})
    try:
        yield gateway
    finally:
        end(gateway)


def call(gateway: GatewayProcess, model: str, **more: Any) -> Any:
    return gateway.post({"model": model, "messages": [{"role": "user", "content": "hello"}]}, **more)


def stream(gateway: GatewayProcess, model: str) -> Any:
    return gateway.post({"model": model, "messages": [], "stream": True, "stream_options": {"include_usage": True}})


def of(model: str, upstream: str = "good", operation: str = "chat") -> dict[str, str]:
    return {
        "gen_ai_operation_name": operation,
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": model,
        "llmroute_upstream": upstream,
    }


def requests(gateway: GatewayProcess, error: str = "", **labels: str) -> float:
    return gateway.metric("gen_ai_server_request_duration_seconds_count", **labels, error_type=error)


@pytest.mark.parametrize(
    ("model", "label", "upstream", "error"),
    [
        ("good", "good", "good", ""),
        ("llama-3-of-a-client", "llama*", "good", ""),
        ("made-up-by-a-client", "other", "good", ""),
        ("falls", "falls", "good", ""),
        ("refuses", "refuses", "refuses", "422"),
        ("fails", "fails", "fails", "upstream_failed"),
    ],
)
def test_a_request_is_told_by_configured_names_alone(
    gateway: GatewayProcess, model: str, label: str, upstream: str, error: str
) -> None:
    before = requests(gateway, error, **of(label, upstream))
    call(gateway, model)
    assert requests(gateway, error, **of(label, upstream)) == before + 1
    text = gateway.get("/metrics").text
    assert "of-a-client" not in text
    assert "by-a-client" not in text


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (PATH, "chat"),
        ("/v1/responses", "chat"),
        ("/v1/messages", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "rerank"),
        ("/v1/whatever", "other"),
    ],
)
def test_the_path_says_which_operation_it_is(gateway: GatewayProcess, path: str, operation: str) -> None:
    before = requests(gateway, **of("good", operation=operation))
    assert call(gateway, "good", path=path).status_code == 200
    assert requests(gateway, **of("good", operation=operation)) == before + 1


def test_what_cannot_be_read_is_of_no_model(gateway: GatewayProcess) -> None:
    before = gateway.get("/metrics").text.count("gen_ai_server_request_duration_seconds_count")
    assert gateway.post(b"no JSON").status_code == 400
    assert call(gateway, "good", key="wrong").status_code == 401
    assert gateway.get("/metrics").text.count("gen_ai_server_request_duration_seconds_count") == before


def tokens(gateway: GatewayProcess, kind: str, **labels: str) -> tuple[float, float]:
    """Counter, and the histogram's sum."""
    return (
        gateway.metric("llmroute_tokens_total", model="good", upstream="good", type=kind, estimated="false", **labels),
        gateway.metric("gen_ai_client_token_usage_sum", **of("good"), gen_ai_token_type=kind),
    )


def test_tokens_are_told_as_the_answer_tells_them(gateway: GatewayProcess, collector: Collector) -> None:
    before = tokens(gateway, "input"), tokens(gateway, "output")
    answer = call(gateway, "good")
    streamed = stream(gateway, "good")
    given, made = tokens(gateway, "input"), tokens(gateway, "output")
    assert [after - earlier for after, earlier in zip(given, before[0], strict=True)] == [1 + 7, 1 + 7]
    assert [after - earlier for after, earlier in zip(made, before[1], strict=True)] == [1 + 3, 1 + 3]

    assert gateway.request_line(answer.headers["x-request-id"])["tokens"] == {
        "input": 1,
        "output": 1,
        "estimated": False,
    }
    request, attempt = collector.trace(streamed.headers["x-trace-id"], 2)
    for span in (request, attempt):
        assert (span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]) == (7, 3)
    assert attempt.attributes["gen_ai.response.time_to_first_chunk"] >= 0


def test_a_streams_first_token_and_pace_are_told(gateway: GatewayProcess) -> None:
    names = ("gen_ai_server_time_to_first_token_seconds_count", "gen_ai_server_time_per_output_token_seconds_count")
    before = [gateway.metric(name, **of("good")) for name in names]
    call(gateway, "good")
    assert [gateway.metric(name, **of("good")) for name in names] == before
    stream(gateway, "good")
    assert [gateway.metric(name, **of("good")) for name in names] == [count + 1 for count in before]


def test_estimates_are_told_as_such_and_not_under_the_conventions_names(
    gateway: GatewayProcess, collector: Collector
) -> None:
    answer = stream(gateway, "cut")
    line = gateway.request_line(answer.headers["x-request-id"])
    assert line["tokens"]["estimated"] is True
    labels = {"model": "cut", "upstream": "cut", "type": "output"}
    assert gateway.metric("llmroute_tokens_total", **labels, estimated="true") == line["tokens"]["output"] > 0
    assert gateway.metric("llmroute_tokens_total", **labels, estimated="false") == 0
    assert gateway.metric("gen_ai_client_token_usage_count", **of("cut", "cut"), gen_ai_token_type="output") == 0
    assert requests(gateway, "truncated_connection_lost", **of("cut", "cut")) == 1
    for span in collector.trace(answer.headers["x-trace-id"], 2):
        assert span.attributes["llmroute.usage.estimated"] is True


def test_an_error_uses_no_tokens(gateway: GatewayProcess) -> None:
    answer = call(gateway, "fails")
    assert "tokens" not in gateway.request_line(answer.headers["x-request-id"])
    assert 'model="fails"' not in "".join(re.findall("llmroute_tokens_total{.*", gateway.get("/metrics").text))


def test_what_came_of_each_candidate_is_told(gateway: GatewayProcess) -> None:
    def came_of(upstream: str, reason: str) -> float:
        return gateway.metric("llmroute_attempts_total", upstream=upstream, reason=reason)

    before = came_of("fails", "server_error") + came_of("fails", "circuit_open"), came_of("good", "served")
    assert call(gateway, "falls").status_code == 200
    after = came_of("fails", "server_error") + came_of("fails", "circuit_open"), came_of("good", "served")
    assert after == (before[0] + 1, before[1] + 1)
    cut = came_of("cut", "truncated_connection_lost")
    stream(gateway, "cut")
    assert came_of("cut", "truncated_connection_lost") == cut + 1


def test_the_gateways_own_time_is_told_of_calls_that_came_to_an_upstream(gateway: GatewayProcess) -> None:
    before = gateway.metric("llmroute_overhead_seconds_count"), gateway.metric("llmroute_overhead_seconds_sum")
    call(gateway, "good")
    call(gateway, "good", key="wrong")
    count, total = gateway.metric("llmroute_overhead_seconds_count"), gateway.metric("llmroute_overhead_seconds_sum")
    assert count == before[0] + 1
    assert total > before[1]


def test_every_series_has_one_sample_and_a_bounded_name(gateway: GatewayProcess) -> None:
    for path in (PATH, "/v1/%s" % ("x" * 50), "/v1/embeddings"):
        call(gateway, "good", path=path)
    families = list(text_string_to_metric_families(gateway.get("/metrics").text))
    series = [(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples]
    assert len(series) == len(set(series))
    assert "xxxxx" not in str(series)


# -- which lines are logged


def logged_ids(gateway: GatewayProcess) -> set[str]:
    return {line["request_id"] for line in gateway.lines if line["message"] == "request"}


def test_a_rule_lets_its_share_be_logged_and_the_trace_decides(gateway: GatewayProcess) -> None:
    traces = [f"{number:032x}" for number in range(1, 61)]
    for trace in traces:
        for turn in "ab":
            headers = {"x-trace-id": trace, "x-request-id": f"{turn}-{trace}"}
            assert call(gateway, "good", key="key-of-batch", headers=headers).status_code == 200
    last = call(gateway, "good").headers["x-request-id"]
    gateway.request_line(last)  # another client's, which no rule is about

    def in_share(trace: str) -> bool:
        return int.from_bytes(hashlib.blake2b(trace.encode(), digest_size=8).digest()) < 0.3 * 2**64

    expected = {f"{turn}-{trace}" for trace in traces if in_share(trace) for turn in "ab"}
    assert 0 < len(expected) < 60
    assert {one for one in logged_ids(gateway) if one[:2] in ("a-", "b-")} == expected


def test_errors_are_logged_but_where_a_rule_names_them(gateway: GatewayProcess) -> None:
    def answered(model: str, **more: Any) -> str:
        request_id: str = call(gateway, model, key="key-of-batch", **more).headers["x-request-id"]
        return request_id

    hidden = answered("refuses")
    told = [answered("fails"), call(gateway, "good", key="wrong").headers["x-request-id"]]
    told += [gateway.post(b"no JSON").headers["x-request-id"], stream(gateway, "cut").headers["x-request-id"]]
    wait_until(lambda: logged_ids(gateway) >= set(told), "the errors to be logged")
    assert hidden not in logged_ids(gateway)


def test_every_metric_stands_in_the_docs(gateway: GatewayProcess) -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    names = re.findall(r"^# TYPE (\S+) ", gateway.get("/metrics").text, re.MULTILINE)
    assert len(names) > 30
    # `_created` tells since when a counter counts: prometheus_client adds one to each of its own.
    assert [name for name in names if f"`{name}`" not in page and not name.endswith("_created")] == []


# -- where no limit asks for tokens


MESSAGE: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway whose route has a limit on concurrency alone; the provider writes three tokens, at a price."""

    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/messages":
            writer.write(STREAM_HEAD)
            for told in MESSAGE:
                writer.write(chunk(b"event: %b\n" % told["type"].encode()))
                await writer.drain()
                writer.write(chunk(b"data: " + json.dumps(told).encode() + b"\n\n"))
                await writer.drain()
            writer.write(END)
        elif request.json.get("stream"):
            writer.write(STREAM_HEAD)
            last = [usage(7, 3)] if request.json.get("stream_options") else []
            for data in [event("one "), event("two "), event("three"), event(None, "stop"), *last, DONE]:
                writer.write(chunk(data))
                await writer.drain()
            writer.write(END)
        else:
            await plain(request, writer)

    with providing(behaviour) as provider:
        route = spec(provider.url, limits=[{"name": "slots", "per": "Gateway", "concurrency": 8}])
        route["prices"] = [{"model": "gpt", "inputPerMillion": "2.5", "outputPerMillion": "10"}]
        folder = tmp_path_factory.mktemp("unlimited")
        with running(folder, {"chat": route}) as gateway:
            yield gateway


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        (PATH, {}, {"input": 1, "output": 1, "estimated": False}),
        (
            PATH,
            {"stream": True, "stream_options": {"include_usage": True}},
            {"input": 7, "output": 3, "estimated": False},
        ),
        ("/v1/messages", {"stream": True}, {"input": 7, "output": 3, "estimated": False}),
        (PATH, {"stream": True}, None),
    ],
)
def test_tokens_are_told_without_a_limit_where_the_answer_tells_them(
    unlimited: GatewayProcess, path: str, more: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    labels = {"model": "gpt", "upstream": "provider"}
    cost = unlimited.metric("llmroute_cost_usd_total", **labels)
    answer = unlimited.post({"model": "gpt", "messages": [], **more}, path=path)
    assert answer.status_code == 200
    assert unlimited.request_line(answer.headers["x-request-id"]).get("tokens") == expected
    spent = unlimited.metric("llmroute_cost_usd_total", **labels) - cost
    usd = 0 if expected is None else (2.5 * expected["input"] + 10 * expected["output"]) / 1e6
    assert spent == pytest.approx(usd)

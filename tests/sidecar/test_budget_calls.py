"""Budgets and several limits at once, over sockets: what a call costs, who is named in the 429, what a reload keeps."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import Provider, answers, providing, response

pytestmark = pytest.mark.server
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}
MILLION = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "total_tokens": 2_000_000}
GPT_4O = 12.5
"""What a million tokens in and out cost, by the table of known models."""


def spend(usd: str, per: str = "Client", period: str = "Month", name: str = "spend") -> dict[str, Any]:
    return {"name": name, "per": per, "budget": {"usd": usd, "period": period}}


def answer(usage: dict[str, int]) -> bytes:
    return response(200, json.dumps({"choices": [], "usage": usage}).encode())


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing(answers(answer(MILLION))) as provider:
        yield provider


def route(provider: Provider, *limits: dict[str, Any], **changes: Any) -> dict[str, Any]:
    models = [{"name": name, "targets": [{"upstream": "provider"}]} for name in ("gpt-4o", "gpt-4o-mini", "mine")]
    return spec(provider.url, **{"models": models, **({"limits": list(limits)} if limits else {}), **changes})


@pytest.fixture
def serve(provider: Provider, tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    with ExitStack() as stack:

        def start(*limits: dict[str, Any], **changes: Any) -> GatewayProcess:
            routes = {"chat": route(provider, *limits, **changes)}
            return stack.enter_context(running(tmp_path, routes, keys={"other": "key-other"}))

        yield start


def left(gateway: GatewayProcess, name: str = "spend", kind: str = "budget") -> float:
    return gateway.metric("llmroute_limit_remaining", route="chat", limit=name, kind=kind)


def test_a_budget_is_spent_to_the_cent_and_then_refuses(
    serve: Callable[..., GatewayProcess], provider: Provider
) -> None:
    gateway = serve(spend("20"))
    assert gateway.post(HELLO).status_code == 200
    assert left(gateway) == 20 - GPT_4O
    assert gateway.post(HELLO).status_code == 200  # its estimate fits; it costs more
    assert left(gateway) == 0
    refused = gateway.post(HELLO)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == refused.json()["error"]["type"] == "insufficient_quota"
    assert refused.json()["error"]["message"].startswith("the budget 'spend' of 20 US dollars has no room for this")
    assert refused.headers["x-llmroute-limit"] == "spend"
    assert 0 < int(refused.headers["retry-after"]) <= 31 * 24 * 3600
    assert gateway.post(HELLO, key="key-other").status_code == 200
    assert gateway.metric("gateway_rate_limited_total") == 1
    assert len(provider.requests) == 3


def test_a_refusal_on_the_anthropic_path_has_its_shape(serve: Callable[..., GatewayProcess]) -> None:
    gateway = serve(spend("0"))
    refused = gateway.post(HELLO, "/v1/messages")
    assert refused.status_code == 429
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.json()["error"]["code"] == "insufficient_quota"


def test_each_models_price_counts_and_what_the_route_says_comes_first(serve: Callable[..., GatewayProcess]) -> None:
    prices = [
        {"model": "gpt-4o*", "inputPerMillion": "1", "outputPerMillion": "0.5"},
        {"model": "mine", "inputPerMillion": "0.000001", "outputPerMillion": "0"},
    ]
    gateway = serve(spend("100", per="Gateway"), prices=prices)
    gateway.post(HELLO)
    assert left(gateway) == 98.5
    gateway.post({**HELLO, "model": "mine"})
    assert left(gateway) == 98.499999
    assert gateway.metric("llmroute_price_unknown_total", model="mine") == 0


def test_a_model_without_a_price_costs_nothing_and_is_told(serve: Callable[..., GatewayProcess]) -> None:
    gateway = serve(spend("1"))
    for _ in range(2):
        assert gateway.post({**HELLO, "model": "mine"}).status_code == 200
    assert left(gateway) == 1
    assert gateway.metric("llmroute_price_unknown_total", model="mine") == 2


def test_the_target_that_served_has_the_price(serve: Callable[..., GatewayProcess], provider: Provider) -> None:
    """The first one fails: what it would have cost is given back."""
    gateway = serve(
        spend("100", per="Gateway"),
        upstreams=[upstream("dear", "mock://fail"), upstream("cheap", provider.url)],
        models=[
            {
                "name": "gpt-4o",
                "targets": [
                    {"upstream": "dear", "model": "gpt-4o"},
                    {"upstream": "cheap", "model": "gpt-4o-mini", "weight": 0},
                ],
            }
        ],
    )
    assert gateway.post(HELLO).headers["x-llmroute-upstream"] == "cheap"
    assert left(gateway) == pytest.approx(100 - 0.75)


def test_a_budget_of_an_upstream_that_is_used_up_passes_on_to_the_next(
    serve: Callable[..., GatewayProcess], provider: Provider
) -> None:
    gateway = serve(
        spend("10", per="Upstream"),
        upstreams=[upstream("one", provider.url), upstream("two", provider.url)],
        models=[{"name": "gpt-4o", "targets": [{"upstream": "one"}, {"upstream": "two", "weight": 0}]}],
    )
    served = [gateway.post(HELLO).headers["x-llmroute-upstream"] for _ in range(2)]
    assert served == ["one", "two"]
    refused = gateway.post(HELLO)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-llmroute-limit"] == "spend"


def test_requests_of_an_upstream_are_limited_beside_a_metered_route(
    serve: Callable[..., GatewayProcess], provider: Provider
) -> None:
    gateway = serve(
        {"name": "tokens", "per": "Client", "tokens": 10**9},
        {"name": "calls", "per": "Upstream", "requests": 1, "window": "1h"},
    )
    assert gateway.post(HELLO).status_code == 200
    refused = gateway.post(HELLO)
    assert refused.headers["x-llmroute-limit"] == "calls"
    assert len(provider.requests) == 1


def test_the_strictest_of_several_is_named_and_nothing_is_counted_on_refusal(
    serve: Callable[..., GatewayProcess], provider: Provider
) -> None:
    provider.behaviour = answers(answer({"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}))
    gateway = serve(
        {"name": "short", "per": "Client", "requests": 1, "window": "1m"},
        {"name": "day", "per": "Model", "tokens": 100, "window": "24h"},
        spend("1000", per="Gateway"),
        {"name": "slots", "per": "Gateway", "concurrency": 5},
    )
    first = gateway.post(HELLO)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "100"
    before = [left(gateway, *each) for each in (("spend",), ("slots", "concurrency"))]
    for _ in range(3):
        refused = gateway.post(HELLO)
        assert refused.headers["x-llmroute-limit"] == "day"  # a day is longer than a minute
        assert refused.json()["error"]["type"] == "tokens"
    refused = gateway.post({**HELLO, "model": "mine"})
    assert refused.headers["x-llmroute-limit"] == "short"
    assert refused.json()["error"]["type"] == "requests"
    assert [left(gateway, *each) for each in (("spend",), ("slots", "concurrency"))] == before


def test_what_is_used_survives_a_reload_and_new_numbers_apply_to_it(
    serve: Callable[..., GatewayProcess], provider: Provider
) -> None:
    tokens = {"name": "tokens", "per": "Gateway", "tokens": 10_000_000, "window": "1h"}
    gateway = serve(spend("100"), tokens)
    gateway.post(HELLO)
    gateway.write({"chat": route(provider, spend("50", period="Day"), {**tokens, "tokens": 3_000_000})})
    assert left(gateway) == 50 - GPT_4O
    assert left(gateway, "tokens", "tokens") == 1_000_000
    gateway.write({"chat": route(provider, spend("12.5", period="Day"))})
    assert gateway.post(HELLO).json()["error"]["code"] == "insufficient_quota"
    gateway.write({"chat": route(provider)})
    assert gateway.post(HELLO).status_code == 200
    gateway.write({"chat": route(provider, spend("12.5", period="Day"))})
    assert left(gateway) == 12.5  # it was gone, and begins anew


@pytest.mark.parametrize(
    ("limit", "kind", "code"),
    [
        ({"name": "l", "per": "Client", "requests": 1, "window": "1h"}, "requests", "rate_limit_exceeded"),
        ({"name": "l", "per": "Client", "tokens": 1000, "window": "1h"}, "tokens", "rate_limit_exceeded"),
        (spend("1", name="l"), "insufficient_quota", "insufficient_quota"),
    ],
)
def test_the_openai_package_raises_what_it_raises_for_openai(
    serve: Callable[..., GatewayProcess], provider: Provider, limit: dict[str, Any], kind: str, code: str
) -> None:
    gateway = serve(limit)
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key=KEY, max_retries=2) as client:
        client.chat.completions.create(**HELLO)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**HELLO)
    assert refused.value.type == kind
    assert refused.value.code == code
    assert refused.value.response.headers["x-llmroute-limit"] == "l"
    assert refused.value.response.headers["x-should-retry"] == "false"  # an hour, or a month, is no SDK's patience
    assert len(provider.requests) == 1


@pytest.mark.parametrize("asked", [False, True])
def test_a_mock_upstream_tells_its_usage_as_a_model_does(serve: Callable[..., GatewayProcess], asked: bool) -> None:
    tokens = {"name": "tokens", "per": "Gateway", "tokens": 10_000, "window": "1h"}
    gateway = serve(tokens, upstreams=[upstream("provider", "mock://local?tokens=40")])
    body = {**HELLO, "stream": True, **({"stream_options": {"include_usage": True}} if asked else {})}
    answer = gateway.post(body)
    assert (b'"completion_tokens": 40' in answer.content) is asked
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert 9900 < left(gateway, "tokens", "tokens") < 9960
    assert gateway.metric("llmroute_usage_estimated_total") == 0


def test_the_gauges_have_a_series_for_each_limit_and_none_for_each_key(
    serve: Callable[..., GatewayProcess], provider: Provider
) -> None:
    models = [{"name": "*", "targets": [{"upstream": "provider"}]}]
    limits = [spend("100", per="Model"), {"name": "tokens", "per": "Model", "tokens": 10**9}]
    gateway = serve(*limits, models=models)
    for number in range(20):
        gateway.post({**HELLO, "model": f"gpt-4o-{number}"})
    text = gateway.get("/metrics").text
    assert len(re.findall(r"^llmroute_limit_remaining\{", text, re.MULTILINE)) == 2
    assert 'llmroute_price_unknown_total{model="*"} 20.0' in text

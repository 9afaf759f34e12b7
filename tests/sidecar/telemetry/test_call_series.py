"""Calls are counted by what the configuration names, and by no more of it than a scrape can bear."""

from types import SimpleNamespace
from typing import Any

import pytest

from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.telemetry import call_series
from llmroute_sidecar.telemetry.metrics import Metrics


def target(name: str, route: str = "chat") -> Any:
    url = parse_upstream_url("https://api.mistral.ai/v1")
    return SimpleNamespace(id=f"{route}/{name}", name=name, url=url, protocol="OpenAI")


def told(metrics: Metrics, start: str) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith(start)]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def test_upstreams_of_one_name_in_two_routes_are_counted_in_one_series() -> None:
    metrics = Metrics("test")
    for route in ("one", "two"):
        metrics.calls.of("/v1/embeddings", "e", target("main", route)).used(3, 0, estimated=False)
    assert told(metrics, "llmroute_tokens_total") == {
        'llmroute_tokens_total{model="e",upstream="main",type="input",estimated="false"}': 6,
        'llmroute_tokens_total{model="e",upstream="main",type="output",estimated="false"}': 0,
    }
    labels = (
        'gen_ai_operation_name="embeddings",gen_ai_provider_name="mistral_ai",'
        'gen_ai_request_model="e",llmroute_upstream="main"'
    )
    counts = told(metrics, "gen_ai_client_token_usage_count")
    assert counts[f'gen_ai_client_token_usage_count{{{labels},gen_ai_token_type="input"}}'] == 2


def test_a_call_that_came_to_no_upstream_names_none() -> None:
    metrics = Metrics("test")
    metrics.calls.of("/v1/chat/completions", "gpt", None).ended("rate_limit_exceeded", 0.01)
    (series,) = told(metrics, "gen_ai_server_request_duration_seconds_count")
    assert 'llmroute_upstream=""' in series
    assert 'gen_ai_provider_name=""' in series
    assert 'error_type="rate_limit_exceeded"' in series


def test_one_token_has_no_pace() -> None:
    metrics = Metrics("test")
    series = metrics.calls.of("/v1/chat/completions", "gpt", target("main"))
    series.pace(1.0, 1)
    assert told(metrics, "gen_ai_server_time_per_output_token_seconds_count") == {}
    series.pace(1.0, 3)
    assert list(told(metrics, "gen_ai_server_time_per_output_token_seconds_sum").values()) == [0.5]


def test_what_costs_nothing_known_is_in_no_series_of_costs() -> None:
    metrics = Metrics("test")
    series = metrics.calls.of("/v1/chat/completions", "gpt", target("main"))
    series.used(1, 1, estimated=False)
    assert told(metrics, "llmroute_cost_usd_total") == {}
    series.cost(0.25)
    series.cost(0.5)
    assert told(metrics, "llmroute_cost_usd_total") == {'llmroute_cost_usd_total{model="gpt",upstream="main"}': 0.75}


def test_names_without_end_make_series_with_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_series, "KINDS_MAX", 5)
    metrics = Metrics("test")
    for number in range(50):
        metrics.calls.of("/v1/chat/completions", f"model-{number}", target(f"upstream-{number}")).ended(None, 0.1)
    counts = told(metrics, "gen_ai_server_request_duration_seconds_count")
    assert len(counts) == 6
    assert sum(counts.values()) == 50
    (rest,) = [count for series, count in counts.items() if 'gen_ai_request_model="other"' in series]
    assert rest == 45

"""What Prometheus gets: well-formed, one sample a series, and no label whose values a client chooses."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmroute_sidecar.telemetry.metrics import METHODS, Metrics
from tests.gateway_process import running, spec, upstream


def test_upstreams_of_one_name_in_two_routes_make_one_series_and_the_worst_state_is_told() -> None:
    metrics = Metrics("test")
    metrics.watch_breakers(
        lambda: [("openai", "closed"), ("openai", "open"), ("azure", "half_open"), ("openai", "half_open")]
    )
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith("llmroute_breaker_state{")]
    assert lines == ['llmroute_breaker_state{upstream="openai"} 2.0', 'llmroute_breaker_state{upstream="azure"} 1.0']


def test_methods_that_a_client_makes_up_are_one_label() -> None:
    metrics = Metrics("test")
    for method in ["BREW", "PROPFIND", "", "x" * 1000, *METHODS]:
        metrics.request(method, "other", 404, 0.1)
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    samples = [sample for sample in families["gateway_requests"].samples if sample.name.endswith("_total")]
    assert {sample.labels["method"] for sample in samples} == METHODS | {"other"}
    assert next(sample.value for sample in samples if sample.labels["method"] == "other") == 4


@pytest.mark.server
def test_a_scrape_of_two_routes_with_an_upstream_of_one_name_has_no_series_twice(tmp_path: Path) -> None:
    one = spec(
        "mock://fail", upstreams=[upstream("provider", "mock://fail", breaker={"maxFailures": 1, "reset": "1h"})]
    )
    other = spec("mock://local", models=[{"name": "other", "targets": [{"upstream": "provider"}]}])
    with running(tmp_path, {"one": one, "other": other}) as gateway:
        assert gateway.post({"model": "gpt"}).status_code == 502
        assert gateway.post({"model": "other"}).status_code == 200
        assert gateway.metric("llmroute_breaker_state", upstream="provider") == 2
        for method in ("TRACE", "PROPFIND", "MKCOL"):
            gateway._client.request(method, f"{gateway.url}/nothing")
        series = [
            (sample.name, *sorted(sample.labels.items()))
            for family in text_string_to_metric_families(gateway.get("/metrics").text)
            for sample in family.samples
        ]
        assert len(series) == len(set(series))
        assert not [one for one in series if "PROPFIND" in str(one)]

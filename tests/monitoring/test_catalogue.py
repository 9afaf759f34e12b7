"""Dashboards and rules ask for metrics that gateway or controller have, by labels that they have."""

import re
from collections.abc import Mapping
from functools import cache

import pytest

from llmroute_operator.controller.metrics import Metrics as ControllerMetrics
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.workers import WorkerSeries
from monitoring.rules import Recording, groups
from tests.monitoring.test_queries import QUERIES

RECORDED = {rule.record for group in groups() for rule in group.rules if isinstance(rule, Recording)}
ENDINGS = ("_bucket", "_sum", "_count")


@cache
def told() -> frozenset[str]:
    metrics = Metrics("")
    metrics.watch_breakers(lambda: ())
    metrics.watch_limits(lambda: ())
    metrics.registry.register(WorkerSeries(lambda: ()))
    names = set()
    for metric in metrics.registry.described():
        names |= {metric.name + ending for ending in ENDINGS} if metric.kind == "histogram" else {metric.name}
    return frozenset(names | of_the_controller())


def of_the_controller() -> set[str]:
    metrics = ControllerMetrics("")
    empty: Mapping[str, int] = {}
    metrics.show_pods(lambda: empty, lambda: empty)
    names = set()
    for family in metrics.registry.collect():
        match family.type:
            case "counter":
                names.add(f"{family.name}_total")
            case "histogram":
                names |= {family.name + ending for ending in ENDINGS}
            case _:
                names.add(family.name)
    return names


def asked(query: str) -> set[str]:
    return set(re.findall(r"\b((?:llmroute|gateway|gen_ai)_\w+|llmroute:[\w:]+)(?=[\[{) ]|$)", query)) - {
        "llmroute_upstream",
        "gen_ai_request_model",
        "gen_ai_token_type",
    }


@pytest.mark.parametrize("where", QUERIES)
def test_what_a_query_asks_for_is_told(where: str) -> None:
    names = asked(QUERIES[where])
    assert names or re.search(r"\bup{", QUERIES[where]), f"no metric found in {QUERIES[where]}"
    assert names <= told() | RECORDED, names - told() - RECORDED

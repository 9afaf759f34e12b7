"""Dashboards and rules ask for metrics that gateway, controller or injector have, by names that they have."""

import re
from functools import cache

import pytest

from monitoring.rules import Recording, groups
from tests.monitoring.test_queries import QUERIES
from tools.metrics_page import of_the_controller, of_the_gateway, of_the_injector

RECORDED = {rule.record for group in groups() for rule in group.rules if isinstance(rule, Recording)}
ENDINGS = ("_bucket", "_sum", "_count")


@cache
def told() -> frozenset[str]:
    names: set[str] = set()
    for metric in (*of_the_gateway(), *of_the_controller(), *of_the_injector()):
        names |= {metric.name + ending for ending in ENDINGS} if metric.kind == "histogram" else {metric.name}
    return frozenset(names)


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

"""Every query of every panel and rule has an answer, from a real Prometheus that reads real gateways."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from monitoring.files import DASHBOARDS, FOLDER
from monitoring.rules import Alert, Recording, groups
from monitoring.scrape import CONTROLLER, GATEWAY_JOB, INJECTOR, Part
from tests.cluster.control_plane import REPOSITORY
from tests.monitoring.conftest import SHORT, Observed

pytestmark = [pytest.mark.cluster, pytest.mark.server]
SUBSTITUTED = {"$__rate_interval": "5s", "$__range": "8s", "$namespace": ".*", "$gateway": ".*", "$pod": ".*"}


def substituted(expression: str) -> str:
    """As Grafana does where all is chosen."""
    for variable, value in SUBSTITUTED.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"a variable that nobody fills: {expression}"
    return expression


def panel_queries() -> Iterator[tuple[str, str]]:
    """Of the files as they are committed: where it stands, and the query."""
    for board in DASHBOARDS:
        document = json.loads((REPOSITORY / FOLDER / "dashboards" / f"{board.uid}.json").read_text())
        for panel in _panels(document):
            for target in panel.get("targets", ()):
                yield f"{board.uid}: {panel['title']} {target['refId']}", target["expr"]


def _panels(document: Any) -> Iterator[Any]:
    for panel in document["panels"]:
        yield panel
        yield from panel.get("panels") or ()


def variable_queries() -> Iterator[tuple[str, str]]:
    """label_values(series, label), as the query that it stands for."""
    for board in DASHBOARDS:
        document = json.loads((REPOSITORY / FOLDER / "dashboards" / f"{board.uid}.json").read_text())
        for variable in document["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((\w+)(?:{(.*)})?, (\w+)\)", variable["query"])
                assert found, variable
                name, matchers, label = found.groups()
                inside = ", ".join(filter(None, (matchers, f'{label}!=""')))
                yield f"{board.uid}: ${variable['name']}", f"count by ({label}) ({name}{{{inside}}})"


def rule_queries() -> Iterator[tuple[str, str]]:
    """An alert's conditions without what they are compared with."""
    for group in groups(SHORT):
        for rule in group.rules:
            match rule:
                case Recording():
                    yield rule.record, rule.query
                case Alert():
                    for number, condition in enumerate(rule.conditions, 1):
                        yield f"{rule.name} {number}", condition.query


QUERIES = dict([*panel_queries(), *variable_queries(), *rule_queries()])


@pytest.mark.parametrize("where", QUERIES)
def test_a_query_finds_series(observed: Observed, where: str) -> None:
    assert observed.prometheus.query(substituted(QUERIES[where])), f"{where} finds nothing:\n{QUERIES[where]}"


def test_a_gateways_series_say_where_it_is(observed: Observed) -> None:
    found = {
        (series["metric"]["namespace"], series["metric"]["gateway"], series["metric"]["pod"])
        for series in observed.prometheus.query(f'llmroute_build_info{{job="{GATEWAY_JOB}"}}')
    }
    assert found == {(observed.namespace, "default", pod) for pod in observed.scene.gateways}


@pytest.mark.parametrize("part", [CONTROLLER, INJECTOR], ids=lambda part: part.name)
def test_a_part_of_the_operator_is_found_by_its_service(observed: Observed, part: Part) -> None:
    found = [
        series["metric"] for series in observed.prometheus.query(f'llmroute_{part.name}_routes{{job="{part.job}"}}')
    ]
    assert [labels["service"] for labels in found] == [part.service]


def test_every_rule_is_evaluated_without_fault(observed: Observed) -> None:
    rules = observed.prometheus.rules()
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"} == {}
    assert len(rules) == sum(len(group.rules) for group in groups())


def test_a_recorded_ratio_is_the_share_of_calls_that_failed(observed: Observed) -> None:
    [ratio] = observed.prometheus.query("llmroute:calls_errors:ratio_rate5m")
    assert 0 < float(ratio["value"][1]) < 1

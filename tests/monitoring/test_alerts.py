"""Each alert fires when it should, is quiet when it should be, and has a page."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.files import FOLDER
from monitoring.rules import Alert, alerts
from tests.cluster.control_plane import REPOSITORY
from tests.monitoring.alert_cases import ALERT_CASES, Series

RULES = REPOSITORY / FOLDER / "without-operator" / "rules.yaml"
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
ELSEWHERE = ("Targets", "Last requests", "by cause")
"""Prometheus' page, the admin page's table, and the rest of a panel's name."""
ALERTS = {alert.name: alert for alert in alerts()}


def test_rules_are_well_formed(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(320)  # half a minute of CPU
def test_each_alert_fires_when_it_should_and_not_otherwise(promtool: str, tmp_path: Path) -> None:
    """All in one run of promtool, which reads the generated file: it takes seconds to start."""
    assert set(ALERT_CASES) == set(ALERTS)
    tests = [
        promtool_test(alert, series, ALERT_CASES[alert.name].at, fires=fires)
        for alert in ALERTS.values()
        for series, fires in ((ALERT_CASES[alert.name].fires, True), (ALERT_CASES[alert.name].quiet, False))
    ]
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def promtool_test(alert: Alert, series: Series, at: str, *, fires: bool) -> dict[str, Any]:
    """By the synthetic series ALERTS: an alert's texts are checked below, its firing here."""
    expected = [{"labels": f'{{fires="{alert.name}"}}', "value": 1}] if fires else []
    firing = f'ALERTS{{alertname="{alert.name}", alertstate="firing"}}'
    return {
        "name": f"{alert.name} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'label_replace(group({firing}), "fires", "{alert.name}", "", "")',
                "eval_time": at,
                "exp_samples": expected,
            }
        ],
    }


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_page_that_says_what_to_do(name: str) -> None:
    page = RUNBOOKS / f"{name}.md"
    assert page.exists(), f"docs/runbooks/{name}.md is missing"
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    assert headings == [name, "What it means", "What to look at", "What to do"]


def test_every_page_belongs_to_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_page_names_panels_that_are_there_and_namespaces_of_what_is_looked_at(name: str) -> None:
    text = " ".join((RUNBOOKS / f"{name}.md").read_text().split())
    shown = re.sub(r"[*`]", "", (REPOSITORY / "docs" / "dashboards.md").read_text())
    named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", re.sub(r"`[^`]*`", "", text))
    assert [panel for panel in named if panel not in shown and panel not in ELSEWHERE] == []
    commands = re.findall(r"`(kubectl [^`]*)`", text)
    assert [one for one in commands if not re.search(r" (-n|-A)\b|mutatingwebhook|nodes|rollout restart$", one)] == []


@pytest.mark.parametrize("name", ALERTS)
def test_an_alerts_text_names_only_labels_that_it_has(name: str) -> None:
    alert = ALERTS[name]
    for label in re.findall(r"\$labels\.(\w+)", alert.summary):
        assert re.search(rf"\b{label}\b", alert.conditions[0].query) or alert.conditions[0].query.startswith(
            "llmroute:"
        ), label

"""Every file of manifests/monitoring/ and docs/alerts.md: path within the repository -> text."""

from collections.abc import Mapping
from typing import Any

import yaml

from monitoring.gateway import GATEWAY
from monitoring.operator import OPERATOR
from monitoring.overview import OVERVIEW
from monitoring.panels import Dashboard, json_of
from monitoring.rules import alerts, prometheus_rule, rules_file
from monitoring.scrape import (
    CONTROLLER,
    INJECTOR,
    OPERATOR_NAMESPACE,
    metrics_service,
    pod_monitor,
    scrape_configs,
    service_monitor,
)

FOLDER = "manifests/monitoring"
MANIFESTS = ("podmonitor.yaml", "servicemonitor.yaml", "servicemonitor-injector.yaml", "prometheusrule.yaml")
"""For Prometheus Operator."""
HEADER = "# Generated from monitoring/ by `make generate`. Do not edit.\n"
DASHBOARDS = (OVERVIEW, GATEWAY, OPERATOR)
ALERTS_ABOUT = """<!-- Generated from monitoring/rules.py by `make generate`. Do not edit. -->

# Alerts

Each has a page that says what it means, what to look at and what to do. NAMESPACE, GATEWAY and POD in their commands
are the alert's labels; where it has no pod, `kubectl -n NAMESPACE get pods -l llmroute.dev/gateway=GATEWAY` lists them.
`kubectl llmroute` comes with the `llmroute` command (`make setup`: in `.venv/bin`), and a pod's own page is
[one port-forward away](admin-page.md).

| alert | severity | when | for | says |
|---|---|---|---|---|
"""


def files() -> Mapping[str, str]:
    return {
        **{f"{FOLDER}/dashboards/{board.uid}.json": json_of(board) for board in DASHBOARDS},
        f"{FOLDER}/prometheusrule.yaml": _yaml(prometheus_rule()),
        f"{FOLDER}/podmonitor.yaml": _yaml(pod_monitor()),
        f"{FOLDER}/servicemonitor.yaml": _yaml(metrics_service(CONTROLLER), service_monitor(CONTROLLER)),
        f"{FOLDER}/servicemonitor-injector.yaml": _yaml(metrics_service(INJECTOR), service_monitor(INJECTOR)),
        f"{FOLDER}/kustomization.yaml": _kustomization(),
        f"{FOLDER}/without-operator/rules.yaml": _yaml(rules_file()),
        f"{FOLDER}/without-operator/scrape.yaml": _yaml({"scrape_configs": scrape_configs()}),
        "docs/alerts.md": _alerts_page(),
        "docs/dashboards.md": _dashboards_page(),
    }


def _kustomization() -> str:
    """The manifests, and the dashboards as Grafana's sidecar finds them."""
    about = "# kubectl apply --server-side -k manifests/monitoring/        (docs/monitoring.md)\n"
    boards = [
        {
            "name": f"{board.uid}-dashboard",
            "files": [f"dashboards/{board.uid}.json"],
            "options": {"labels": {"grafana_dashboard": "1"}, "disableNameSuffixHash": True},
        }
        for board in DASHBOARDS
    ]
    return about + _yaml(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": OPERATOR_NAMESPACE,
            "resources": list(MANIFESTS),
            "configMapGenerator": boards,
        }
    )


def _yaml(*documents: Any) -> str:
    return HEADER + yaml.dump_all(documents, sort_keys=False, width=120, Dumper=_Plain)


class _Plain(yaml.SafeDumper):
    """Without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _alerts_page() -> str:
    rows = []
    for alert in alerts():
        when = " and ".join(f"`{condition.expression}`" for condition in alert.conditions).replace("|", "\\|")
        rows.append(
            f"| [{alert.name}](runbooks/{alert.name}.md) | {alert.severity} | {when} | {alert.lasting} | "
            f"{alert.summary.replace('|', chr(92) + '|')} |\n"
        )
    return ALERTS_ABOUT + "".join(rows)


def _dashboards_page() -> str:
    about = "<!-- Generated from monitoring/ by `make generate`. Do not edit. -->\n\n# Dashboards\n"
    return about + "".join(_dashboard_part(board) for board in DASHBOARDS)


def _dashboard_part(board: Dashboard) -> str:
    parts = [f"\n## {board.title}\n\n{board.description}\n"]
    for row in board.rows:
        parts.append(f"\n### {row.title}\n\n| panel | what it says |\n|---|---|\n")
        parts.extend(f"| {panel.title} | {panel.description} |\n" for panel in row.panels)
    return "".join(parts)

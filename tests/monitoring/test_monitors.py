"""The manifests for Prometheus Operator: what its own CRDs allow, by a real API server; what kustomize makes."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from monitoring.files import DASHBOARDS, FOLDER, MANIFESTS
from monitoring.rules import alerts
from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.monitoring.operator_crds import install_crds
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]  # the CRDs are made once, in a minute and a half


@pytest.fixture(scope="module")
def cluster_with_crds(control_plane: ControlPlane) -> ControlPlane:
    install_crds(control_plane)
    return control_plane


@pytest.mark.parametrize("file", MANIFESTS)
def test_the_api_server_takes_it_without_an_unknown_field(cluster_with_crds: ControlPlane, file: str) -> None:
    """Strictly: a field that the CRD does not know is refused, where it would silently be dropped."""
    path = REPOSITORY / FOLDER / file
    command = ["apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", str(path)]

    def taken() -> bool:
        done = cluster_with_crds.kubectl(*command, check=False)
        assert done.returncode == 0 or "no matches for kind" in done.stderr, done.stderr
        return done.returncode == 0

    wait_until(taken, f"the API server to know the kinds of {file}")


def test_a_wrong_field_would_be_noticed(cluster_with_crds: ControlPlane) -> None:
    text = (REPOSITORY / FOLDER / "podmonitor.yaml").read_text().replace("relabelings:", "relabellings:")
    done = cluster_with_crds.kubectl(
        "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-", input=text, check=False
    )
    assert done.returncode != 0
    assert "relabellings" in done.stderr


OVERLAY = re.search(
    r"```yaml\n(# kustomization.yaml\n.*?)```", (REPOSITORY / "docs" / "monitoring.md").read_text(), re.DOTALL
)


def test_an_overlay_says_where_the_alerts_pages_are(control_plane: ControlPlane, tmp_path: Path) -> None:
    """The one of docs/monitoring.md."""
    assert OVERLAY is not None
    shutil.copytree(REPOSITORY / FOLDER, tmp_path / "llmroute" / FOLDER)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(OVERLAY[1])
    made = list(yaml.safe_load_all(control_plane.kubectl("kustomize", str(tmp_path / "mine")).stdout))
    [rules] = [one["spec"] for one in made if one["kind"] == "PrometheusRule"]
    pages = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert pages == {alert.name: f"https://docs.example/runbooks/{alert.name}.html" for alert in alerts()}
    boards = {one["metadata"]["name"] for one in made if one["kind"] == "ConfigMap"}
    assert boards == {f"{board.uid}-dashboard" for board in DASHBOARDS}

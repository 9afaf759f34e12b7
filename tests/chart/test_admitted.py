"""The real API server takes what the chart and kustomize render, in a namespace of Pod Security `restricted`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.cert_manager import CERT_MANAGER_CRDS
from tests.chart.rendering import VALUES, render
from tests.cluster.control_plane import ControlPlane
from tests.cluster.go_build import Unavailable
from tests.waiting import wait_until
from tools.chart import CHART, NAMESPACE, REPOSITORY

pytestmark = pytest.mark.cluster

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture
def restricted(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.kubectl("create", "namespace", NAMESPACE, check=False)
    control_plane.kubectl("label", "namespace", NAMESPACE, RESTRICTED, "--overwrite")
    yield control_plane
    control_plane.kubectl("label", "namespace", NAMESPACE, RESTRICTED.split("=", maxsplit=1)[0] + "-")


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_each_set_of_values_is_admitted(helm: Path, restricted: ControlPlane, values: Path) -> None:
    found = [one for one in render(helm, "-f", str(values)).values() if "cert-manager.io" not in one["apiVersion"]]
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": name, "namespace": NAMESPACE},
            "spec": template["spec"],
        }
        for one in found
        if one["kind"] == "Deployment"
        for name, template in [(one["metadata"]["name"], one["spec"]["template"])]
    ]
    for account in ("llmroute-controller", "llmroute-injector", "default"):
        restricted.kubectl("create", "serviceaccount", account, "-n", NAMESPACE, check=False)
    text = yaml.safe_dump_all([*found, *pods])
    said = restricted.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", input=text)
    assert said.stdout.count("serverside-applied") == len(found) + len(pods)
    assert "violate" not in said.stderr


@pytest.mark.timeout(400)  # the CRDs are fetched once
def test_cert_managers_own_crds_take_what_is_rendered_for_it(helm: Path, restricted: ControlPlane) -> None:
    try:
        CERT_MANAGER_CRDS.install(restricted)
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there are no CRDs of cert-manager: {reason}")
        pytest.skip(f"there are no CRDs of cert-manager: {reason}")
    values = CHART / "ci" / "cert-manager-values.yaml"
    found = [one for one in render(helm, "-f", str(values)).values() if "cert-manager.io" in one["apiVersion"]]
    text = yaml.safe_dump_all(found)
    command = ["apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-"]

    def taken() -> bool:
        done = restricted.kubectl(*command, input=text, check=False)
        assert done.returncode == 0 or "no matches for kind" in done.stderr, done.stderr
        return done.returncode == 0

    wait_until(taken, "the API server to know cert-manager's kinds")
    assert len(found) == 4


def test_kustomize_makes_what_the_chart_makes(helm: Path, restricted: ControlPlane) -> None:
    text = restricted.kubectl("kustomize", str(REPOSITORY / "manifests")).stdout
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}
    made.pop(("Namespace", NAMESPACE))
    charted = render(helm, "--no-hooks")
    assert made.keys() == charted.keys()
    for key, one in charted.items():
        assert json.dumps(_effect(made[key]), sort_keys=True) == json.dumps(_effect(one), sort_keys=True), key
    restricted.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", input=text)


def _effect(document: dict[str, Any]) -> dict[str, Any]:
    """All but who installed it."""
    for metadata in (document["metadata"], document.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            metadata.get("labels", {}).pop(label, None)
        metadata.get("annotations", {}).pop("helm.sh/resource-policy", None)
        if metadata.get("annotations") == {}:
            del metadata["annotations"]
    return document

"""prometheus-operator's CRDs, made from its Go types by controller-gen, as its own repository makes them.

The files themselves are in no Go module; the types with their markers are.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.crds import ForeignCrds
from tests.cluster.go_build import GoBuild, Unavailable

PROMETHEUS_OPERATOR = "0.95.2"
CONTROLLER_TOOLS = "0.23.0"
_TYPES = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
_GENERATOR = "sigs.k8s.io/controller-tools/cmd/controller-gen"


def _make(build: GoBuild, wanted: Sequence[Path]) -> None:
    work = build.work("crds")
    (work / "go.mod").write_text("module llmroute-test-crds\n")
    (work / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{_GENERATOR}"\n')
    build.get("get", f"{_TYPES}@v{PROMETHEUS_OPERATOR}", work=work, name="prometheus-operator: types")
    build.get("get", f"{_GENERATOR}@v{CONTROLLER_TOOLS}", work=work, name="controller-gen: modules")
    made = work / "crds"
    command = ["run", _GENERATOR, "crd:crdVersions=v1", f"paths={_TYPES}/v1", f"output:crd:dir={made}"]
    build.get(*command, work=work, name="prometheus-operator: CRDs")
    for path in wanted:
        (made / path.name).replace(path)


PROMETHEUS_OPERATOR_CRDS = ForeignCrds(
    "prometheus-operator",
    PROMETHEUS_OPERATOR,
    "monitoring.coreos.com",
    ("podmonitors", "servicemonitors", "prometheusrules"),
    _make,
)


def install_crds(control_plane: ControlPlane) -> None:
    """And there is the namespace of our monitors. Skips where they cannot be had."""
    try:
        PROMETHEUS_OPERATOR_CRDS.install(control_plane)
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"prometheus-operator's CRDs cannot be made: {reason}")
        pytest.skip(f"prometheus-operator's CRDs cannot be made: {reason}")
    control_plane.kubectl("create", "namespace", "llmroute-system", check=False)

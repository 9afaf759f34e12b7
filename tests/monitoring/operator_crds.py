"""prometheus-operator's CRDs, made from its Go types by controller-gen, as its own repository makes them.

The files themselves are in no Go module; the types with their markers are.
"""

import os
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.go_build import Unavailable, cache_root, go_build, locked

PROMETHEUS_OPERATOR = "0.95.2"
CONTROLLER_TOOLS = "0.23.0"
KINDS = ("podmonitors", "servicemonitors", "prometheusrules")
_TYPES = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
_GENERATOR = "sigs.k8s.io/controller-tools/cmd/controller-gen"
_HOW_TO = "install Go 1.26 or newer"


def ensure_crds() -> list[Path]:
    """Those of KINDS, made once and kept in the cache. Raises Unavailable."""
    folder = cache_root() / f"prometheus-operator-{PROMETHEUS_OPERATOR}"
    found = [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]
    with locked(folder, "prometheus-operator's CRDs"):
        if not all(path.exists() for path in found):
            _make(folder, found)
    return found


def install_crds(control_plane: ControlPlane) -> None:
    """They are known to it from here on, and there is the namespace of our monitors. Skips where they cannot be had."""
    try:
        crds = ensure_crds()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"prometheus-operator's CRDs cannot be made: {reason}")
        pytest.skip(f"prometheus-operator's CRDs cannot be made: {reason}")
    for path in crds:
        control_plane.kubectl("apply", "--server-side", "-f", str(path))
    names = [f"crd/{kind}.monitoring.coreos.com" for kind in KINDS]
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    control_plane.kubectl("create", "namespace", "llmroute-system", check=False)


def _make(folder: Path, wanted: list[Path]) -> None:
    with go_build(folder, _HOW_TO) as build:
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

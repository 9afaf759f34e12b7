"""prometheus-operator itself, and a Prometheus that finds its targets by asking Kubernetes, from the Go module proxy.

Debian's Prometheus is built without that discovery. The operator's CRDs of this version, and the rights that its users
give a Prometheus, are in its module and are kept beside the programs.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.go_build import GoBuild, cache_root, go_build, go_environment, holds_all, locked, say

OPERATOR = (
    "0.85.0"  # the last of this module that the proxy has; its types are a module of their own (operator_crds.py)
)
PROMETHEUS = "0.316.0"  # the module's number of 3.16
CRDS = ("podmonitors", "probes", "prometheuses", "prometheusrules", "scrapeconfigs", "servicemonitors")
_OPERATOR = "github.com/prometheus-operator/prometheus-operator"
_PROMETHEUS = "github.com/prometheus/prometheus"
_HOW_TO = "install Go 1.26 or newer"


@dataclass(frozen=True, slots=True)
class OperatorPrograms:
    folder: Path

    @property
    def operator(self) -> Path:
        return self.folder / "operator"

    @property
    def prometheus(self) -> Path:
        """Needs no library: it runs in any container."""
        return self.folder / "prometheus"

    @property
    def crds(self) -> list[Path]:
        return [self.folder / f"monitoring.coreos.com_{kind}.yaml" for kind in CRDS]

    @property
    def rights(self) -> Path:
        """The ClusterRole `prometheus`."""
        return self.folder / "prometheus-cluster-role.yaml"


def ensure_operator_programs() -> OperatorPrograms:
    """Made once: four minutes on two cores that have nothing else to do. Raises Unavailable."""
    programs = OperatorPrograms(cache_root() / f"prometheus-operator-{OPERATOR}-prometheus-{PROMETHEUS}")
    with locked(programs.folder, "prometheus-operator and Prometheus"):
        documents = [*programs.crds, programs.rights]
        if not (holds_all(programs.folder, ["operator", "prometheus"]) and all(path.exists() for path in documents)):
            say(f"building prometheus-operator {OPERATOR} and Prometheus from the Go module proxy, once")
            with go_build(programs.folder, _HOW_TO) as build:
                # What discovers elsewhere is left out: it is most of Prometheus' dependencies.
                tags = "remove_all_sd enable_kubernetes_sd"
                _build(build, "prometheus", _PROMETHEUS, PROMETHEUS, tags)
                work = _build(build, "operator", _OPERATOR, OPERATOR)
                _keep(build, work, documents)
    return programs


def _build(build: GoBuild, program: str, module: str, version: str, tags: str = "") -> Path:
    work = build.work(f"{program}-module")
    (work / "go.mod").write_text(f"module llmroute-test-{program}\n")
    build.get("get", f"{module}/cmd/{program}@v{version}", work=work, name=f"{program}: modules")
    build.build(program, f"{module}/cmd/{program}", work, tags=tags)
    return work


def _keep(build: GoBuild, work: Path, wanted: list[Path]) -> None:
    command = [build.go, "list", "-m", "-f", "{{.Dir}}", _OPERATOR]
    said = subprocess.run(command, cwd=work, env=go_environment(), check=True, capture_output=True, text=True)
    examples = Path(said.stdout.strip()) / "example"
    for path in wanted:
        [found] = [
            *examples.glob(f"prometheus-operator-crd/{path.name}"),
            *examples.glob(f"rbac/prometheus/{path.name}"),
        ]
        build.keep(found)

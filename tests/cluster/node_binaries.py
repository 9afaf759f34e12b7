"""Finds or makes the programs of a real node: kubelet and its fellows, containerd, and Debian's runc and CNI plugins.

Kubernetes' and containerd's are built from the Go module proxy into the cache; runc and the CNI plugins are the
distribution's (a runc without libseccomp, as `go build` makes it, refuses the RuntimeDefault profile).
"""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import Binaries, ensure, ensure_programs
from tests.cluster.go_build import GoBuild, Unavailable, cache_root, go_build, holds_all, locked, say
from tools.debian import find

CONTAINERD = "2.4.2"  # Debian's is too old for this kubelet
KUBERNETES_PROGRAMS = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
CONTAINERD_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")
DEBIAN_PROGRAMS = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
}
CNI_PLUGINS = Path("/usr/lib/cni")
HOW_TO_GET_ONE = (
    "a node needs root, Go 1.26 or newer and Debian's packages "
    f"{' '.join([*DEBIAN_PROGRAMS.values(), 'containernetworking-plugins'])}"
)


@dataclass(frozen=True, slots=True)
class NodeBinaries:
    control_plane: Binaries
    kubernetes: Path
    """The folder with KUBERNETES_PROGRAMS."""
    containerd: Path
    """The folder with CONTAINERD_PROGRAMS."""
    runc: Path


def ensure_node() -> NodeBinaries:
    """The programs, made first where they have to be. Raises Unavailable."""
    absent = sorted(package for program, package in DEBIAN_PROGRAMS.items() if find(program) is None)
    if not (CNI_PLUGINS / "ptp").exists():
        absent.append("containernetworking-plugins")
    if absent:
        raise Unavailable(f"Debian's packages {', '.join(absent)} are absent; {HOW_TO_GET_ONE}")
    runc = find("runc")
    assert runc is not None
    return NodeBinaries(ensure(), ensure_programs(*KUBERNETES_PROGRAMS), _ensure_containerd(), Path(runc))


def _ensure_containerd() -> Path:
    folder = cache_root() / f"containerd-{CONTAINERD}"
    with locked(folder, "containerd"):
        if not holds_all(folder, CONTAINERD_PROGRAMS):
            say(f"building containerd {CONTAINERD} from the Go module proxy, once")
            with go_build(folder, HOW_TO_GET_ONE) as build:
                _build_containerd(build)
    return folder


def _build_containerd(build: GoBuild) -> None:
    work = build.work("containerd-module")
    module = "github.com/containerd/containerd/v2"
    (work / "go.mod").write_text("module llmroute-test-containerd\n")
    imports = "\n".join(f'\t_ "{module}/cmd/{program}"' for program in CONTAINERD_PROGRAMS)
    (work / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports}\n)\n")
    build.get("get", f"{module}@v{CONTAINERD}", work=work, name="containerd: modules")
    build.get("mod", "tidy", work=work, name="containerd: modules, tidied")
    for program in CONTAINERD_PROGRAMS:
        build.build(program, f"{module}/cmd/{program}", work, tags="no_btrfs no_devmapper no_zfs")

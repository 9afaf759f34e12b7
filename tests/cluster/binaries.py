"""Finds or makes the programs of a real control plane: etcd, kube-apiserver, kubectl, and the rest of Kubernetes.

Order of search: `KUBEBUILDER_ASSETS`; our cache (`~/.cache/llmroute-test/<versions>`); `setup-envtest`, where a person
has it; a build from the Go module proxy, where there is a Go toolchain. None of these: `Unavailable`, with one sentence
that says how to get one. What envtest does not ship (controller-manager, scheduler, kubelet, kube-proxy) comes from our
cache or a build. A person's own cluster (`LLMROUTE_TEST_KUBECONFIG`) is `control_plane.py`'s matter and needs no
programs.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.go_build import GoBuild, Unavailable, cache_root, go_build, go_environment, holds_all, locked, say

KUBERNETES = "1.37.2"
ETCD = "3.6.16"
PROGRAMS = ("etcd", "kube-apiserver")
HOW_TO_GET_ONE = (
    "install Go 1.26 or newer (it is then built and cached, 6 to 10 minutes once), or set KUBEBUILDER_ASSETS to a "
    "folder with etcd and kube-apiserver, or LLMROUTE_TEST_KUBECONFIG to a cluster that may be used for tests"
)


@dataclass(frozen=True, slots=True)
class Binaries:
    etcd: Path
    kube_apiserver: Path
    kubectl: Path


def cache_dir() -> Path:
    return cache_root() / f"kubernetes-{KUBERNETES}-etcd-{ETCD}"


def ensure() -> Binaries:
    """The programs, made first where they have to be. Raises Unavailable."""
    kubectl = shutil.which("kubectl")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        folder = Path(assets)
        if not holds_all(folder, PROGRAMS):
            raise Unavailable(f"KUBEBUILDER_ASSETS={assets} lacks one of {', '.join(PROGRAMS)}")
        return _binaries(folder, kubectl)
    folder = cache_dir()
    if not holds_all(folder, PROGRAMS):
        fetched = _setup_envtest()
        if fetched is not None:
            return _binaries(fetched, kubectl)
    ensure_programs(*PROGRAMS, *([] if kubectl else ["kubectl"]))
    return _binaries(folder, kubectl)


def ensure_programs(*programs: str) -> Path:
    """The folder of our cache, with these programs of Kubernetes (by the name of their `cmd/`) and etcd in it. Raises
    Unavailable."""
    folder = cache_dir()
    with locked(folder, "Kubernetes' programs"):
        missing = [program for program in programs if not holds_all(folder, [program])]
        if missing:
            say(f"building {', '.join(missing)} (Kubernetes {KUBERNETES}, etcd {ETCD}) from the Go module proxy, once")
            with go_build(folder, HOW_TO_GET_ONE) as build:
                if "etcd" in missing:
                    _build_etcd(build)
                kubernetes = [program for program in missing if program != "etcd"]
                if kubernetes:
                    _build_kubernetes(build, kubernetes)
            say(f"they are in {folder}")
    return folder


def _binaries(folder: Path, kubectl: str | None) -> Binaries:
    found = Path(kubectl) if kubectl else folder / "kubectl"
    if not found.exists():
        raise Unavailable(f"there is no kubectl on the PATH and none in {folder}; {HOW_TO_GET_ONE}")
    return Binaries(folder / "etcd", folder / "kube-apiserver", found)


def _setup_envtest() -> Path | None:
    """envtest's ready-made programs, where a person has installed its tool and the network allows it."""
    tool = shutil.which("setup-envtest")
    if tool is None:
        return None
    minor = KUBERNETES.rsplit(".", 1)[0]
    done = subprocess.run([tool, "use", f"{minor}.x", "-p", "path"], capture_output=True, text=True, timeout=300)
    folder = Path(done.stdout.strip())
    return folder if done.returncode == 0 and holds_all(folder, PROGRAMS) else None


def _build_etcd(build: GoBuild) -> None:
    work = build.work("etcd-module")
    (work / "go.mod").write_text("module llmroute-test-etcd\n")
    build.get("get", f"go.etcd.io/etcd/server/v3@v{ETCD}", work=work, name="etcd: modules")
    build.build("etcd", "go.etcd.io/etcd/server/v3", work)


def _build_kubernetes(build: GoBuild, programs: Sequence[str]) -> None:
    """Kubernetes' own go.mod points its staging modules at its tree; here each is taken at its published version."""
    work = build.work("kubernetes-module")
    module = "k8s.io/kubernetes"
    got = subprocess.run(
        [build.go, "mod", "download", "-json", f"{module}@v{KUBERNETES}"],
        cwd=work,
        env=go_environment(),
        capture_output=True,
        text=True,
    )
    if got.returncode != 0:
        raise Unavailable(
            f"the module {module} could not be had: {_last_line(got.stdout + got.stderr)}; {HOW_TO_GET_ONE}"
        )
    upstream_mod = Path(json.loads(got.stdout)["GoMod"]).read_text()
    staging = "v0" + KUBERNETES.removeprefix("1")
    language = re.search(r"^go .*$", upstream_mod, re.MULTILINE)
    replaced = sorted(set(re.findall(r"^\s*(?:replace )?(k8s\.io/\S+) => \./staging", upstream_mod, re.MULTILINE)))
    lines = [
        "module llmroute-test-kubernetes",
        "",
        language[0] if language else "",
        "",
        f"require {module} v{KUBERNETES}",
    ]
    lines += ["", "replace (", *(f"\t{name} => {name} {staging}" for name in replaced), ")", ""]
    (work / "go.mod").write_text("\n".join(lines))
    imports = "\n".join(f'\t_ "{module}/cmd/{program}"' for program in programs)
    (work / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports}\n)\n")
    build.get("mod", "tidy", work=work, name="kubernetes: modules")
    major, minor, _ = KUBERNETES.split(".")
    version = "k8s.io/component-base/version"
    flags = f"-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    for program in programs:
        build.build(program, f"{module}/cmd/{program}", work, flags)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"

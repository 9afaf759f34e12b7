"""Finds or makes the programs of a real control plane: etcd, kube-apiserver, kubectl.

Order of search: `KUBEBUILDER_ASSETS`; our cache (`~/.cache/llmroute-test/<versions>`); `setup-envtest`, where a person
has it; a build from the Go module proxy, where there is a Go toolchain. None of these: `Unavailable`, with one sentence
that says how to get one. A person's own cluster (`LLMROUTE_TEST_KUBECONFIG`) is `control_plane.py`'s matter and needs
no programs.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KUBERNETES = "1.37.2"
ETCD = "3.6.16"
PROGRAMS = ("etcd", "kube-apiserver")
PROGRESS_SECONDS = 15.0
HOW_TO_GET_ONE = (
    "install Go 1.26 or newer (it is then built and cached, 6 to 10 minutes once), or set KUBEBUILDER_ASSETS to a "
    "folder with etcd and kube-apiserver, or LLMROUTE_TEST_KUBECONFIG to a cluster that may be used for tests"
)


class Unavailable(Exception):
    """There is no control plane to be had here; the text says why and how to get one."""


@dataclass(frozen=True, slots=True)
class Binaries:
    etcd: Path
    kube_apiserver: Path
    kubectl: Path


def cache_dir() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "llmroute-test" / f"kubernetes-{KUBERNETES}-etcd-{ETCD}"


def ensure() -> Binaries:
    """The programs, made first where they have to be. Raises Unavailable."""
    kubectl = shutil.which("kubectl")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        folder = Path(assets)
        if not _holds_all(folder):
            raise Unavailable(f"KUBEBUILDER_ASSETS={assets} lacks one of {', '.join(PROGRAMS)}")
        return _binaries(folder, kubectl)
    folder = cache_dir()
    with _lock(folder):
        if not _holds_all(folder):
            fetched = _setup_envtest()
            if fetched is not None:
                return _binaries(fetched, kubectl)
            _build(folder, with_kubectl=kubectl is None)
        elif kubectl is None and not (folder / "kubectl").exists():
            _build(folder, with_kubectl=True)
    return _binaries(folder, kubectl)


def _holds_all(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in PROGRAMS)


def _binaries(folder: Path, kubectl: str | None) -> Binaries:
    found = Path(kubectl) if kubectl else folder / "kubectl"
    if not found.exists():
        raise Unavailable(f"there is no kubectl on the PATH and none in {folder}; {HOW_TO_GET_ONE}")
    return Binaries(folder / "etcd", folder / "kube-apiserver", found)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Two runs must not build at once; the second waits and finds the first one's work."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run is building the control plane; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _setup_envtest() -> Path | None:
    """envtest's ready-made programs, where a person has installed its tool and the network allows it."""
    tool = shutil.which("setup-envtest")
    if tool is None:
        return None
    minor = KUBERNETES.rsplit(".", 1)[0]
    done = subprocess.run([tool, "use", f"{minor}.x", "-p", "path"], capture_output=True, text=True, timeout=300)
    folder = Path(done.stdout.strip())
    return folder if done.returncode == 0 and _holds_all(folder) else None


def _build(folder: Path, *, with_kubectl: bool) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"no control plane is cached and there is no Go toolchain to build one; {HOW_TO_GET_ONE}")
    _say(f"building etcd {ETCD} and kube-apiserver {KUBERNETES} from the Go module proxy (6 to 10 minutes, once)")
    scratch = folder / "build"
    finished = folder / "build" / "bin"
    finished.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    log.write_text("")
    programs = ["kube-apiserver", *(["kubectl"] if with_kubectl else [])]
    _build_etcd(go, scratch / "etcd", finished, log)
    _build_kubernetes(go, scratch / "kubernetes", finished, programs, log)
    for program in ["etcd", *programs]:
        (finished / program).replace(folder / program)
    shutil.rmtree(scratch, ignore_errors=True)
    _say(f"the control plane's programs are in {folder}")


def _build_etcd(go: str, work: Path, finished: Path, log: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    (work / "go.mod").write_text("module llmroute-test-etcd\n")
    _step("etcd: modules", [go, "get", f"go.etcd.io/etcd/server/v3@v{ETCD}"], work, log)
    command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(finished / "etcd"), "go.etcd.io/etcd/server/v3"]
    _step("etcd: build", command, work, log)


def _build_kubernetes(go: str, work: Path, finished: Path, programs: list[str], log: Path) -> None:
    """Kubernetes' own go.mod points its staging modules at its tree; here each is taken at its published version."""
    work.mkdir(parents=True, exist_ok=True)
    module = "k8s.io/kubernetes"
    got = subprocess.run(
        [go, "mod", "download", "-json", f"{module}@v{KUBERNETES}"],
        cwd=work,
        env=_go_environment(),
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
    _step("kubernetes: modules", [go, "mod", "tidy"], work, log)
    major, minor, _ = KUBERNETES.split(".")
    version = "k8s.io/component-base/version"
    flags = f"-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    for program in programs:
        command = [
            go,
            "build",
            "-trimpath",
            "-ldflags",
            flags,
            "-o",
            str(finished / program),
            f"{module}/cmd/{program}",
        ]
        _step(f"{program}: build", command, work, log)


def _go_environment() -> Mapping[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}


def _step(name: str, command: list[str], work: Path, log: Path) -> None:
    """One command, with a line every PROGRESS_SECONDS while it runs; its output goes to `log`."""
    began = time.monotonic()
    _say(name)
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_SECONDS):
            _say(f"{name}: {time.monotonic() - began:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        with log.open("a") as file:
            result = subprocess.run(command, cwd=work, env=_go_environment(), stdout=file, stderr=subprocess.STDOUT)
    finally:
        done.set()
        teller.join()
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise Unavailable(f"{name} failed; the log is {log}, its end:\n{tail}\n{HOW_TO_GET_ONE}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"


def _say(text: str) -> None:
    print(f"control plane: {text}", file=sys.stderr, flush=True)

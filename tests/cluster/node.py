"""A real Kubernetes node for the tests: pods run, Services reach them, webhooks are called.

Owns bringing one up in namespaces of its own (network, mounts, processes), its control plane included, and taking it
down: all of it is one process tree under `node_init.py`, so the kernel ends it with that process, even when the test
run is killed. Left to others: the programs (`node_binaries.py`), what they are told (`node_config.py`), the images.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.children import with_us
from tests.cluster.control_plane import CRD, ControlPlane, write_kubeconfig
from tests.cluster.go_build import Unavailable, say, tail
from tests.cluster.images import Image, made_images
from tests.cluster.node_binaries import HOW_TO_GET_ONE, ensure_node
from tests.cluster.node_config import API_PORT, NODE, NodeFiles, write_node
from tests.waiting import wait_until

START_SECONDS = 120.0  # 15 on a quiet machine
_CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PREFIX = "llmroute-node-"
_WEIGHTS = {"cpu.shares": "16384", "cpu.weight": "1600"}
"""Of all pods together, where one program outside has 1024, or 100: else a busy machine gives fifty pods what it gives
to one other program."""


@dataclass(frozen=True)
class RealNode:
    """A Ready node with the CRD, and the images of `images`."""

    control_plane: ControlPlane
    gateway: str
    operator: str
    app: str
    """References of the images, for pods with `imagePullPolicy: Never`."""
    _files: NodeFiles
    _ctr: Path
    _init: int
    """Process 1 of its namespaces, as seen from here."""

    def load(self, image: Image) -> None:
        """Gives the node an image more."""
        _import([image], self._files, self._ctr)

    def inside(self, *command: str) -> list[str]:
        """The command, to be run in the node's network."""
        return ["nsenter", f"--net=/proc/{self._init}/ns/net", *command]

    def logs(self, namespace: str, pod: str, container: str, *arguments: str) -> str:
        return self.control_plane.kubectl("logs", "-n", namespace, pod, "-c", container, *arguments, check=False).stdout

    def exec(self, namespace: str, pod: str, container: str, *command: str) -> str:
        return self.control_plane.kubectl("exec", "-n", namespace, pod, "-c", container, "--", *command).stdout

    @contextmanager
    def forwarding(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """`kubectl port-forward`, at a port of the system's choice; the address."""
        command = [*self.control_plane.kubectl_command, "port-forward", "-n", namespace, target, f":{port}"]
        process = subprocess.Popen(with_us(command), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            said = process.stdout.readline()  # Forwarding from 127.0.0.1:41523 -> 8000
            assert said.startswith("Forwarding from "), said or "kubectl port-forward ended"
            yield f"http://{said.split()[2]}"
        finally:
            process.kill()
            process.communicate()

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """Ends the container's first process at once, as the kernel does where memory runs out."""
        status = self.control_plane.read(f"/api/v1/namespaces/{namespace}/pods/{pod}")["status"]
        found = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        identity = next(one["containerID"] for one in found if one["name"] == container).rpartition("/")[2]
        processes = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cgroup") if identity in _text(path)]
        assert processes, f"there is no process of {namespace}/{pod}/{container}"
        os.kill(min(processes), signal.SIGKILL)

    def report(self, lines: int = 25) -> str:
        """What a person needs to read a failure by: pods, events, the ends of all logs."""
        parts = [self._section("pods", "get", "pods", "-A", "-o", "wide")]
        parts.append(self._section("events", "get", "events", "-A", "--sort-by=.lastTimestamp", keep=60))
        for pod in self.control_plane.get("pods", "-A")["items"]:
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            containers = pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
            for container in containers:
                which = ["-n", namespace, name, "-c", container["name"], f"--tail={lines}"]
                parts.append(self._section(f"log of {namespace}/{name}/{container['name']}", "logs", *which))
        parts.append(_log_ends(self._files.folder, lines))
        return "\n".join(parts)

    def _section(self, title: str, *arguments: str, keep: int = 200) -> str:
        done = self.control_plane.kubectl(*arguments, check=False)
        text = (done.stdout + done.stderr).splitlines()[-keep:]
        return "\n".join([f"--- {title}", *text])


def check_machine() -> None:
    """Raises Unavailable where the machine can hold no node at all."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable(f"a node needs Linux and root; {HOW_TO_GET_ONE}")
    for program in ("unshare", "nsenter"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program} (util-linux) on the PATH; {HOW_TO_GET_ONE}")


@contextmanager
def running_node(folder: Path) -> Iterator[RealNode]:
    """A node of our own. Raises Unavailable where none can be had, with a sentence that says how to get one."""
    check_machine()
    binaries = ensure_node()
    images = made_images()
    began = time.monotonic()
    sweep_cgroups()
    cgroup = f"{CGROUP_PREFIX}{os.getpid()}-{secrets.token_hex(2)}"
    files = write_node(folder, cgroup, binaries)
    with (
        _cgroup(cgroup),
        _namespaces(files, binaries.containerd) as init,
        _relay(init) as port,
    ):
        url = f"https://127.0.0.1:{port}"
        kubeconfig = folder / "admin.kubeconfig"
        write_kubeconfig(kubeconfig, url, files.authority, files.admin_token)
        kubectl = binaries.control_plane.kubectl
        plane = ControlPlane(url, files.authority, files.admin_token, kubeconfig, folder, kubectl, None)
        _, gateway, operator, app = (image.reference for image in images)
        node = RealNode(plane, gateway, operator, app, files, binaries.containerd / "ctr", init)
        try:
            wait_until(lambda: _answers(plane), "the node's API server to be ready", START_SECONDS, every=0.1)
            files.api_ready.touch()
            plane.kubectl("apply", "--server-side", "-f", str(CRD))
            _import(images, files, binaries.containerd / "ctr")
            wait_until(lambda: _is_ready(plane), "the node to be Ready", START_SECONDS, every=0.1)
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            wait_until(lambda: plane.read(account), "the default service account", START_SECONDS, every=0.1)
        except (AssertionError, ConnectionError, Unavailable) as error:
            raise AssertionError(f"the node did not come up: {error}\n{_log_ends(folder, 15)}") from None
        say(f"a real node is Ready after {time.monotonic() - began:.1f} s")
        try:
            yield node
        finally:
            plane.close()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return ""


def _log_ends(folder: Path, lines: int) -> str:
    return "\n".join(f"--- {log.name}\n{tail(log, lines)}" for log in sorted((folder / "log").iterdir()))


def _answers(plane: ControlPlane) -> bool:
    with contextlib.suppress(ConnectionError):
        return plane.read("/api/v1/namespaces/default") is not None
    return False


def _is_ready(plane: ControlPlane) -> bool:
    node = plane.read(f"/api/v1/nodes/{NODE}") or {}
    conditions = node.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _import(images: Sequence[Image], files: NodeFiles, ctr: Path) -> None:
    wait_until(files.containerd.exists, "containerd to listen", START_SECONDS, every=0.1)
    for image in images:
        command = [str(ctr), "--address", str(files.containerd), "--namespace", "k8s.io", "images", "import"]
        done = subprocess.run([*command, str(image.archive)], capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise Unavailable(f"the image {image.reference} could not be imported: {done.stderr.strip()}")


@contextmanager
def _namespaces(files: NodeFiles, path: Path) -> Iterator[int]:
    """Runs node_init.py as process 1 of namespaces of its own; its process id as seen from here."""
    init = Path(__file__).with_name("node_init.py")
    kinds = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private")
    search = f"{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with files.log("init").open("wb") as log:
        process = subprocess.Popen(
            with_us(["unshare", *kinds, sys.executable, "-I", str(init), str(files.spec)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": search},
            start_new_session=True,  # Ctrl-C is for the tests, which then take the node down
        )
    try:

        def child() -> int:
            if process.poll() is not None:
                raise Unavailable(f"namespaces cannot be made here: {tail(files.log('init'))}; {HOW_TO_GET_ONE}")
            if not (files.folder / "namespaces-ready").exists():
                return 0
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return int(children[0]) if children else 0

        yield wait_until(child, "the node's namespaces", START_SECONDS)
    finally:
        process.kill()  # --kill-child: process 1 goes too, and with it every process in there
        process.wait()


@contextmanager
def _relay(init: int) -> Iterator[int]:
    """A port of the machine's loopback that leads to the API server in the node's network."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        relay = Path(__file__).with_name("relay.py")
        descriptor = listener.fileno()
        command = ["nsenter", f"--net=/proc/{init}/ns/net", sys.executable, "-I", str(relay), str(descriptor)]
        process = subprocess.Popen(with_us([*command, "127.0.0.1", str(API_PORT)]), pass_fds=[descriptor])
        port: int = listener.getsockname()[1]
    try:
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


# --- control groups


def _hierarchies() -> Sequence[Path]:
    """Of version 1 one folder a controller, of version 2 the one."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


@contextmanager
def _cgroup(name: str) -> Iterator[None]:
    """A group of our own in every hierarchy, for pods."""
    try:
        _make_cgroup(name)
        yield
    finally:
        _remove_cgroup(name)


def _make_cgroup(name: str) -> None:
    first_version = not (_CGROUPS / "cgroup.controllers").exists()
    try:
        for hierarchy in _hierarchies():
            (hierarchy / name).mkdir()
            for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 makes them empty
                if first_version and (hierarchy / setting).exists():
                    (hierarchy / name / setting).write_text((hierarchy / setting).read_text())
            for setting, value in _WEIGHTS.items():
                if (hierarchy / name / setting).exists():
                    (hierarchy / name / setting).write_text(value)
    except OSError as error:
        raise Unavailable(f"control groups cannot be made here ({error}); {HOW_TO_GET_ONE}") from None


def _remove_cgroup(name: str) -> None:
    """The processes in it have been killed; the kernel may need a moment to see them gone."""
    for hierarchy in _hierarchies():
        for group in sorted((hierarchy / name).rglob("*/"), key=lambda path: len(path.parts), reverse=True):
            _remove_group(group)
        _remove_group(hierarchy / name)


def _remove_group(group: Path) -> None:
    def gone() -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:  # busy
            return not group.exists()
        return True

    with contextlib.suppress(AssertionError):  # what stays is swept by the next run
        wait_until(gone, f"{group} to be empty", 5)


def sweep_cgroups() -> None:
    """Takes away the groups of runs that were killed."""
    names = {path.name for hierarchy in _hierarchies() for path in hierarchy.glob(f"{CGROUP_PREFIX}*")}
    for name in names:
        if not Path(f"/proc/{name.removeprefix(CGROUP_PREFIX).split('-')[0]}").exists():
            _remove_cgroup(name)

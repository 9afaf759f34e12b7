"""The real controller as a process, under its own service account and exactly the rights of manifests/rbac."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from tests.children import with_us
from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.waiting import HANGS_AFTER, wait_until

COMMAND = Path(sys.executable).parent / "llmroute-operator"
RBAC = REPOSITORY / "manifests" / "rbac"
CLUSTER_RBAC = RBAC / "controller.yaml"
NAMESPACE_RBAC = RBAC / "controller-namespace.yaml"
CERTIFICATES_RBAC = RBAC / "certificates.yaml"
SERVICE_ACCOUNT = "system:serviceaccount:llmroute-system:llmroute-controller"


@dataclass
class ControllerProcess:
    process: subprocess.Popen[bytes]
    log_path: Path
    port: int = 0
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=HANGS_AFTER))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log so far. Every line is JSON."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]

    def get(self, path: str) -> httpx.Response:
        return self._client.get(self.url + path)

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value; `name` without the common prefix. Fails where it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        text = self.get("/metrics").text
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            if found == f"llmroute_controller_{name}" and wanted == set(filter(None, rest.rstrip("}").split(","))):
                return float(value)
        raise AssertionError(f"there is no sample {name} {labels} in:\n{text}")

    @property
    def writes(self) -> float:
        return sum(self.metric("writes_total", kind=kind) for kind in ("ConfigMap", "LLMRouteStatus"))

    def is_idle(self) -> bool:
        """It has read all, and nothing waits or is under way."""
        if self.metric("relists_total", result="success") == 0 or self.metric("queue_depth") > 0:
            return False
        return self.metric("reconciles_running") == 0

    def wait_until_idle(self) -> None:
        wait_until(self.is_idle, "the controller to be idle")

    def end(self) -> int:
        """Tells it to end, as kubelet does; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=40)

    def close(self) -> None:
        self._client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_controller(control_plane: ControlPlane, *arguments: str) -> Iterator[ControllerProcess]:
    """A controller that has begun; told to end at the end. With `--namespace` its rights are in those alone."""
    grant_rights(control_plane, [value for name, value in pairwise(arguments) if name == "--namespace"])
    controller = start(control_plane, *arguments)
    try:
        yield controller
        code = controller.end()
        assert code == 0, f"the controller ended with {code}:\n{controller.log_path.read_text()[-4000:]}"
    finally:
        controller.close()


def grant_rights(control_plane: ControlPlane, namespaces: Sequence[str]) -> None:
    control_plane.kubectl("apply", "-f", str(CLUSTER_RBAC))
    if namespaces:
        control_plane.kubectl("delete", "clusterrolebinding,clusterrole", "llmroute-controller")
    for namespace in namespaces:
        control_plane.kubectl("apply", "-n", namespace, "-f", str(NAMESPACE_RBAC))


def start(control_plane: ControlPlane, *arguments: str, kubeconfig: Path | None = None) -> ControllerProcess:
    """Starts it on a port of the system's choice and waits until it listens."""
    kubeconfig = kubeconfig or control_plane.kubeconfig_for(SERVICE_ACCOUNT)
    log_path = Path(tempfile.mkdtemp(dir=control_plane.folder)) / "controller.log"
    command = [str(COMMAND), "controller", "--kubeconfig", str(kubeconfig), "--health-host", "127.0.0.1"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            with_us([*command, "--health-port", "0", *arguments]),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ,
        )
    controller = ControllerProcess(process, log_path)

    def listening() -> int:
        assert process.poll() is None, log_path.read_text()
        return next((int(line["port"]) for line in controller.said("listening")), 0)

    try:
        controller.port = wait_until(listening, "the controller to listen")
    except BaseException:
        controller.close()
        raise
    return controller

"""The real injector as a process, under its own service account, with certificates of the test's own."""

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.children import with_us
from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.operator.injector.pods import IMAGE, Document
from tests.operator.namespace import Namespace
from tests.sidecar.certificates import Authority
from tests.waiting import wait_until

COMMAND = Path(sys.executable).parent / "llmroute-operator"
CONTROLLER_RBAC = REPOSITORY / "manifests" / "rbac" / "controller.yaml"
RBAC = REPOSITORY / "manifests" / "rbac" / "injector.yaml"
WEBHOOK = REPOSITORY / "manifests" / "webhook" / "injector.yaml"
SERVICE_ACCOUNT = "system:serviceaccount:llmroute-system:llmroute-injector"


@dataclass
class InjectorProcess:
    process: subprocess.Popen[bytes]
    folder: Path
    authority: Authority
    port: int = 0
    health_port: int = 0

    @property
    def lines(self) -> list[dict[str, Any]]:
        text = (self.folder / "injector.log").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def listens_on(self, what: str) -> int:
        assert self.process.poll() is None, (self.folder / "injector.log").read_text()
        found = [line["port"] for line in self.lines if line["message"] == "listening" and line["what"] == what]
        return int(found[0]) if found else 0

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.health_port}{path}", timeout=20)

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def metric(self, name: str) -> float:
        """Of one without labels; `name` without the common prefix."""
        text = self.get("/metrics").text
        found = [line.split() for line in text.splitlines() if line.startswith(f"llmroute_injector_{name} ")]
        assert found, f"there is no {name} in:\n{text}"
        return float(found[0][1])

    def renew_certificate(self, authority: Authority | None = None) -> None:
        """As kubelet does with a Secret that has changed, but file by file."""
        (authority or self.authority).server("IP:127.0.0.1")
        folder = (authority or self.authority)._folder
        for kind in ("crt", "key"):
            fresh = self.folder / f"tls.{kind}.new"
            fresh.write_bytes((folder / f"IP-127.0.0.1.{kind}").read_bytes())
            fresh.rename(self.folder / f"tls.{kind}")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=40)


def start(
    control_plane: ControlPlane, folder: Path, *arguments: str, authority: Authority | None = None
) -> InjectorProcess:
    """Starts it on ports of the system's choice and waits until it is ready."""
    grant_rights(control_plane)
    injector = launch(control_plane, folder, *arguments, authority=authority)
    try:
        injector.port = wait_until(lambda: injector.listens_on("webhook"), "the injector to be ready")
        assert injector.is_ready()
    except BaseException:
        injector.kill()
        raise
    return injector


def grant_rights(control_plane: ControlPlane) -> None:
    for manifest in (CONTROLLER_RBAC, RBAC):
        control_plane.kubectl("apply", "-f", str(manifest))


def launch(
    control_plane: ControlPlane, folder: Path, *arguments: str, authority: Authority | None = None
) -> InjectorProcess:
    """Starts it with the rights that it has, and waits until its health can be asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.yaml").write_text(f"image: {IMAGE}\n")
    kubeconfig = control_plane.kubeconfig_for(SERVICE_ACCOUNT)
    with (folder / "injector.log").open("wb") as log:
        process = subprocess.Popen(
            with_us([
                str(COMMAND), "injector", f"--kubeconfig={kubeconfig}", f"--settings={folder / 'settings.yaml'}",
                f"--tls-cert={folder / 'tls.crt'}", f"--tls-key={folder / 'tls.key'}", "--host=127.0.0.1", "--port=0",
                "--health-host=127.0.0.1", "--health-port=0", *arguments,
            ]),
            stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    injector = InjectorProcess(process, folder, authority or Authority(folder / "ca"))
    try:
        injector.renew_certificate()
        injector.health_port = wait_until(lambda: injector.listens_on("health"), "the injector to start")
    except BaseException:
        injector.kill()
        raise
    return injector


@contextmanager
def running_injector(control_plane: ControlPlane, folder: Path, *arguments: str) -> Iterator[InjectorProcess]:
    injector = start(control_plane, folder, "--drain-seconds=0", *arguments)
    try:
        yield injector
        assert injector.end() == 0, (folder / "injector.log").read_text()[-4000:]
    finally:
        injector.kill()


@contextmanager
def registered(control_plane: ControlPlane, port: int, authority: str) -> Iterator[None]:
    """The webhook of manifests/webhook, at a port of the loopback in place of its Service; taken out at the end.
    Several may be there at once: the same pod is then asked about several times."""
    configuration = yaml.safe_load(WEBHOOK.read_text())
    name = configuration["metadata"]["name"] = f"llmroute-injector-{secrets.token_hex(4)}"
    register(control_plane, configuration, port, authority)
    try:
        yield
    finally:
        control_plane.kubectl("delete", "mutatingwebhookconfiguration", name)


def register(control_plane: ControlPlane, configuration: dict[str, Any], port: int, authority: str) -> None:
    bundle = base64.b64encode(authority.encode()).decode()
    for webhook in configuration["webhooks"]:
        webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/mutate", "caBundle": bundle}
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(configuration))


def create(namespace: Namespace, document: Document, *arguments: str) -> Document:
    """`kubectl create` of a pod; what the API server made of it."""
    made = namespace.kubectl("create", "-f", "-", "-o", "json", *arguments, input=json.dumps(document))
    found: Document = json.loads(made)
    return found

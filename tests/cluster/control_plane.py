"""A real control plane for the tests: etcd and kube-apiserver on the loopback, or a cluster that a person lends us.

Owns starting, stopping and reaching it, and the identities that tests act under: an administrator, and service
accounts with tokens of the API server's own making, so that RBAC is really exercised. Getting the programs is
`binaries.py`'s. No controller manager runs unless a test starts one (`controller_manager.py`), and none clears
namespaces: one that is deleted stays, so tests make new ones and leave them.
"""

import base64
import json
import os
import secrets
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.children import with_us
from tests.cluster.binaries import Binaries, ensure
from tests.cluster.go_build import Unavailable
from tests.ports import free_ports
from tests.waiting import HANGS_AFTER, wait_until

REPOSITORY = Path(__file__).parents[2]
CRD = REPOSITORY / "manifests" / "crd" / "llmroutes.yaml"
TOKEN_LIFE = "4h"
START_SECONDS = 90.0  # 5 on a quiet machine


@dataclass
class ControlPlane:
    """A reachable API server with our CRD in it."""

    url: str
    ca_file: Path
    admin_token: str = field(repr=False)
    admin_kubeconfig: Path
    folder: Path
    """For files that belong to this control plane: logs, kubeconfigs."""
    _kubectl: Path
    _api_server: "_ApiServer | None"
    """None where the cluster is lent."""
    _namespaces: list[str] = field(default_factory=list)
    _client: httpx.Client | None = None

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - as subprocess has it
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as administrator. With `check` a failure fails the test, saying what kubectl said."""
        command = [*self.kubectl_command, *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done

    @property
    def kubectl_command(self) -> Sequence[str]:
        """To start one that goes on."""
        return [str(self._kubectl), "--kubeconfig", str(self.admin_kubeconfig)]

    def get(self, *arguments: str) -> Any:
        """What `kubectl get … -o json` shows."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def read(self, path: str) -> Any:
        """What the API server has at `path`, or None where there is nothing: faster than starting kubectl, and over
        kept connections, since tests that wait ask often. Raises ConnectionError where it does not answer."""
        try:
            answer = self._administrator().get(path)
        except httpx.TransportError as error:
            raise ConnectionError(f"{path}: {error}") from None
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise ConnectionError(f"{path}: {answer.status_code}")
        return answer.json()

    def new_namespace(self) -> str:
        name = f"test-{secrets.token_hex(4)}"
        answer = self._administrator().post("/api/v1/namespaces", json={"metadata": {"name": name}})
        assert answer.status_code == 201, answer.text
        self._namespaces.append(name)
        return name

    def kubeconfig_for(self, user: str) -> Path:
        """A kubeconfig of a service account (`system:serviceaccount:<namespace>:<name>`), which must exist. Its token
        is the API server's own, as a pod would get it."""
        prefix, kind, namespace, name = user.split(":")
        assert (prefix, kind) == ("system", "serviceaccount"), f"{user} is no service account"
        token = self.kubectl("create", "token", name, "-n", namespace, f"--duration={TOKEN_LIFE}").stdout.strip()
        path = self.folder / f"{namespace}.{name}.kubeconfig"
        write_kubeconfig(path, self.url, self.ca_file, token)
        return path

    @property
    def is_ours(self) -> bool:
        """Not lent by a person."""
        return self._api_server is not None

    def stop_api_server(self) -> None:
        """Skips the test where the cluster is not ours to stop."""
        if self._api_server is None:
            pytest.skip("the cluster of LLMROUTE_TEST_KUBECONFIG is not ours to stop")
        self._api_server.stop()

    def start_api_server(self) -> None:
        assert self._api_server is not None
        self._api_server.start()

    def _administrator(self) -> httpx.Client:
        if self._client is None:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            headers = {"authorization": f"Bearer {self.admin_token}"}
            self._client = httpx.Client(
                base_url=self.url, headers=headers, verify=context, timeout=HANGS_AFTER, trust_env=False
            )
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def clean(self) -> None:
        """Takes our namespaces out of a lent cluster; our own control plane goes as a whole."""
        if self._api_server is None and self._namespaces:
            self.kubectl("delete", "namespace", "--wait=false", *self._namespaces)


@contextmanager
def running_control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane with the CRD installed. Raises Unavailable where none can be had."""
    lent = os.environ.get("LLMROUTE_TEST_KUBECONFIG")
    with _lent(Path(lent), folder) if lent else _own(ensure(), folder) as plane:
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/llmroutes.llmroute.dev")
        try:
            yield plane
        finally:
            plane.clean()
            plane.close()


@contextmanager
def _lent(kubeconfig: Path, folder: Path) -> Iterator[ControlPlane]:
    """A person's cluster. Tests that speak HTTP get an administrator of their own in it, taken out at the end."""
    found = shutil.which("kubectl")
    if found is None:
        raise Unavailable("LLMROUTE_TEST_KUBECONFIG is set but there is no kubectl on the PATH")
    plane = ControlPlane("", folder / "ca.crt", "", kubeconfig, folder, Path(found), None)
    view = json.loads(plane.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
    cluster = view["clusters"][0]["cluster"]
    plane.url = cluster["server"]
    _write_authority(plane.ca_file, cluster)
    plane.kubectl("create", "serviceaccount", "llmroute-test-admin", "-n", "default", check=False)
    binding = ["clusterrolebinding", "llmroute-test-admin"]
    plane.kubectl(
        "create", *binding, "--clusterrole=cluster-admin", "--serviceaccount=default:llmroute-test-admin", check=False
    )
    try:
        plane.admin_token = plane.kubectl(
            "create", "token", "llmroute-test-admin", "-n", "default", f"--duration={TOKEN_LIFE}"
        ).stdout.strip()
        yield plane
    finally:
        plane.kubectl("delete", *binding, check=False)
        plane.kubectl("delete", "serviceaccount", "llmroute-test-admin", "-n", "default", check=False)


def _write_authority(path: Path, cluster: dict[str, str]) -> None:
    data = cluster.get("certificate-authority-data")
    if data is None:
        raise Unavailable("the cluster of LLMROUTE_TEST_KUBECONFIG names no certificate authority")
    path.write_bytes(base64.b64decode(data))


@contextmanager
def _own(binaries: Binaries, folder: Path) -> Iterator[ControlPlane]:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise Unavailable("there is no openssl on the PATH; it makes the key of the service-account tokens")
    key = folder / "service-accounts.key"
    subprocess.run([openssl, "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    admin_token = secrets.token_hex(16)
    tokens = folder / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{admin_token},llmroute-test-admin,llmroute-test-admin,system:masters\n")
    etcd_port, peer_port, api_port = free_ports(3)
    etcd = start_program(
        [
            str(binaries.etcd),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            "--log-level=warn",
            "--unsafe-no-fsync",  # what a crash of the machine loses, a test run does not miss
        ],
        folder / "etcd.log",
    )
    api_server = _ApiServer(
        [
            str(binaries.kube_apiserver),
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--cert-dir={folder / 'serving'}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={api_port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--authorization-mode=RBAC",
            "--allow-privileged",
            "--enable-aggregator-routing=true",  # webhooks by their Service's endpoints: there is no kube-proxy here
            f"--token-auth-file={tokens}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
        ],
        folder / "kube-apiserver.log",
        f"https://127.0.0.1:{api_port}",
        folder / "serving" / "apiserver.crt",
        admin_token,
    )
    try:
        api_server.start()
        kubeconfig = folder / "admin.kubeconfig"
        write_kubeconfig(kubeconfig, api_server.url, api_server.ca_file, admin_token)
        yield ControlPlane(
            api_server.url, api_server.ca_file, admin_token, kubeconfig, folder, binaries.kubectl, api_server
        )
    finally:
        api_server.stop()
        stop_program(etcd)


@dataclass
class _ApiServer:
    command: Sequence[str]
    log: Path
    url: str
    ca_file: Path
    """kube-apiserver makes a certificate for itself, in --cert-dir."""
    token: str
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        process = self._process = start_program(self.command, self.log)

        def ready() -> bool:
            if process.poll() is not None:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])
                raise AssertionError(f"kube-apiserver ended with {process.returncode}:\n{tail}")
            return self._answers()

        wait_until(ready, "kube-apiserver to be ready", START_SECONDS, every=0.1)

    def _answers(self) -> bool:
        if not self.ca_file.exists():
            return False
        request = urllib.request.Request(f"{self.url}/readyz", headers={"authorization": f"Bearer {self.token}"})
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, ssl.SSLError):
            return False

    def stop(self) -> None:
        """At once, as in a crash: asked politely it waits for every open watch, a minute long."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def write_kubeconfig(path: Path, url: str, ca_file: Path, token: str) -> None:
    name = "llmroute-test"
    path.touch(mode=0o600)
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority": str(ca_file)}}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
                "current-context": name,
            }
        )
    )


def start_program(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(with_us(command), stdout=file, stderr=subprocess.STDOUT)


def stop_program(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

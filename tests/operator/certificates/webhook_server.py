"""A webhook that allows everything, behind a Service of the real API server, to see whether its certificate is
trusted. (What the injector does to pods is its own tests' matter.)

Owns the way: an address of this machine as the Service's endpoint, the certificate as kubelet would mount it.
"""

import base64
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.projection import projected
from tests.waiting import wait_until

NAMESPACE = "llmroute-system"
NAME = "llmroute-injector"
HOST_NAME = f"{NAME}.{NAMESPACE}.svc"


class _Allow(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = {**review, "response": {"uid": review["request"]["uid"], "allowed": True}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()  # HTTP/1.0: one admission, one handshake
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    """A handshake for each connection, in its own thread, with what the volume holds at that moment."""

    daemon_threads = True
    volume: Path

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            with self._context().wrap_socket(request, server_side=True) as connection:
                super().finish_request(connection, client_address)
        except OSError:  # the caller's to tell
            return

    def _context(self) -> ssl.SSLContext:
        while True:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            folder = (self.volume / "..data").resolve()
            try:
                context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
                return context
            except OSError:
                if folder == (self.volume / "..data").resolve():
                    raise  # no other version has come meanwhile


def machine_address() -> str | None:
    """One that is not of the loopback: the API server takes no other endpoint. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


@contextmanager
def running_webhook(control_plane: ControlPlane, folder: Path, address: str, selected: str) -> Iterator[int]:
    """Serves what the Secret holds, and is asked for every ConfigMap of the namespace `selected`; the port."""
    server = _Server((address, 0), _Allow)
    server.volume = folder / "tls"
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(_objects(address, port, selected)))
    try:
        with projected(control_plane, NAMESPACE, {"secret/llmroute-injector-tls": server.volume}):
            yield port
    finally:
        control_plane.kubectl("delete", "mutatingwebhookconfiguration", NAME, "--ignore-not-found")
        control_plane.kubectl("delete", "secret", f"{NAME}-tls", "-n", NAMESPACE, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join(10)


def handshake(address: str, port: int, trusted: bytes) -> bytes:
    """The certificate that is served, in DER. Raises ssl.SSLError unless `trusted` vouches for it."""
    context = ssl.create_default_context(cadata=trusted.decode())
    with (
        socket.create_connection((address, port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=HOST_NAME) as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate


def bundles(control_plane: ControlPlane) -> list[bytes]:
    """What each webhook trusts."""
    found = control_plane.read(f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{NAME}")
    return [base64.b64decode(webhook["clientConfig"].get("caBundle", "")) for webhook in found["webhooks"]]


def secret(control_plane: ControlPlane) -> dict[str, Any]:
    found = control_plane.read(f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}-tls") or {}
    data: dict[str, Any] = found.get("data") or {}
    return data


def wait_until_served(control_plane: ControlPlane, address: str, port: int) -> bytes:
    def served() -> bytes | None:
        trusted = bundles(control_plane)[0]
        try:
            return handshake(address, port, trusted) if trusted else None
        except OSError:
            return None

    found = wait_until(served, "a trusted certificate to be served")
    assert found is not None
    return found


def _objects(address: str, port: int, selected: str) -> list[dict[str, Any]]:
    def webhook(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "clientConfig": {"service": {"namespace": NAMESPACE, "name": NAME, "path": "/", "port": 443}},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
            ],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": selected}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }

    within = {"namespace": NAMESPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, **within},
            "spec": {"ports": [{"name": "webhook", "port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{NAME}-test", **within, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": "IPv4",
            "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{NAME}-tls", **within}, "type": "Opaque"},
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": NAME},
            "webhooks": [webhook("pods.llmroute.dev"), webhook("namespaces.llmroute.dev")],
        },
    ]

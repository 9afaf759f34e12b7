"""Pods of a control plane without nodes: objects that the tests make, and whose status they set as kubelet would.

An address is the loopback's: any 127.x.y.z is this machine, so that real gateways and stand-ins can answer at them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmroute_contract.pods import ADMIN_PORT_NAME, GATEWAY_CONTAINER, GATEWAY_LABEL, REVISION_ANNOTATION
from llmroute_contract.secrets import secret_directory
from tests.operator.namespace import Namespace

Document = dict[str, Any]


def pod(
    name: str,
    *,
    port: int = 8791,
    gateway: str = "default",
    secrets: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    injected: bool = True,
    **metadata: Any,
) -> Document:
    """As the injector leaves it, or as its author wrote it."""
    document: Document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {}), **metadata},
        "spec": {"containers": [{"name": "app", "image": "app"}], "automountServiceAccountToken": False},
    }
    if not injected:
        return document
    document["metadata"]["labels"][GATEWAY_LABEL] = gateway
    document["spec"]["initContainers"] = [
        {
            "name": GATEWAY_CONTAINER,
            "image": "gateway",
            "restartPolicy": "Always",
            "ports": [{"name": ADMIN_PORT_NAME, "containerPort": port}],
            "volumeMounts": [
                {"name": f"llmroute-secret-{place}", "mountPath": secret_directory(secret)}
                for place, secret in enumerate(secrets)
            ],
        }
    ]
    document["spec"]["volumes"] = [
        {"name": f"llmroute-secret-{place}", "secret": {"secretName": secret, "optional": True}}
        for place, secret in enumerate(secrets)
    ]
    return document


def make_pods(namespace: Namespace, *pods: Document) -> None:
    if "default" not in namespace.kubectl("get", "serviceaccounts", "-o", "name"):
        # No controller-manager makes it here, and no pod is admitted without.
        namespace.kubectl("create", "serviceaccount", "default", check=False)
    namespace.apply(*pods)


def runs_at(namespace: Namespace, name: str, address: str, phase: str = "Running") -> None:
    """As kubelet reports it."""
    status = {"status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]}}
    namespace.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def touched_for(namespace: Namespace, name: str) -> str | None:
    """The revision that a pod was touched for."""
    found = namespace.control_plane.read(f"/api/v1/namespaces/{namespace.name}/pods/{name}")
    annotation: str | None = (found["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION)
    return annotation


def sidecars(namespace: Namespace, route: str) -> str:
    summary: str = namespace.route(route).get("status", {}).get("sidecars", {}).get("summary", "")
    return summary

"""What tests put on a real node: the operator, providers that are played, apps that call through their gateway.

Documents alone; every pod conforms to Pod Security `restricted`. The gateway's container is written by hand here, as a
person without the injector would.
"""

import json
from collections.abc import Sequence
from typing import Any

from llmroute_contract.pods import (
    ADMIN_PORT,
    ADMIN_PORT_NAME,
    CLIENT_ANNOTATION,
    CONFIG_DIRECTORY,
    CONFIG_VOLUME,
    DATA_PORT,
    DEFAULT_GATEWAY,
    GATEWAY_CONTAINER,
    GATEWAY_LABEL,
    INJECT_LABEL,
    SECRETS_DIRECTORY,
)
from llmroute_contract.secrets import secret_directory

Document = dict[str, Any]

PROVIDER_PORT = 8000
_LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_RESTRICTED = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def restricted_namespace(name: str) -> Document:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(name: str, entries: dict[str, str]) -> Document:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries}


def controller(image: str, *arguments: str) -> Document:
    """One replica, Recreate, under the service account of manifests/rbac."""
    container = {
        "name": "controller",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["controller", *arguments],
        "ports": [{"name": "http", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "securityContext": _LOCKED,
    }
    spec = {"serviceAccountName": "llmroute-controller", "containers": [container], "securityContext": _RESTRICTED}
    document = deployment("llmroute-controller", spec)
    document["metadata"]["namespace"] = "llmroute-system"
    document["spec"]["strategy"] = {"type": "Recreate"}
    return document


def injector(image: str, gateway_image: str) -> Sequence[Document]:
    """Two replicas behind the Service that manifests/webhook names, with the certificate that the controller makes."""
    settings = {"image": gateway_image, "allowUnpinnedImage": True, "imagePullPolicy": "Never"}
    container = {
        "name": "injector",
        "image": image,
        "imagePullPolicy": "Never",
        "args": [
            "injector",
            "--tls-cert=/var/run/llmroute/tls/tls.crt",
            "--tls-key=/var/run/llmroute/tls/tls.key",
            "--settings=/etc/llmroute/settings.yaml",
        ],
        "ports": [{"name": "webhook", "containerPort": 8443}, {"name": "http", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
        "securityContext": _LOCKED,
        "volumeMounts": [
            {"name": "tls", "mountPath": "/var/run/llmroute/tls", "readOnly": True},
            {"name": "settings", "mountPath": "/etc/llmroute", "readOnly": True},
        ],
    }
    spec = {
        "serviceAccountName": "llmroute-injector",
        "containers": [container],
        "securityContext": _RESTRICTED,
        "volumes": [
            {"name": "tls", "secret": {"secretName": "llmroute-injector-tls"}},
            {"name": "settings", "configMap": {"name": "llmroute-injector"}},
        ],
    }
    metadata = {"name": "llmroute-injector", "namespace": "llmroute-system"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": "llmroute-injector"}, "ports": [{"port": 443, "targetPort": "webhook"}]},
    }
    configuration = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"settings.yaml": json.dumps(settings)},
    }
    return [configuration, service, {**deployment("llmroute-injector", spec, replicas=2), "metadata": metadata}]


def asking_pod(image: str, *arguments: str, **environment: str) -> Document:
    """The spec of a pod whose author knows of no gateway: an app that goes where its environment says."""
    app = {
        "name": "app",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["/app/caller.py", *arguments],
        "env": variables(**environment),
        "securityContext": _LOCKED,
    }
    return {"containers": [app], "securityContext": _RESTRICTED, "automountServiceAccountToken": False}


def pacing_pod(image: str, **environment: str) -> Document:
    """The same, whose app begins a call each ten milliseconds (app/pacer.py)."""
    pod = asking_pod(image, **environment)
    pod["containers"][0]["args"] = ["/app/pacer.py"]
    return pod


def labelled(document: Document, client: str = "web") -> Document:
    """A workload as its author writes it who wants a gateway for it, and `client`'s key."""
    metadata = document["spec"]["template"]["metadata"]
    metadata["labels"][INJECT_LABEL] = "true"
    metadata["annotations"] = {CLIENT_ANNOTATION: client}
    return document


def provider(name: str, image: str, says: str, **environment: str) -> Sequence[Document]:
    """A provider behind a Service of its name; KEY comes from the Secret `provider`."""
    key = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "provider", "key": "api-key"}}}
    container = {
        "name": "provider",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["/app/provider.py"],
        "env": [key, *variables(SAYS=says, **environment)],
        "ports": [{"name": "http", "containerPort": PROVIDER_PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "securityContext": _LOCKED,
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": PROVIDER_PORT}]},
    }
    return [service, deployment(name, {"containers": [container], "securityContext": _RESTRICTED})]


def calling_pod(
    image: str, gateway_image: str, *arguments: str, secrets: Sequence[str] = (), **environment: str
) -> Document:
    """The spec of a pod whose app calls through a gateway beside it, which mounts `secrets`."""
    client_key = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "clients", "key": "web"}}}
    app = {
        "name": "app",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["/app/caller.py", *arguments],
        "env": [client_key, *variables(OPENAI_BASE_URL=f"http://127.0.0.1:{DATA_PORT}/v1", **environment)],
        "securityContext": _LOCKED,
    }
    configuration = {"name": f"llmroute-gateway-{DEFAULT_GATEWAY}", "optional": True}
    return {
        "initContainers": [gateway_container(gateway_image, secrets)],
        "containers": [app],
        "securityContext": _RESTRICTED,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "volumes": [
            {"name": CONFIG_VOLUME, "configMap": configuration},
            *({"name": f"llmroute-{one}", "secret": {"secretName": one, "optional": True}} for one in secrets),
        ],
    }


def gateway_container(image: str, secrets: Sequence[str]) -> Document:
    directories = ["--config-dir", CONFIG_DIRECTORY, "--secrets-dir", SECRETS_DIRECTORY]
    return {
        "name": GATEWAY_CONTAINER,
        "image": image,
        "imagePullPolicy": "Never",
        "restartPolicy": "Always",
        "args": ["serve", *directories, "--admin-host", "0.0.0.0", "--grace", "30"],
        "ports": [{"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT}],
        "startupProbe": {
            "httpGet": {"path": "/ready", "port": ADMIN_PORT},
            "periodSeconds": 1,
            "failureThreshold": 120,
        },
        "securityContext": _LOCKED,
        "volumeMounts": [
            {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True},
            *({"name": f"llmroute-{one}", "mountPath": secret_directory(one), "readOnly": True} for one in secrets),
        ],
    }


def deployment(name: str, pod: Document, replicas: int = 1) -> Document:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def job(name: str, pod: Document) -> Document:
    template = {"metadata": {"labels": {"app": name}}, "spec": {**pod, "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


def variables(**values: str) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


def with_gateway_label(document: Document) -> Document:
    """By it the controller finds the pods that have a gateway; the injector sets it."""
    document["spec"]["template"]["metadata"]["labels"][GATEWAY_LABEL] = DEFAULT_GATEWAY
    return document

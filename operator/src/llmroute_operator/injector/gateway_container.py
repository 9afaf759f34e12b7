"""The gateway's container: an init container that is restarted always, which is Kubernetes' sidecar (1.29 and later).

It is started before the app's containers and ended after them. Fields that the API server would fill in are written
out, so that what comes back from it is what was put in.
"""

from collections.abc import Iterable

from llmroute_contract.pods import (
    ADMIN_PORT_NAME,
    CONFIG_DIRECTORY,
    GATEWAY_CONTAINER,
    SECRETS_DIRECTORY,
)
from llmroute_operator.injector.annotations import Wishes
from llmroute_operator.injector.pod import Document, Pod
from llmroute_operator.injector.ports import Ports
from llmroute_operator.injector.settings import InjectorSettings
from llmroute_operator.injector.volumes import mounts

_DEFAULT_GRACE = 30  # seconds that a pod has to end, where it says nothing
_SPARE_SECONDS = 2.0
"""Of the pod's time to end: for the process itself, once no call is left."""


def gateway_container(
    pod: Pod, wishes: Wishes, settings: InjectorSettings, ports: Ports, secrets: Iterable[str], resources: Document
) -> Document:
    return {
        "name": GATEWAY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "args": _arguments(pod, wishes, settings, ports),
        "env": [_from_the_pod("POD_NAME", "metadata.name"), _from_the_pod("POD_IP", "status.podIP")],
        "ports": [{"name": ADMIN_PORT_NAME, "containerPort": ports.admin, "protocol": "TCP"}],
        **({"resources": resources} if resources else {}),
        **_held_back(settings, ports),
        "livenessProbe": _probe("/health", ports.admin, period=10, failures=6),
        "securityContext": _security_context(settings),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(secrets),
    }


def _arguments(pod: Pod, wishes: Wishes, settings: InjectorSettings, ports: Ports) -> list[str]:
    time_to_end = pod.spec.termination_grace_period_seconds
    time_to_end = _DEFAULT_GRACE if time_to_end is None else time_to_end
    return [
        "serve",
        f"--config-dir={CONFIG_DIRECTORY}",
        f"--secrets-dir={SECRETS_DIRECTORY}",
        f"--port={ports.data}",
        "--admin-host=$(POD_IP)",
        "--admin-host=127.0.0.1",  # where `kubectl port-forward` comes out
        f"--admin-port={ports.admin}",
        f"--grace={min(settings.grace, max(0.0, time_to_end - _SPARE_SECONDS)):g}",
        f"--log-level={wishes.log_level or settings.log_level}",
        *([f"--otlp-endpoint={settings.otlp_endpoint}"] if settings.otlp_endpoint is not None else []),
    ]


def _from_the_pod(name: str, field: str) -> Document:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}}


def _held_back(settings: InjectorSettings, ports: Ports) -> Document:
    """Until it is ready, kubelet starts no later container."""
    seconds = round(settings.start_within)
    if settings.hold_application == "StartupProbe":
        return {"startupProbe": _probe("/ready", ports.admin, period=1, failures=seconds)}
    waiting = ["llmroute", "ready", f"--port={ports.data}", f"--within={seconds}"]
    return {"lifecycle": {"postStart": {"exec": {"command": waiting}}}}


def _probe(path: str, port: int, period: int, failures: int) -> Document:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


def _security_context(settings: InjectorSettings) -> Document:
    """What Pod Security's `restricted` asks for, and a root file system that nobody writes to."""
    user = settings.run_as_user
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        **({"runAsUser": user, "runAsGroup": user} if user is not None else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }

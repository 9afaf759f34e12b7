"""What pods and routes tell, put together by gateway. Reading their documents and asking each pod is all it does."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llmroute_contract.pods import ADMIN_PORT, ADMIN_PORT_NAME, DEFAULT_GATEWAY, GATEWAY_CONTAINER, GATEWAY_LABEL
from llmroute_sidecar.status.kubectl import Kubectl, KubectlFailed

AT_ONCE = 8

Document = Mapping[str, Any]

_ABNORMAL = ("PodRestartRequired", "PodsWithoutGateway")
"""Conditions that are there only while there is something to do."""


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod, as it tells. `failure` is why it could not be asked."""

    name: str
    revision: str = ""
    since: str = ""
    breakers: Mapping[str, str] = field(default_factory=dict)
    """Of upstreams (`<route>/<name>`) whose breaker is not closed: its state."""
    tells: Sequence[str] = ()
    """What is wrong, by its own account."""
    failure: str = ""


@dataclass(slots=True)
class GatewayState:
    namespace: str
    gateway: str
    revision: str = ""
    """The newest one, by the status of its routes; empty where it has none."""
    routes: list[str] = field(default_factory=list)
    """Their names, and the conditions that are not as they should be."""
    pods: list[PodState] = field(default_factory=list)

    @property
    def synced(self) -> int:
        return sum(not pod.failure and bool(pod.revision) and pod.revision == self.revision for pod in self.pods)


def gather(kubectl: Kubectl, scope: Sequence[str], gateway: str | None) -> list[GatewayState]:
    """All gateways that have a route or a pod. Raises KubectlFailed where they cannot be listed."""
    found: dict[tuple[str, str], GatewayState] = {}

    def state(namespace: str, name: str) -> GatewayState:
        return found.setdefault((namespace, name), GatewayState(namespace, name))

    for route in kubectl.items("llmroutes.llmroute.dev", scope):
        metadata, status = route["metadata"], route.get("status") or {}
        one = state(metadata["namespace"], (route.get("spec") or {}).get("gateway") or DEFAULT_GATEWAY)
        one.revision = status.get("revision") or one.revision
        one.routes.append(f"{metadata['name']}{_amiss(status)}")
    pods = [pod for pod in kubectl.items("pods", scope, GATEWAY_LABEL) if _is_there(pod)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        chosen = [pod for pod in pods if gateway in (None, pod["metadata"]["labels"][GATEWAY_LABEL])]
        for pod, told in zip(chosen, threads.map(lambda pod: _ask(kubectl, pod), chosen), strict=True):
            state(pod["metadata"]["namespace"], pod["metadata"]["labels"][GATEWAY_LABEL]).pods.append(told)
    return [one for (_, name), one in sorted(found.items()) if gateway in (None, name)]


def _amiss(status: Document) -> str:
    """Conditions that are not as they should be."""
    told = [
        f"{one['type']} {one['reason']}"
        for one in status.get("conditions") or ()
        if one["status"] != ("False" if one["type"] in _ABNORMAL else "True")
    ]
    return f" ({', '.join(told)})" if told else ""


def _is_there(pod: Document) -> bool:
    finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not finished and _container(pod) is not None


def _container(pod: Document) -> Document | None:
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return next((one for one in containers if one.get("name") == GATEWAY_CONTAINER), None)


def _ask(kubectl: Kubectl, pod: Document) -> PodState:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    if not (pod.get("status") or {}).get("podIP"):
        return PodState(name, failure="it has no address yet")
    ports = (_container(pod) or {}).get("ports") or ()
    port = next((int(one["containerPort"]) for one in ports if one.get("name") == ADMIN_PORT_NAME), ADMIN_PORT)
    try:
        status = kubectl.ask_pod(namespace, name, port, "/status")
        breakers = kubectl.ask_pod(namespace, name, port, "/v1/circuit-breakers")
        return read_pod_state(name, status, breakers)
    except KubectlFailed as error:
        return PodState(name, failure=str(error))
    except (AttributeError, TypeError):  # whoever makes pods can put any server there
        return PodState(name, failure="its answer is not a gateway's")


def read_pod_state(name: str, status: Document, breakers: Document) -> PodState:
    """From what `/status` and `/v1/circuit-breakers` answer."""
    rejected = [
        f"route {one.get('name')}: {one.get('reason')}" for one in status.get("routes") or () if not one.get("accepted")
    ]
    unavailable = [
        f"upstream {one.get('route')}/{one.get('upstream')}: {one.get('reason')}"
        for one in status.get("unavailable_upstreams") or ()
    ]
    refused = [
        f"upstream {one.get('route')}/{one.get('upstream')} refuses the gateway's credential"
        for one in breakers.get("circuit_breakers") or ()
        if one.get("credential_refused")
    ]
    tells = [
        *([str(status["error"])] if status.get("error") else []),
        *rejected,
        *map(str, status.get("problems") or ()),
        *map(str, status.get("missing_secrets") or ()),
        *unavailable,
        *refused,
        *(["draining"] if status.get("draining") else []),
    ]
    return PodState(
        name,
        str(status.get("revision") or ""),
        str(status.get("since") or ""),
        {
            f"{one.get('route')}/{one.get('upstream')}": str(one.get("state"))
            for one in breakers.get("circuit_breakers") or ()
            if one.get("state") != "closed"
        },
        tells,
    )

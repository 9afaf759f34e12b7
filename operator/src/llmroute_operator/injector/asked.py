"""Whether a pod is to have a gateway: who asks for it, and whether it can have one.

The webhook's selectors (manifests/webhook) see to it that only pods come here that ask, or whose namespace does. What a
pod asks for itself and cannot have is refused; what its namespace asks for all is passed over, with a warning.
"""

from dataclasses import dataclass
from typing import Literal

from llmroute_contract.pods import INJECT_LABEL
from llmroute_operator.injector.annotations import shown
from llmroute_operator.injector.pod import Pod

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
"""Kubernetes': the API server's image of a pod that kubelet has from a file."""
_OS_LABEL = "kubernetes.io/os"


@dataclass(frozen=True, slots=True)
class Asked:
    by: Literal["pod", "namespace"]


@dataclass(frozen=True, slots=True)
class PassedOver:
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class CannotHave:
    message: str


def who_asks(pod: Pod) -> Asked | PassedOver | CannotHave:
    label = pod.labels.get(INJECT_LABEL)
    if label not in (None, "true", "false"):
        return CannotHave(f'label {INJECT_LABEL} is {shown(label)}: must be "true" or "false"')
    if label == "false" or MIRROR_ANNOTATION in pod.annotations:
        return PassedOver()
    why_not = _why_not(pod)
    if why_not is None:
        return Asked("namespace" if label is None else "pod")
    if label is None:
        return PassedOver(f"no LLM gateway is put into this pod: {why_not}")
    return CannotHave(f'label {INJECT_LABEL} is "true", but {why_not}; take the label away')


def _why_not(pod: Pod) -> str | None:
    spec = pod.spec
    named = spec.os.name if spec.os is not None else (spec.node_selector or {}).get(_OS_LABEL)
    if named == "windows":
        return "there is no gateway for Windows"
    if spec.host_network:
        return "with hostNetwork its loopback is the node's, where any pod of that kind could call the gateway"
    return None

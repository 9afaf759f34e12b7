"""A pod with a gateway, as the controller keeps it: what it needs of a pod's document and no more. Pure.

Thousands are kept, so texts and sets that many pods share are kept once.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmroute_contract.pods import ADMIN_PORT, ADMIN_PORT_NAME, GATEWAY_CONTAINER, GATEWAY_LABEL, REVISION_ANNOTATION
from llmroute_contract.scalars import SUBDOMAIN_PATTERN
from llmroute_contract.secrets import secrets_mounted
from llmroute_operator.controller.route import GatewayKey

Document = Mapping[str, Any]
_FINISHED = ("Succeeded", "Failed")
_sets: dict[frozenset[str], frozenset[str]] = {}


class PodId(NamedTuple):
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Owner(NamedTuple):
    """Who makes a pod anew: `deployment/web`, as kubectl has it; empty where nobody does."""

    restart: str


@dataclass(frozen=True, slots=True)
class GatewayPod:
    id: PodId
    key: GatewayKey
    version: str
    """Its resourceVersion."""
    created: str
    address: str
    """Its IP; empty before it has one."""
    port: int
    """Of the admin endpoints."""
    is_going: bool
    """It has been deleted, and may serve on until its grace is over."""
    annotated: str
    """The revision that it was last touched for."""
    secrets: frozenset[str]
    """Names of Secrets that its gateway mounts."""
    owner: Owner

    @property
    def is_serving(self) -> bool:
        """Whether it is to be asked, touched and counted in a route's status."""
        return bool(self.address) and not self.is_going

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/status"


def pod_id(document: Document) -> PodId:
    metadata = document["metadata"]
    return PodId(sys.intern(metadata["namespace"]), metadata["name"], metadata["uid"])


def read_pod(document: Document) -> GatewayPod | None:
    """None for a pod that has no gateway of ours, or none any more: a label alone makes no gateway, and on the host's
    network its address would be a node's."""
    metadata, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    container = next((one for one in _containers(spec) if one.get("name") == GATEWAY_CONTAINER), None)
    if container is None or spec.get("hostNetwork") or status.get("phase") in _FINISHED:
        return None
    secrets = secrets_mounted(document)
    return GatewayPod(
        id=pod_id(document),
        key=GatewayKey(sys.intern(metadata["namespace"]), sys.intern((metadata.get("labels") or {})[GATEWAY_LABEL])),
        version=metadata["resourceVersion"],
        created=sys.intern(metadata.get("creationTimestamp") or ""),
        address=status.get("podIP") or "",
        port=_admin_port(container),
        is_going="deletionTimestamp" in metadata,
        annotated=sys.intern((metadata.get("annotations") or {}).get(REVISION_ANNOTATION, "")),
        secrets=_sets.setdefault(secrets, secrets) if len(_sets) < 10_000 else secrets,
        owner=read_owner(metadata),
    )


def _containers(spec: Document) -> Iterator[Document]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _admin_port(container: Document) -> int:
    for port in container.get("ports") or ():
        if port.get("name") == ADMIN_PORT_NAME:
            return int(port["containerPort"])
    return ADMIN_PORT


_RESTARTED = {"StatefulSet": "statefulset", "DaemonSet": "daemonset"}


def read_owner(metadata: Document) -> Owner:
    """A Deployment's pods belong to a ReplicaSet, whose name is the Deployment's and the hash of the template. The API
    server takes any text for an owner's name, and this one comes into a command that people copy."""
    for reference in metadata.get("ownerReferences") or ():
        kind, name = reference.get("kind"), reference.get("name", "")
        if not reference.get("controller") or not re.fullmatch(SUBDOMAIN_PATTERN, name):
            continue
        template = (metadata.get("labels") or {}).get("pod-template-hash")
        if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
            return Owner(sys.intern(f"deployment/{name.removesuffix(f'-{template}')}"))
        if kind in _RESTARTED:
            return Owner(sys.intern(f"{_RESTARTED[kind]}/{name}"))
    return Owner("")

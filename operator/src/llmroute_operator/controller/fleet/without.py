"""Pods that ask for a gateway and have none: mostly made before the injector was there. Pure; `requests.py` asks.

A running pod cannot be given a container. It has to be made anew, and somebody has to be told.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmroute_contract.pods import DEFAULT_GATEWAY, GATEWAY_ANNOTATION, GATEWAY_LABEL, INJECT_LABEL
from llmroute_contract.scalars import LABEL_PATTERN
from llmroute_operator.controller.fleet.pod import Owner, read_owner
from llmroute_operator.controller.route import GatewayKey

Metadata = Mapping[str, Any]

NAMED_MAX = 5
OWNERS_MAX = 3
PODS_SELECTOR = f"{INJECT_LABEL}=true,!{GATEWAY_LABEL}"
"""Those that ask for themselves."""
PODS_OF_NAMESPACE_SELECTOR = f"{INJECT_LABEL}!=false,!{GATEWAY_LABEL}"
"""Those that a labelled namespace asks for; `!=` lets through what has no such label."""
NAMESPACES_SELECTOR = f"{INJECT_LABEL}=true"
FIELDS = "status.phase!=Succeeded,status.phase!=Failed,spec.hostNetwork!=true"
_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"


@dataclass(slots=True)
class Without:
    """Of one gateway: how many pods, and some of them."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    """In order of names."""
    owners: list[Owner] = field(default_factory=list)


def find_without(pods: Iterable[Metadata]) -> Mapping[GatewayKey, Without]:
    """By the gateway that they would have. `pods` are metadata of pods that the selectors let through."""
    found: dict[GatewayKey, Without] = {}
    for metadata in sorted(pods, key=lambda metadata: (metadata["namespace"], metadata["name"])):
        annotations = metadata.get("annotations") or {}
        if _MIRROR_ANNOTATION in annotations or "deletionTimestamp" in metadata:
            continue
        gateway = annotations.get(GATEWAY_ANNOTATION) or DEFAULT_GATEWAY
        if not re.fullmatch(LABEL_PATTERN, gateway):  # anybody's text, and it would name a ConfigMap
            continue
        key = GatewayKey(metadata["namespace"], gateway)
        one = found.setdefault(key, Without())
        one.count += 1
        if len(one.named) < NAMED_MAX:
            one.named.append(metadata["name"])
        owner = read_owner(metadata)
        if owner not in one.owners and len(one.owners) < OWNERS_MAX:
            one.owners.append(owner)
    return found


def what_to_do(namespace: str, owners: Sequence[Owner]) -> str:
    """How pods with these owners are made anew, as commands."""
    named = [owner.restart for owner in owners if owner.restart]
    more = named[:OWNERS_MAX]
    said = []
    if more:
        said.append(f"restart them: kubectl rollout restart -n {namespace} {' '.join(more)}")
    if len(named) < len(owners) or not owners:
        said.append(
            f"delete those that no Deployment makes, and make them anew: kubectl delete pod -n {namespace} NAME"
        )
    return "; ".join(said)

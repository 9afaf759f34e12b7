"""A route as the controller keeps it: read once from the API server's document, its spec parsed once a generation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from llmroute_contract.llmroute import LLMRouteSpec, parse_spec
from llmroute_contract.problem import Problem
from llmroute_contract.scalars import LABEL_PATTERN

DEFAULT_GATEWAY = "default"


class GatewayKey(NamedTuple):
    """What is reconciled as one: a gateway of a namespace."""

    namespace: str
    gateway: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.gateway}"


class RouteName(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Route:
    name: RouteName
    uid: str
    resource_version: str
    generation: int
    created: datetime | None
    gateway: str
    spec: LLMRouteSpec | tuple[Problem, ...]
    status: Mapping[str, Any]

    @property
    def key(self) -> GatewayKey:
        return GatewayKey(self.name.namespace, self.gateway)


def name_of(document: Mapping[str, Any]) -> RouteName:
    metadata = document["metadata"]
    return RouteName(metadata["namespace"], metadata["name"])


def is_going(document: Mapping[str, Any]) -> bool:
    """Whether a person has deleted it. A finalizer may keep it for long; nobody should be served from it until then."""
    return "deletionTimestamp" in document["metadata"]


def read_route(document: Mapping[str, Any], before: Route | None = None) -> Route:
    """The route of a document from the API server. `before` spares the parsing where its spec is the same."""
    metadata = document["metadata"]
    uid, generation = metadata["uid"], metadata.get("generation", 0)
    if before is not None and (before.uid, before.generation) == (uid, generation):
        spec, gateway = before.spec, before.gateway
    else:
        spec, gateway = parse_spec(document.get("spec")), _gateway_of(document.get("spec"))
    created = metadata.get("creationTimestamp")
    return Route(
        name=name_of(document),
        uid=uid,
        resource_version=metadata["resourceVersion"],
        generation=generation,
        created=datetime.fromisoformat(created) if created else None,
        gateway=gateway,
        spec=spec,
        status=document.get("status") or {},
    )


def _gateway_of(spec: object) -> str:
    """Also of a spec that does not parse: its verdict has to be told somewhere."""
    named = spec.get("gateway") if isinstance(spec, Mapping) else None
    return named if isinstance(named, str) and re.fullmatch(LABEL_PATTERN, named) else DEFAULT_GATEWAY


def is_older(version: str, than: str) -> bool:
    """Whether a resourceVersion is from before another. They are whole numbers of one growing sequence per resource
    (Kubernetes' API concepts, "Resource versions", since 1.35); where one is not, nothing is known.
    """
    return version.isdigit() and than.isdigit() and int(version) < int(than)

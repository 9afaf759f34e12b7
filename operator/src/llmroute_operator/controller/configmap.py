"""The ConfigMap of a gateway: what it should be, whether what is there is that, and what can be read back from it.

Pure. It is the controller's memory over a restart (the forms of routes that were last accepted, and since when a
gateway has had no routes), so it is read with care: a file counts only if the index has its digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from llmroute_contract import compiled as c
from llmroute_operator.controller.route import GatewayKey

FIELD_MANAGER = "llmroute"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "llmroute"
GATEWAY_LABEL = "llmroute.dev/gateway"
LABEL_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY},{GATEWAY_LABEL}"
EMPTIED_ANNOTATION = "llmroute.dev/emptied-at"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Present:
    """A ConfigMap as it is."""

    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    data: Mapping[str, str]
    binary_keys: frozenset[str]
    immutable: bool

    @property
    def emptied_at(self) -> datetime | None:
        """When the last of its routes went, where a readable note says so."""
        try:
            found = datetime.fromisoformat(self.annotations[EMPTIED_ANNOTATION])
        except (KeyError, ValueError):
            return None
        return found if found.tzinfo is not None else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ConfigMap as it should be."""

    key: GatewayKey
    data: Mapping[str, str]
    emptied_at: datetime | None = None
    """Set where it has no routes any more."""

    @property
    def name(self) -> str:
        return c.configmap_name(self.key.gateway)

    @property
    def labels(self) -> Mapping[str, str]:
        return {MANAGED_BY_LABEL: MANAGED_BY, GATEWAY_LABEL: self.key.gateway}

    @property
    def annotations(self) -> Mapping[str, str]:
        return {} if self.emptied_at is None else {EMPTIED_ANNOTATION: timestamp(self.emptied_at)}


def want(key: GatewayKey, files: Mapping[str, bytes], emptied_at: datetime | None = None) -> Wanted:
    return Wanted(key, {name: data.decode() for name, data in files.items()}, emptied_at)


def timestamp(moment: datetime) -> str:
    """As Kubernetes writes times: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def gateway_of(name: str) -> str | None:
    """The gateway of a ConfigMap of this name. The name says it, not the label: a person may have changed that."""
    return name.removeprefix(c.CONFIGMAP_PREFIX) if name.startswith(c.CONFIGMAP_PREFIX) else None


def read_present(document: Mapping[str, Any]) -> Present:
    metadata = document["metadata"]
    return Present(
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        data=document.get("data") or {},
        binary_keys=frozenset(document.get("binaryData") or ()),
        immutable=bool(document.get("immutable")),
    )


# --- what to write


def manifest(wanted: Wanted) -> Document:
    """The body of the server-side apply: all that is ours, so that what we no longer name is taken away."""
    metadata: Document = {"name": wanted.name, "namespace": wanted.key.namespace, "labels": dict(wanted.labels)}
    if wanted.annotations:
        metadata["annotations"] = dict(wanted.annotations)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(wanted.data)}


def holds(present: Present, wanted: Wanted) -> bool:
    """Whether all that is ours is there. What is there beside it, `foreign` tells."""
    return (
        wanted.data.items() <= present.data.items()
        and wanted.labels.items() <= present.labels.items()
        and wanted.annotations.items() <= present.annotations.items()
    )


def foreign(present: Present, wanted: Wanted) -> Document | None:
    """The merge patch that takes out what is not ours, or None where there is nothing.

    Server-side apply takes out what its own manager no longer names, but never a key that another hand has added; a
    gateway would find it in its volume. Foreign labels and annotations harm nobody and stay, but for our own note.
    """
    patch: Document = {}
    data = dict.fromkeys(sorted(present.data.keys() - wanted.data.keys()))
    binary = dict.fromkeys(sorted(present.binary_keys))
    if data:
        patch["data"] = data
    if binary:
        patch["binaryData"] = binary
    metadata: Document = {"uid": present.uid, "resourceVersion": present.resource_version}
    if EMPTIED_ANNOTATION in present.annotations.keys() - wanted.annotations.keys():
        metadata["annotations"] = {EMPTIED_ANNOTATION: None}
    elif not patch:
        return None
    return {"metadata": metadata, **patch}


# --- what to read back


@dataclass(frozen=True, slots=True)
class Served:
    """What gateways are served from a ConfigMap: its revision, and each route's compiled form."""

    revision: str = ""
    routes: Mapping[str, c.CompiledRoute] = field(default_factory=dict)
    shares: c.CompiledShares | None = None

    def generation_of(self, name: str) -> int | None:
        route = self.routes.get(name)
        return route.generation if route is not None else None


def served_from(key: GatewayKey, data: Mapping[str, str]) -> Served:
    """Read with distrust: a file that the index does not have by its digest, or of another gateway, is passed over."""
    try:
        index = c.decode(data.get(c.GATEWAY_FILE, "").encode(), c.CompiledGateway)
    except c.Unreadable:
        return Served()
    routes = {}
    for entry in index.routes:
        text = data.get(c.route_file(entry.name), "").encode()
        if c.digest(text) != entry.digest:
            continue
        try:
            route = c.decode(text, c.CompiledRoute)
        except c.Unreadable:
            continue
        if (route.namespace, route.gateway, route.name) == (*key, entry.name):
            routes[entry.name] = route
    return Served(index.revision, routes, index.shares or None)


# --- a gateway without routes


@dataclass(frozen=True, slots=True)
class Keep:
    """It stays, emptied at `emptied_at`, until it is `due` to be removed."""

    emptied_at: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class Remove:
    """It has been empty for long enough."""


def retire(present: Present, now: datetime, remove_after: timedelta) -> Keep | Remove:
    """What is to become of a ConfigMap whose routes are all gone.

    It is emptied first and stays for a while: a gateway whose files merely vanish keeps its last good snapshot, and
    would go on serving what a person has deleted; one that reads an index without routes answers 404. A note of a time
    that is still to come (another clock, a person's hand) counts as one of now.
    """
    emptied_at = present.emptied_at
    if emptied_at is None or emptied_at > now:
        emptied_at = now.replace(microsecond=0)
    due = emptied_at + remove_after
    return Remove() if present.emptied_at is not None and now >= due else Keep(emptied_at, due)

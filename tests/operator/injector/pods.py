"""Pods for the injector's tests, settings and what gateways need; and what a pod is once the patch has been applied."""

import copy
from typing import Any

from llmroute_operator.injector.inject import Allowed, Decision, Denied, Wanted, inject, read
from llmroute_operator.injector.needs import GatewayNeeds
from llmroute_operator.injector.patch import Operation
from llmroute_operator.injector.settings import InjectorSettings, parse_settings

Document = dict[str, Any]

IMAGE = "registry.example/llmroute@sha256:" + "0" * 64
SETTINGS = parse_settings(f"image: {IMAGE}")
OPEN = GatewayNeeds()
KEYS = GatewayNeeds(frozenset({"clients", "openai"}), frozenset({"clients"}), is_open=False)


def container(name: str = "app", **fields: Any) -> Document:
    return {"name": name, "image": "app:1", **fields}


def pod(
    *containers: Document,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Document:
    """A pod that asks by its own label, unless `labels` says otherwise."""
    metadata: Document = {
        "generateName": "web-",
        "labels": {"llmroute.dev/inject": "true"} if labels is None else labels,
    }
    if annotations is not None:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def decide(document: Document, needs: GatewayNeeds = OPEN, settings: InjectorSettings = SETTINGS) -> Decision:
    """As the webhook decides. That nothing is done to `document` itself is checked by the way."""
    before = copy.deepcopy(document)
    match read(document):
        case Wanted() as wanted:
            decision = inject(document, wanted, settings, needs)
        case decided:
            decision = decided
    assert document == before, "the pod that was asked about has been changed"
    return decision


def injected(document: Document, needs: GatewayNeeds = OPEN, settings: InjectorSettings = SETTINGS) -> Document:
    """The pod with its patch applied."""
    decision = decide(document, needs, settings)
    assert isinstance(decision, Allowed), decision
    made = apply(document, decision.operations)
    assert isinstance(made, dict)
    return made


def denied(document: Document, needs: GatewayNeeds = OPEN) -> str:
    decision = decide(document, needs)
    assert isinstance(decision, Denied), decision
    return "; ".join(decision.messages)


def gateway(document: Document) -> Document:
    """The gateway's container."""
    (found,) = [one for one in document["spec"].get("initContainers", []) if one["name"] == "llmroute-gateway"]
    assert isinstance(found, dict)
    return found


def variables(document: Document, name: str = "app") -> Document:
    """What a container is given by name: a text, or where it comes from."""
    every = [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]
    (found,) = [one for one in every if one["name"] == name]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in found.get("env", [])}


def apply(document: object, operations: Any) -> Any:
    """RFC 6902, as strictly as it is written: what is replaced or removed must be there, an index within the list."""
    made = copy.deepcopy(document)
    for operation in operations:
        made = _applied(made, operation)
    return made


def _applied(document: Any, operation: Operation) -> Any:
    if operation.path == "":
        assert operation.op == "replace"
        return copy.deepcopy(operation.value)
    assert operation.path.startswith("/")
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation.path[1:].split("/")]
    parent = document
    for part in way:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    value = copy.deepcopy(operation.value)
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if operation.op == "add":
            assert 0 <= index <= len(parent)
            parent.insert(index, value)
            return document
        assert 0 <= index < len(parent)
        if operation.op == "replace":
            parent[index] = value
        else:
            del parent[index]
    elif operation.op == "add":
        parent[last] = value
    else:
        assert last in parent
        if operation.op == "replace":
            parent[last] = value
        else:
            del parent[last]
    return document

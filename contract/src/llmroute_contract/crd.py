"""The CustomResourceDefinition, generated from the models in `llmroute.py`, so that there is one source of the API.

`manifests/crd/llmroutes.yaml` holds it, `make generate` writes that, and a test fails when it is stale. Owns the
translation of pydantic's JSON Schema into the structural schema that Kubernetes takes, and what only a CRD has: scope,
names, printer columns. Every field's own rules belong to the models.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from llmroute_contract.llmroute import (
    GROUP,
    KIND,
    NAME_MAX_LENGTH,
    PLURAL,
    VERSION,
    LLMRoute,
    LLMRouteSpec,
    LLMRouteStatus,
)
from llmroute_contract.part import cel

COMMAND = "make generate"
HEADER = f"# Generated from contract/src/llmroute_contract/llmroute.py by `{COMMAND}`. Do not edit.\n"

_Schema = dict[str, Any]

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-validations",
)
"""What means the same on both sides. The rest is translated below, or said in CEL (names of a map's keys)."""

_LIST_KEYS = ("name", "type", "model")
"""A list of objects that must have one of these is a map by it: the API server refuses a second entry of one name, and
server-side apply merges entries instead of replacing the list."""

_COLUMNS = (
    ("Gateway", "string", ".spec.gateway", 0, "The gateway that serves the route"),
    ("Accepted", "string", '.status.conditions[?(@.type=="Accepted")].status', 0, "Whether the spec is served"),
    ("Synced", "string", ".status.sidecars.summary", 0, "How many of its pods serve the newest revision"),
    ("Programmed", "string", '.status.conditions[?(@.type=="Programmed")].status', 1, "Whether it is in the ConfigMap"),
    ("Revision", "string", ".status.revision", 1, "The gateway's revision"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)


def custom_resource_definition() -> _Schema:
    """The whole resource, as plain values."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["llmr"],
                "categories": ["llmroute"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def crd_yaml() -> str:
    """The text of `manifests/crd/llmroutes.yaml`."""
    return HEADER + yaml.dump(
        custom_resource_definition(), Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True
    )


class _PlainDumper(yaml.SafeDumper):
    """Without anchors and aliases for what stands twice: people, and not all tools, read them."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _column(name: str, kind: str, path: str, priority: int, description: str) -> _Schema:
    column: _Schema = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if priority:
        column["priority"] = priority
    return column


def _root() -> _Schema:
    return {
        "description": _one_line(LLMRoute.__doc__ or ""),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # The API server allows no more than a rule on the name here; the rest is Kubernetes' own to check.
            "metadata": {"type": "object"},
            "spec": {**_of_model(LLMRouteSpec), "description": LLMRoute.model_fields["spec"].description},
            "status": {**_of_model(LLMRouteStatus), "description": LLMRoute.model_fields["status"].description},
        },
        "x-kubernetes-validations": [
            cel(
                f"size(self.metadata.name) <= {NAME_MAX_LENGTH}",
                f"metadata.name must be at most {NAME_MAX_LENGTH} characters",
            )
        ],
    }


def _of_model(model: type[LLMRouteSpec] | type[LLMRouteStatus]) -> _Schema:
    # Mode "serialization" shows defaults as texts ("5s") where the model holds seconds.
    schema = model.model_json_schema(mode="serialization")
    return _structural(schema, schema.get("$defs", {}))


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, _Schema]) -> _Schema:
    """`schema` with references and `null` alternatives resolved, and only what a structural schema may hold."""
    schema = _resolved(schema, definitions)
    made: _Schema = {name: schema[name] for name in _KEPT if name in schema}
    if "description" in made:
        made["description"] = _one_line(made["description"])
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if schema.get("default") is not None:
        # An object's own fields have defaults too: `{}` lets each of them stand in one place.
        made["default"] = {} if made["type"] == "object" else schema["default"]
    if made["type"] == "array":
        items = _structural(schema["items"], definitions)
        key = next((name for name in _LIST_KEYS if name in items.get("required", ())), None)
        made["items"] = items
        made["x-kubernetes-list-type"] = "map" if key else "atomic"
        if key:
            made["x-kubernetes-list-map-keys"] = [key]
    elif "properties" in schema:
        made["properties"] = {name: _structural(part, definitions) for name, part in schema["properties"].items()}
    elif made["type"] == "object":
        made["additionalProperties"] = _structural(_map_values(schema), definitions)
    return made


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, _Schema]) -> _Schema:
    """With what `$ref` names, and the one alternative that is not null, in their place; nearer words win."""
    found = dict(schema)
    while True:
        if "$ref" in found:
            found = {**definitions[found.pop("$ref").rpartition("/")[2]], **found}
        elif "anyOf" in found:
            (alternative,) = (part for part in found.pop("anyOf") if part.get("type") != "null")
            found = {**alternative, **found}
        else:
            return found


def _map_values(schema: Mapping[str, Any]) -> _Schema:
    """The schema of a map's values. That of its keys has no place in a structural schema: CEL says it."""
    if "patternProperties" in schema:
        (values,) = schema["patternProperties"].values()
    else:
        values = schema["additionalProperties"]
    found: _Schema = values
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())

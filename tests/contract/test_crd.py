"""The CRD that is generated: current, bounded, described, with the model's defaults."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from llmroute_contract.crd import COMMAND, crd_yaml, custom_resource_definition
from llmroute_contract.llmroute import LLMRouteSpec
from tests.cluster.control_plane import CRD
from tests.contract.routes import full_route, spec_document, spec_of

Schema = dict[str, Any]
VERSION: Schema = custom_resource_definition()["spec"]["versions"][0]
ROOT: Schema = VERSION["schema"]["openAPIV3Schema"]
OBJECT_META = {"apiVersion", "kind", "metadata"}
"""Kubernetes describes and checks these itself."""


def _schemas(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        if path or name not in OBJECT_META:
            yield from _schemas(part, f"{path}.{name}".lstrip("."))
    for below, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if below in schema:
            yield from _schemas(schema[below], path + mark)


SCHEMAS = dict(_schemas(ROOT, ""))


def test_crd_is_current() -> None:
    assert CRD.read_text() == crd_yaml(), f"manifests/crd/{CRD.name} is stale: run `{COMMAND}`"


def test_the_file_is_plain_yaml_of_what_was_generated() -> None:
    assert yaml.safe_load(crd_yaml()) == custom_resource_definition()
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(crd_yaml()))


def test_every_list_text_and_map_is_bounded() -> None:
    bounds = {"array": "maxItems", "string": "maxLength"}
    unbounded = [
        path
        for path, schema in SCHEMAS.items()
        if (bound := bounds.get(schema["type"])) and bound not in schema and "enum" not in schema
    ]
    assert unbounded == []
    assert [path for path, s in SCHEMAS.items() if "additionalProperties" in s and "maxProperties" not in s] == []


def test_every_number_that_a_person_writes_is_bounded() -> None:
    numbers = {path: s for path, s in SCHEMAS.items() if s["type"] in ("integer", "number") and path.startswith("spec")}
    assert len(numbers) >= 8
    assert [path for path, s in numbers.items() if "minimum" not in s or "maximum" not in s] == []


def test_every_field_is_described() -> None:
    assert [path for path, s in SCHEMAS.items() if not path.endswith(("[]", "{}")) and not s.get("description")] == []


def test_it_is_structural() -> None:
    """Every schema has a type, and no unknown field is kept."""
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "not", "const", "title", "x-kubernetes-preserve-unknown-fields"}
    assert [path for path, schema in SCHEMAS.items() if "type" not in schema or forbidden & schema.keys()] == []


def test_lists_of_named_objects_are_maps_and_all_others_atomic() -> None:
    keys = {path: s.get("x-kubernetes-list-map-keys") for path, s in SCHEMAS.items() if s["type"] == "array"}
    assert {path for path, key in keys.items() if key == ["name"]} == {
        "spec.auth.clients",
        "spec.upstreams",
        "spec.models",
        "spec.limits",
        "status.limits",
    }
    assert {path for path, key in keys.items() if key == ["model"]} == {"spec.prices"}
    assert {path for path, key in keys.items() if key == ["type"]} == {"status.conditions"}
    atomic = [s["x-kubernetes-list-type"] for path, s in SCHEMAS.items() if s["type"] == "array" and not keys[path]]
    assert set(atomic) == {"atomic"}


def test_every_rule_has_a_message_of_its_own() -> None:
    rules = [rule for schema in SCHEMAS.values() for rule in schema.get("x-kubernetes-validations", ())]
    assert len(rules) >= 20
    assert [rule for rule in rules if not rule.get("message")] == []


def test_every_field_of_the_model_is_in_it_and_the_full_route_has_them_all() -> None:
    fields = {path for path in SCHEMAS if path.startswith("spec.")}
    written = set(_paths_of(full_route()["spec"], "spec"))
    assert written == fields


def _paths_of(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            here = f"{path}{{}}" if path.endswith("headers") else f"{path}.{name}"
            yield here
            yield from _paths_of(part, here)
    elif isinstance(value, list):
        for part in value:
            yield f"{path}[]"
            yield from _paths_of(part, f"{path}[]")


def test_defaults_are_the_models() -> None:
    """Filled in from the CRD alone, a route is the one that the model makes of it."""
    least = spec_document(
        [{"name": "m", "targets": [{"upstream": "main"}]}], limits=[{"name": "l", "per": "Model", "requests": 1}]
    )
    filled = _with_defaults(least, SCHEMAS["spec"])
    assert filled != least
    assert spec_of(filled) == spec_of(least)
    assert isinstance(spec_of(filled), LLMRouteSpec)


def _with_defaults(value: Any, schema: Schema) -> Any:
    """As the API server does it: defaults, and the defaults of what they brought in."""
    if isinstance(value, list):
        return [_with_defaults(each, schema["items"]) for each in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = {**{name: part["default"] for name, part in properties.items() if "default" in part}, **value}
    return {name: _with_defaults(each, properties.get(name, {})) for name, each in filled.items()}


@pytest.mark.parametrize(
    ("name", "priority"),
    [("Gateway", 0), ("Accepted", 0), ("Synced", 0), ("Programmed", 1), ("Revision", 1), ("Age", 0)],
)
def test_kubectl_get_has_the_column(name: str, priority: int) -> None:
    (column,) = (column for column in VERSION["additionalPrinterColumns"] if column["name"] == name)
    assert column.get("priority", 0) == priority


def test_its_names_and_status() -> None:
    spec = custom_resource_definition()["spec"]
    assert (spec["names"]["plural"], spec["names"]["shortNames"], spec["scope"]) == (
        "llmroutes",
        ["llmr"],
        "Namespaced",
    )
    assert VERSION["subresources"] == {"status": {}}

"""docs/reference.md: every field of an LLMRoute, as its CustomResourceDefinition has it, nested by section.

Owns the page's form. What a field is, may be and means stands in the models (contract/); the examples are cut out of
`reference_example.yaml`, which uses every field.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmroute_contract import scalars, upstream
from llmroute_contract.crd import custom_resource_definition

EXAMPLE = Path(__file__).with_name("reference_example.yaml")
HEADER = "<!-- Generated from contract/src/llmroute_contract/ by `make generate`. Do not edit. -->\n"
ABOUT = """
# LLMRoute reference

`llmroute.dev/v1alpha1`, kind `LLMRoute`, plural `llmroutes`, short `llmr`, in a namespace. The same is told by
`kubectl explain llmroute.spec --recursive`; `llmroute validate -f FILE` checks a file without a cluster.

A field is optional unless it is **required**. An unknown field is refused. A list whose entries have a name holds each
name once. Names that must exist elsewhere (a target's upstream, a fallback's model) are checked by the controller and
by `llmroute validate`; the conditions of the [status](#status) tell of them.

`metadata.name` has at most 100 characters.
"""
SECRETS = """
## References to Secrets

Secrets are named, never held, and always in the route's own namespace. They are mounted into the gateway's container;
the controller never reads one.

| form | where | names |
|---|---|---|
| `{secretRef: {name, key}}` | `credential`, `caFrom` | one entry of a Secret: `key` is the entry |
| `{secretRef: {name}}` | `keysFrom`, `clientCertFrom` | a whole Secret |
"""
AFTER = {
    "status": "What each condition and reason means, and what to do, is in [status.md](status.md).\n",
    "spec.limits[]": "What is counted when, and what is exact: [limits.md](limits.md).\n",
    "spec.models[]": "How targets, sessions and retries work: [routing.md](routing.md).\n",
    "spec.upstreams[].litellm": "Providers, and what litellm may know: [litellm.md](litellm.md).\n",
    "spec.logging": "What a log line holds: [telemetry.md](telemetry.md).\n",
    "spec.sharedState": "The server itself is the operator's to name: [shared-state.md](shared-state.md).\n",
}
FORMS = {
    scalars.LABEL_PATTERN: "DNS label",
    scalars.SUBDOMAIN_PATTERN: "DNS name",
    scalars.SECRET_KEY_PATTERN: "letters, digits, `-`, `_`, `.`",
    scalars.MODEL_PATTERN: "model name",
    scalars.MODEL_MATCH_PATTERN: "model name, `*` at its end for a prefix",
    scalars.USD_PATTERN: "decimal text, up to 6 decimals",
    scalars.INSTANT_PATTERN: "RFC 3339 time",
    upstream.TOKEN_PATTERN: "header name",
    upstream.HEADER_VALUE_PATTERN: "printable ASCII",
}
_DURATION_BOUNDS = re.compile(r"duration\(self\) >= duration\('(\w+)'\) && duration\(self\) <= duration\('(\w+)'\)")

_Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """One object of the resource. `path` is `spec.upstreams[].tls`; `values` are its examples."""

    path: str
    schema: _Schema
    values: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[2].removesuffix("[]")

    @property
    def is_list(self) -> bool:
        return self.path.endswith("[]")


def reference_page() -> str:
    """All of it."""
    return HEADER + ABOUT + "".join(map(_shown, sections())) + SECRETS


def sections() -> Iterator[Section]:
    """Each object of spec and status, the outer before the inner, in the order of their fields."""
    (version,) = custom_resource_definition()["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    example = yaml.safe_load(EXAMPLE.read_text())
    for name in ("spec", "status"):
        yield from _nested(Section(name, properties[name], (example[name],)))


def _nested(section: Section) -> Iterator[Section]:
    yield section
    for name, schema in section.schema["properties"].items():
        inner = _object_in(schema)
        if inner is None:
            continue
        values = [value[name] for value in section.values if name in value]
        if schema["type"] == "array":
            values = [item for items in values for item in items]
        suffix = "[]" if schema["type"] == "array" else ""
        yield from _nested(Section(f"{section.path}.{name}{suffix}", inner, tuple(values)))


def _object_in(schema: _Schema) -> _Schema | None:
    """The object that `schema` is or lists, where it gets a section of its own."""
    if schema["type"] == "array":
        return _object_in(schema["items"])
    return schema if "properties" in schema and not _is_secret(schema) else None


def _is_secret(schema: _Schema) -> bool:
    return list(schema.get("properties", ())) == ["secretRef"]


def _shown(section: Section) -> str:
    level = "#" * min(4, 2 + section.path.count("."))
    about = section.schema.get("description", "")
    rows = "".join(_row(section, name, schema) for name, schema in section.schema["properties"].items())
    rules = "".join(f"- {_rule(rule)}\n" for rule in section.schema.get("x-kubernetes-validations", ()))
    parts = [
        f"\n{level} {section.path}\n",
        f"{about}\n" if about else "",
        f"| field | type | default | meaning |\n|---|---|---|---|\n{rows}",
        rules,
        _example(section),
        AFTER.get(section.path, ""),
    ]
    return "\n".join(part for part in parts if part)


def _row(section: Section, name: str, schema: _Schema) -> str:
    required = "**required**" if name in section.schema.get("required", ()) else _default(schema)
    kind = _kind(schema)
    if _object_in(schema) is not None:
        suffix = "[]" if schema["type"] == "array" else ""
        kind = f"[{kind}](#{_anchor(f'{section.path}.{name}{suffix}')})"
    bounds = "; ".join(_bounds(schema))
    meaning = schema.get("description", "")
    return f"| `{name}` | {_cell(f'{kind}: {bounds}' if bounds else kind)} | {required} | {_cell(meaning)} |\n"


def _kind(schema: _Schema) -> str:
    if _is_secret(schema):
        entry = "key" in schema["properties"]["secretRef"]["properties"]
        return f"[{'entry of a Secret' if entry else 'Secret'}](#references-to-secrets)"
    match schema:
        case {"enum": [*words]}:
            return ", ".join(f"`{word}`" for word in words)
        case {"type": "array", "items": items}:
            return f"list of {'objects' if _object_in(items) is not None else _kind(items)}"
        case {"additionalProperties": _}:
            return "map of texts"
        case {"pattern": scalars.DURATION_PATTERN}:
            return "duration"
        case {"type": "string"}:
            return "text"
        case {"type": "integer"}:
            return "whole number"
        case _:
            return str(schema["type"])


def _bounds(schema: _Schema) -> Iterator[str]:
    """In words. A duration's stand in its CEL rule, whose form `scalars.py` owns."""
    pattern = schema.get("pattern")
    if pattern == scalars.DURATION_PATTERN:
        found = _DURATION_BOUNDS.search(schema["x-kubernetes-validations"][0]["rule"])
        assert found is not None, "the rule of durations has another form now"
        yield f"`{found[1]}` to `{found[2]}`"
        return
    if pattern is not None:
        yield FORMS.get(pattern, f"`{pattern}`")
    if "minimum" in schema and "maximum" in schema:
        yield f"{schema['minimum']:,} to {schema['maximum']:,}"
    if "enum" not in schema and "maxLength" in schema:
        yield f"at most {schema['maxLength']:,} characters"
    if "maxItems" in schema:
        least = schema.get("minItems", 0)
        yield f"{least} to {schema['maxItems']:,} entries"
        yield from (f"each: {bound}" for bound in _bounds(schema["items"]) if _object_in(schema["items"]) is None)
    if "maxProperties" in schema:
        yield f"{schema.get('minProperties', 0)} to {schema['maxProperties']} entries"


def _default(schema: _Schema) -> str:
    value = schema.get("default")
    if value is None or value == "":
        return ""
    return "as there" if isinstance(value, dict) else f"`{_scalar(value)}`"


def _rule(rule: _Schema) -> str:
    field = rule.get("fieldPath", "").removeprefix(".")
    return f"`{field}`: {rule['message']}." if field else f"{rule['message'][0].upper()}{rule['message'][1:]}."


def _example(section: Section) -> str:
    """The section's own fields, and not those of sections within it."""
    within = {name for name, schema in section.schema["properties"].items() if _object_in(schema) is not None}
    own = [{name: value for name, value in one.items() if name not in within} for one in section.values]
    own = [value for value in own if value]
    if not own:
        return ""
    document = {section.key: own if section.is_list else own[0]}
    text = yaml.safe_dump(document, sort_keys=False, width=110, default_flow_style=None)
    return f"```yaml\n{text}```\n"


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _anchor(path: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w-]", "", path.lower())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

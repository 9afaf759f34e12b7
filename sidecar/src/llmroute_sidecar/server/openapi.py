"""The admin port's `/openapi.json` (OpenAPI 3.1), made of what is served: paths, words, and the types of answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Described:
    """A path that answers to GET."""

    path: str
    words: str
    answers: type[msgspec.Struct] | None
    """None: not JSON of a type of ours."""


def document(version: str, paths: Iterable[Described]) -> bytes:
    """It is made when it is asked for: a gateway that nobody looks at does not hold it."""
    described = list(paths)
    typed = {one.path: one.answers for one in described if one.answers is not None}
    references, components = msgspec.json.schema_components(typed.values(), ref_template="#/components/schemas/{name}")
    schemas = dict(zip(typed, references, strict=True))
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "llmroute gateway", "version": version},
            "paths": {one.path: {"get": _operation(one.words, schemas.get(one.path))} for one in described},
            "components": {"schemas": components},
        }
    )


def _operation(words: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {"description": words, "responses": {"200": {"description": "OK", **content}}}

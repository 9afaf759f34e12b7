"""What is wrong with a route: the field, the reason in one CamelCase word, and a sentence that says what to do.

One type for all who tell a person: conditions, `llmroute validate`, the gateway's `/status`.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from pydantic import ValidationError

Reason = Literal[
    "Invalid",  # the spec does not fit the model
    "UnknownUpstream",
    "UnknownFallback",
    "FallbackCycle",
    "UnknownModel",
    "ModelConflict",
    "DefaultUpstreamConflict",
    "ConfigMapTooLarge",
]


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing wrong. `field` is a path as kubectl writes it: `spec.models[2].fallbacks[0]`."""

    field: str
    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def field_path(location: Iterable[str | int], prefix: str = "") -> str:
    """`("models", 2, "name")` as `models[2].name`."""
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def problems_of(error: ValidationError, prefix: str = "") -> tuple[Problem, ...]:
    """pydantic's findings as Problems, in the document's order, at most 20 of them."""
    found = []
    for detail in error.errors(include_url=False, include_context=True, include_input=True)[:20]:
        found.append(Problem(field_path(detail["loc"], prefix), "Invalid", _message(detail)))
    return tuple(found)


def _message(detail: Any) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return "is not a field of this resource; see `kubectl explain llmroute.spec`"
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"must match {detail['ctx']['pattern']}"
    message: str = detail["msg"]
    return message[0].lower() + message[1:]

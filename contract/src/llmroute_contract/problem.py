"""What is wrong with a route: the field, the reason in one CamelCase word, and a sentence that says what to do.

One type for all who tell a person: conditions, `llmroute validate`, the gateway's `/status`.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from pydantic import ValidationError
from pydantic_core import ErrorDetails

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


class WrongField(ValueError):
    """Raised by a model's validator that knows which of its fields is to blame: `location`, from where it looks."""

    def __init__(self, message: str, *location: str | int) -> None:
        super().__init__(message)
        self.location = location


def field_path(location: Iterable[str | int], prefix: str = "") -> str:
    """`("models", 2, "name")` as `models[2].name`."""
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


TOLD_MAX = 20
"""Problems that are told of one route at once; a person mends those first."""


def problems_of(error: ValidationError, prefix: str = "") -> tuple[Problem, ...]:
    """pydantic's findings as Problems, in the document's order, at most TOLD_MAX of them."""
    details = error.errors(include_url=False, include_context=True, include_input=True)[:TOLD_MAX]
    return tuple(Problem(field_path(_location(detail), prefix), "Invalid", _message(detail)) for detail in details)


def _location(detail: ErrorDetails) -> tuple[str | int, ...]:
    location = detail["loc"]
    if location and location[-1] == "[key]":  # pydantic's mark for a map's key, which stands before it
        location = location[:-1]
    cause = detail.get("ctx", {}).get("error")
    return (*location, *cause.location) if isinstance(cause, WrongField) else location


_EXPECTED = {
    "model_type": "a map of fields",
    "dict_type": "a map",
    "list_type": "a list",
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
}


def _message(detail: ErrorDetails) -> str:
    """In a person's words, and without the value: it may be a key that was put into the wrong place."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {_kind_of(detail['input'])}"
    match kind:
        case "extra_forbidden" | "invalid_key":
            return "is not a field of this resource; see `kubectl explain llmroute.spec`"
        case "missing":
            return "is required"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"must be {context['expected']}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
        case "string_too_short":
            return (
                "must not be empty" if context["min_length"] == 1 else f"must have {context['min_length']} characters"
            )
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "too_short":
            return "must not be empty; leave it out instead"
        case "too_long":
            return f"must have at most {context['max_length']} entries"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
    message = detail["msg"]
    return message[0].lower() + message[1:]


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a text"
        case dict():
            return "a map"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"

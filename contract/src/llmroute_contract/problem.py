"""What is wrong with a route: the field, the reason in one CamelCase word, and a sentence that says what to do.

One type for all who tell a person: conditions, `llmroute validate`, the gateway's `/status`.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Literal, get_args

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmroute_contract.scalars import IN_WORDS

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


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> tuple[Problem, ...]:
    """pydantic's findings in a document read as `model`, as Problems in its order, at most TOLD_MAX of them."""
    details = error.errors(include_url=False, include_context=True, include_input=True)[:TOLD_MAX]
    return tuple(
        Problem(field_path(_location(detail), prefix), "Invalid", _message(detail, model)) for detail in details
    )


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


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """In a person's words, and without the value: it may be a key that was put into the wrong place."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        wrong = f"must be {_EXPECTED[kind]}, not {_kind_of(detail['input'])}"
        return wrong + _how_to_write(kind, detail["input"], _fields(model, detail["loc"]))
    match kind:
        case "extra_forbidden" | "invalid_key":
            return f"is not a field; {_fields_instead(detail['loc'], model)}"
        case "missing":
            return "is required"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"must be {context['expected']}"
        case "string_pattern_mismatch":
            words = IN_WORDS.get(context["pattern"])
            return f"must match {context['pattern']}" + (f": {words}" if words else "")
        case "string_too_short":
            return (
                "must not be empty"
                if context["min_length"] == 1
                else f"must have at least {context['min_length']} characters"
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


def _how_to_write(kind: str, value: object, fields: Iterable[str]) -> str:
    match kind, value:
        case "string_type", bool() | int() | float():
            return "; put it in quotes"
        case "int_type" | "float_type", str() if value.isdecimal():
            return "; leave the quotes out"
        case "model_type", str() if names := tuple(fields):
            return f"; its fields are {', '.join(names)}"
    return ""


def _fields_instead(location: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """For a field that is not there: the one that was meant, or all that there are."""
    fields = tuple(_fields(model, location[:-1]))
    near = get_close_matches(str(location[-1]), fields, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"


def _fields(model: type[BaseModel], location: Iterable[str | int]) -> Iterator[str]:
    """The fields of the object at `location`, as they are written; none where no object can be."""
    here: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str) and here is not None:
            types = [field.annotation for name, field in here.model_fields.items() if (field.alias or name) == part]
            here = next((found for one in types for found in _models_in(one)), None)
    for name, field in here.model_fields.items() if here is not None else ():
        yield field.alias or name


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """`Model` of `Model`, of `list[Model]`, and of either with `| None` or in `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


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

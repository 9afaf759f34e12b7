"""JSON patches (RFC 6902): the operations that lead from one document to another.

Small where it matters to a reader of an audit log: what was put in front of a list or behind it is added there, what
differs in one element is changed in it. Everything else of a list that changed is replaced as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    op: Literal["add", "replace", "remove"]
    path: str
    value: Any = msgspec.UNSET


def difference(before: object, after: object) -> list[Operation]:
    return list(_between(before, after, ""))


def _between(before: object, after: object, path: str) -> Iterator[Operation]:
    if _same(before, after):
        return
    match before, after:
        case dict(), dict():
            yield from _between_maps(before, after, path)
        case list(), list():
            yield from _between_lists(before, after, path)
        case _:
            yield Operation("replace", path, after)


def _between_maps(before: Mapping[str, object], after: Mapping[str, object], path: str) -> Iterator[Operation]:
    for key in before:
        if key not in after:
            yield Operation("remove", f"{path}/{_escaped(key)}")
    for key, value in after.items():
        if key in before:
            yield from _between(before[key], value, f"{path}/{_escaped(key)}")
        else:
            yield Operation("add", f"{path}/{_escaped(key)}", value)


def _between_lists(before: Sequence[object], after: Sequence[object], path: str) -> Iterator[Operation]:
    more = len(after) - len(before)
    if more == 0:
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _between(one, other, f"{path}/{index}")
    elif more > 0 and _same(before, after[more:]):
        for value in reversed(after[:more]):
            yield Operation("add", f"{path}/0", value)
    elif more > 0 and _same(before, after[: len(before)]):
        for value in after[len(before) :]:
            yield Operation("add", f"{path}/-", value)
    else:
        yield Operation("replace", path, after)


def _same(one: object, other: object) -> bool:
    """Equal as JSON: Python's 1 is its True and its 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _escaped(key: str) -> str:
    """As a JSON pointer has it (RFC 6901 §3)."""
    return key.replace("~", "~0").replace("/", "~1")

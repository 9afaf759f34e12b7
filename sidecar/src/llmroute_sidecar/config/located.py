"""YAML text as values that know their lines: what a person's file says, and where.

Owns the bounds on what a file may ask of us (size, depth, nodes, what aliases multiply) and reads YAML as kubectl
does: a key that stands twice is refused, times stay texts. What the values mean is `documents.py`'s.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_NODES = 500_000
MAX_ALIASED_NODES = 50_000
"""How many nodes all aliases together may stand for: nine lines of them can mean billions."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = yaml.resolver.Resolver()
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({_TAG + "str", _TAG + "timestamp", _TAG + "value"})
_TRUE = frozenset({"true", "yes", "on"})


class BadYaml(ValueError):
    """Text that is not YAML, or not YAML that we take. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Located:
    """A value and where it stands. `children` holds each entry's value with the line of its key."""

    value: Any
    line: int
    children: dict[str | int, tuple[int, "Located"]] = field(default_factory=dict)
    size: int = 1
    """Nodes in it, those behind aliases counted each time."""

    def line_of(self, path: str) -> int:
        """The line of a field such as `spec.models[2].name`; of what holds it, where it is not there."""
        line, here, rest = self.line, self, path
        while rest:
            found = _next_child(here, rest)
            if found is None:
                break
            line, here, rest = found
        return line


def _next_child(here: Located, path: str) -> tuple[int, Located, str] | None:
    """The child that `path` begins with. Keys may hold dots themselves: the longest that fits is meant."""
    index = re.match(r"\.?\[(\d+)\]", path)
    if index is not None:
        child = here.children.get(int(index.group(1)))
        return (*child, path[index.end() :]) if child is not None else None
    path = path.removeprefix(".")
    ends = [match.start() for match in re.finditer(r"[.\[]", path)] + [len(path)]
    for end in reversed(ends):
        child = here.children.get(path[:end])
        if child is not None:
            return (*child, path[end:])
    return None


def read_yaml(text: str) -> list[Located]:
    """All documents of a text; empty ones are left out. Raises BadYaml."""
    composer = _Composer()
    try:
        return list(composer.documents(iter(yaml.parse(text, Loader=_LOADER))))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"{error.problem or error.context}"
        if mark is not None and _has_tab(text, mark.line):
            problem = "a tab stands before the text; YAML is indented by spaces"
        raise BadYaml(mark.line + 1 if mark else 1, f"is not YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        raise BadYaml(line, "is not YAML: it holds a control character") from None
    except yaml.YAMLError:
        raise BadYaml(1, "is not YAML") from None


def _has_tab(text: str, index: int) -> bool:
    line = text.splitlines()[index : index + 1]
    return bool(line) and "\t" in line[0][: len(line[0]) - len(line[0].lstrip())]


class _Composer:
    """Builds values from parser events. The parser keeps no stack of its own, so depth is bounded before it costs."""

    def __init__(self) -> None:
        self._anchors: dict[str, Located | None] = {}
        self._nodes = 0
        self._aliased = 0

    def documents(self, events: Iterator[Any]) -> Iterator[Located]:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                document = self._node(next(events), events, 0)
                if document.value is not None:
                    yield document

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Located:
        line = event.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise BadYaml(line, f"has more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise BadYaml(line, f"is nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Located(_scalar(event, line), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, events, depth)
        else:
            node = self._mapping(event, events, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, anchor: str, line: int) -> Located:
        if anchor not in self._anchors:
            raise BadYaml(line, f"there is no anchor &{anchor} above")
        node = self._anchors[anchor]
        if node is None:
            raise BadYaml(line, f"*{anchor} stands within &{anchor} itself")
        self._aliased += node.size
        if self._aliased > MAX_ALIASED_NODES:
            raise BadYaml(line, f"aliases stand for more than {MAX_ALIASED_NODES} values")
        return node

    def _sequence(self, event: Any, events: Iterator[Any], depth: int) -> Located:
        _check_tag(event, "seq")
        node = Located([], event.start_mark.line + 1)
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            child = self._node(item, events, depth + 1)
            node.children[len(node.value)] = (item.start_mark.line + 1, child)
            node.value.append(child.value)
            node.size += child.size
        return node

    def _mapping(self, event: Any, events: Iterator[Any], depth: int) -> Located:
        _check_tag(event, "map")
        node = Located({}, event.start_mark.line + 1)
        merged: list[Located] = []
        while not isinstance(key := next(events), yaml.MappingEndEvent):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarEvent):
                raise BadYaml(line, "a key must be a plain text")
            child = self._node(next(events), events, depth + 1)
            node.size += child.size
            if key.value == "<<" and key.implicit[0]:
                merged += _merge_sources(child, line)
                continue
            if key.value in node.children:
                raise BadYaml(line, f"{key.value!r} stands here already, on line {node.children[key.value][0]}")
            node.children[key.value] = (line, child)
        for source in merged:  # what the mapping says itself, and what is merged first, goes before
            for name, found in source.children.items():
                node.children.setdefault(name, found)
        node.value = {name: child.value for name, (_, child) in node.children.items()}
        return node


def _merge_sources(child: Located, line: int) -> list[Located]:
    sources = [found for _, found in child.children.values()] if isinstance(child.value, list) else [child]
    if not all(isinstance(source.value, dict) for source in sources):
        raise BadYaml(line, "<< takes a mapping, or a list of mappings")
    return sources


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", _TAG + kind):
        raise BadYaml(event.start_mark.line + 1, f"the tag {event.tag} is not taken here")


def _scalar(event: Any, line: int) -> Any:
    text: str = event.value
    tag = event.tag if event.tag not in (None, "!") else _RESOLVER.resolve(yaml.ScalarNode, text, event.implicit)
    if tag in _TEXT_TAGS or (event.tag == "!" and tag is not None):
        return text
    try:
        match tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.lower() in _TRUE
            case "int":
                return _integer(text)
            case "float":
                return (
                    text
                    if ":" in text
                    else float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
                )
            case _:
                raise BadYaml(line, f"the tag {tag} is not taken here")
    except ValueError as error:
        if isinstance(error, BadYaml):
            raise
        raise BadYaml(line, f"is not the {tag.removeprefix(_TAG)} that it looks like") from None


def _integer(text: str) -> int | str:
    if ":" in text:
        return text  # base 60, which kubectl does not read either
    plain = text.replace("_", "").lower()
    digits = plain.lstrip("+-")
    if digits.startswith("0") and digits.isdigit() and len(digits) > 1:
        return int(plain, 8)
    return int(plain, 0)

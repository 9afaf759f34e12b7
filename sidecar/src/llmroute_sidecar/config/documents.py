"""LLMRoutes and Secrets in YAML files, and the place of each finding: `file:line: field: message`.

Owns which files are read (a folder means its .yaml, .yml and .json files; `-` is stdin), their bounds, and which
kinds are looked at. Whether a route is good is the contract's to say; what is done with good ones is `manifests.py`'s
and `validate.py`'s.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmroute_contract.compile import RouteSource
from llmroute_contract.compiled import CompiledRoute
from llmroute_contract.llmroute import GROUP, KIND, LLMRoute, parse_route
from llmroute_contract.problem import Problem
from llmroute_sidecar.config.files import InTrouble, Unusable, names_in, read_bounded
from llmroute_sidecar.config.located import BadYaml, Located, read_yaml
from llmroute_sidecar.config.secrets import secret_values

FILE_MAX_BYTES = 4 * 1024 * 1024
FILES_MAX = 1000
STDIN = Path("-")
UNREADABLE = "Unreadable"
"""The reason of a Finding whose cause lies outside of the file, and may pass."""
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})

GatewayId = tuple[str, str]
"""(namespace, gateway)"""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something to tell a person of a file. `line` 0: of the file as a whole."""

    file: str
    line: int
    field: str
    message: str
    reason: str = "Invalid"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class RouteDocument:
    """An LLMRoute as it stands in a file: typed, or what is wrong with it."""

    file: str
    text: Located
    name: str
    namespace: str
    gateway: str
    parsed: LLMRoute | tuple[Problem, ...]

    @property
    def id(self) -> GatewayId:
        return (self.namespace, self.gateway)

    def source(self, last_accepted: CompiledRoute | None = None) -> RouteSource:
        """As the compiler takes it. Without a creation time (a file has none) routes rank by name."""
        if isinstance(self.parsed, tuple):
            return RouteSource(self.name, self.parsed, last_accepted=last_accepted)
        metadata = self.parsed.metadata
        return RouteSource(self.name, self.parsed.spec, metadata.generation, metadata.creation_timestamp, last_accepted)

    def finding(self, problem: Problem) -> Finding:
        return Finding(self.file, self.text.line_of(problem.field), problem.field, problem.message, problem.reason)

    def note(self, text: str) -> Finding:
        """A sentence that begins with its field, as `Verdict.inactive` has them."""
        name, _, message = text.partition(" ")
        return Finding(self.file, self.text.line_of(name), name, message, "Inactive")


@dataclass(frozen=True, slots=True)
class Documents:
    """All that was found. `problems` are those that no route can be blamed for."""

    routes: tuple[RouteDocument, ...]
    secrets: Mapping[str, Mapping[str, Mapping[str, bytes]]] = field(repr=False)
    """By namespace (as the document says it; "" where it says none), Secret and entry."""
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    def secrets_of(self, namespace: str) -> dict[str, Mapping[str, bytes]]:
        """A Secret that names no namespace is of any, as `kubectl apply` would put it beside the route."""
        return {**self.secrets.get("", {}), **self.secrets.get(namespace, {})}

    def gateways(self) -> dict[GatewayId, list[RouteDocument]]:
        found: dict[GatewayId, list[RouteDocument]] = {}
        for route in self.routes:
            found.setdefault(route.id, []).append(route)
        return found


def yaml_files(path: Path) -> list[Path]:
    """The files that `path` means, in order. Raises FileNotFoundError or Unusable where a folder cannot be listed."""
    return [path / name for name in names_in(path) if _is_yaml(name)] if path.is_dir() else [path]


def _is_yaml(name: str) -> bool:
    return Path(name).suffix in _SUFFIXES and not name.startswith(".")


def read_documents(paths: Sequence[Path], namespace: str | None = None) -> Documents:
    """Reads all of `paths`. `namespace` is that of routes which name none. Never raises: what is wrong is in
    `problems`.
    """
    reader = _Reader(namespace)
    files: dict[Path, None] = {}
    for path in paths:
        try:
            files.update(dict.fromkeys(yaml_files(path)))
        except FileNotFoundError:
            reader.problems.append(Finding(str(path), 0, "", "there is no such folder"))
        except Unusable as error:
            reader.problems.append(_unusable(str(path), error))
    if len(files) > FILES_MAX:
        reader.problems.append(Finding(str(paths[0]), 0, "", f"there are more than {FILES_MAX} files"))
    for path in list(files)[:FILES_MAX]:
        reader.file(path)
    return Documents(tuple(reader.routes), reader.secrets, tuple(reader.problems), tuple(reader.notes))


def _unusable(file: str, error: Unusable) -> Finding:
    return Finding(file, 0, "", str(error), UNREADABLE if isinstance(error, InTrouble) else "Invalid")


def _text(path: Path) -> str:
    if path == STDIN:
        data = sys.stdin.buffer.read(FILE_MAX_BYTES + 1)
        if len(data) > FILE_MAX_BYTES:
            raise Unusable(f"is larger than {FILE_MAX_BYTES} bytes")
    else:
        data = read_bounded(path, FILE_MAX_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("is not UTF-8 text") from None


class _Reader:
    def __init__(self, namespace: str | None) -> None:
        self.routes: list[RouteDocument] = []
        self.secrets: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []
        self._namespace = namespace
        self._places: dict[tuple[str, str, str], str] = {}

    def file(self, path: Path) -> None:
        name = "<stdin>" if path == STDIN else str(path)
        try:
            documents = read_yaml(_text(path))
        except FileNotFoundError:
            self.problems.append(Finding(name, 0, "", "there is no such file"))
        except Unusable as error:
            self.problems.append(_unusable(name, error))
        except BadYaml as error:
            self.problems.append(Finding(name, error.line, "", str(error)))
        else:
            for document in documents:
                for resource in _resources(document):
                    self._resource(name, resource)

    def _resource(self, file: str, text: Located) -> None:
        document = text.value
        if not isinstance(document, dict):
            self.problems.append(Finding(file, text.line, "", "is not a Kubernetes resource, which is a mapping"))
            return
        kind, group = document.get("kind"), str(document.get("apiVersion")).partition("/")[0]
        if kind == KIND or group == GROUP:
            self._route(file, text)
        elif kind == "Secret" and document.get("apiVersion") == "v1":
            self._secret(file, text)
        else:
            known = f"kind {kind}" if isinstance(kind, str) else "a document without a kind"
            self.notes.append(Finding(file, text.line, "", f"{known} is passed over", "Ignored"))

    def _route(self, file: str, text: Located) -> None:
        metadata, spec = _part(text.value, "metadata"), _part(text.value, "spec")
        namespace = _name(metadata, "namespace") or self._namespace or "default"
        whole = {**text.value, "metadata": {**metadata, "namespace": namespace}} if metadata else text.value
        parsed = parse_route(whole)
        name = _name(metadata, "name")
        if name is None:
            problems = parsed if isinstance(parsed, tuple) else ()
            self.problems += [
                Finding(file, text.line_of(problem.field), problem.field, problem.message) for problem in problems
            ]
            return
        if self._is_second(KIND, namespace, name, file, text):
            return
        gateway = _name(spec, "gateway") or "default"
        self.routes.append(RouteDocument(file, text, name, namespace, gateway, parsed))

    def _secret(self, file: str, text: Located) -> None:
        metadata = _part(text.value, "metadata")
        name, namespace = _name(metadata, "name"), _name(metadata, "namespace") or ""
        if name is None:
            self.problems.append(Finding(file, text.line_of("metadata.name"), "metadata.name", "is required"))
            return
        if self._is_second("Secret", namespace, name, file, text):
            return
        try:
            self.secrets.setdefault(namespace, {})[name] = secret_values(text.value)
        except ValueError as error:
            name_of_field, _, message = str(error).partition(" ")
            self.problems.append(Finding(file, text.line_of(name_of_field), name_of_field, message))

    def _is_second(self, kind: str, namespace: str, name: str, file: str, text: Located) -> bool:
        line = text.line_of("metadata.name")
        first = self._places.setdefault((kind, namespace, name), place := f"{file}:{line}")
        if first != place:
            self.problems.append(Finding(file, line, "metadata.name", f"{kind} {name!r} is at {first} already"))
        return first != place


def _resources(document: Located) -> Iterator[Located]:
    """A document, or the items of a `kind: List`, as `kubectl get -o yaml` writes it."""
    items = document.children.get("items")
    if isinstance(document.value, dict) and document.value.get("kind") == "List" and items is not None:
        for _, item in items[1].children.values():
            yield item
    else:
        yield document


def _part(document: dict[str, Any], name: str) -> dict[str, Any]:
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _name(part: dict[str, Any], field: str) -> str | None:
    name = part.get(field)
    return name if isinstance(name, str) and name else None

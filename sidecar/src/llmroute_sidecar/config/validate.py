"""`llmroute validate` and `llmroute compile`: the compiler's verdict on files, and what it makes of them.

Owns the output's form and the exit codes (0 good, 1 not). Which arguments there are is `command.py`'s.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import yaml

from llmroute_contract import compiled as c
from llmroute_contract.compile import Compilation, compile_gateway
from llmroute_sidecar.config.documents import Documents, Finding, GatewayId, read_documents
from llmroute_sidecar.config.manifests import choose_gateway
from llmroute_sidecar.config.source import SourceError


@dataclass(frozen=True, slots=True)
class Findings:
    """`problems` fail; `notes` (inactive fields, kinds passed over) do not."""

    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def validate(paths: Sequence[Path], namespace: str | None = None) -> Findings:
    """All there is to say of the LLMRoutes in `paths`, each gateway compiled as the controller would. Never raises."""
    documents = read_documents(paths, namespace)
    problems, notes = list(documents.problems), list(documents.notes)
    for gateway in documents.gateways():
        found = _findings(documents, gateway, _compile(documents, gateway))
        problems += found.problems
        notes += found.notes
    if not documents.routes and not problems:
        problems.append(Finding(", ".join(map(str, paths)), 0, "", "there is no LLMRoute here"))
    return Findings(tuple(sorted(problems)), tuple(sorted(notes)))


def _compile(documents: Documents, gateway: GatewayId) -> Compilation:
    return compile_gateway(*gateway, [route.source() for route in documents.gateways()[gateway]])


def _findings(documents: Documents, gateway: GatewayId, compilation: Compilation) -> Findings:
    routes = documents.gateways()[gateway]
    verdicts = compilation.verdicts
    return Findings(
        tuple(route.finding(problem) for route in routes for problem in verdicts[route.name].problems),
        tuple(route.note(text) for route in routes for text in verdicts[route.name].inactive),
    )


def run_validate(
    paths: Sequence[Path], output: Literal["text", "json"], stdout: TextIO, namespace: str | None = None
) -> int:
    """Prints the findings; 0 where nothing is wrong, else 1."""
    found = validate(paths, namespace)
    if output == "json":
        answer = {
            "valid": not found.problems,
            "problems": [_as_json(finding) for finding in found.problems],
            "notes": [_as_json(finding) for finding in found.notes],
        }
        stdout.write(json.dumps(answer, indent=2) + "\n")
        return 1 if found.problems else 0
    stdout.writelines(f"{finding}\n" for finding in found.problems)
    stdout.writelines(f"note: {finding}\n" for finding in found.notes)
    count = len(found.problems)
    stdout.write("valid\n" if count == 0 else f"{count} problem{'' if count == 1 else 's'}\n")
    return 1 if found.problems else 0


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        "file": finding.file,
        "line": finding.line or None,
        "field": finding.field or None,
        "reason": finding.reason,
        "message": finding.message,
    }


def run_compile(
    paths: Sequence[Path],
    gateway: str | None,
    namespace: str | None,
    output_dir: Path | None,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    """Prints the ConfigMaps for `kubectl apply -f -`, or writes one gateway's files into `output_dir`. 1 where a
    route is not accepted; nothing is written then."""
    documents = read_documents(paths, namespace)
    problems = list(documents.problems)
    compiled: list[tuple[GatewayId, Compilation]] = []
    if not problems:
        try:
            for chosen in _chosen(documents, gateway, namespace, only_one=output_dir is not None):
                compilation = _compile(documents, chosen)
                problems += _findings(documents, chosen, compilation).problems
                compiled.append((chosen, compilation))
        except SourceError as error:
            stderr.write(f"llmroute: {error}\n")
            return 1
    if problems:
        stderr.writelines(f"{problem}\n" for problem in sorted(problems))
        return 1
    if output_dir is None:
        stdout.write("---\n".join(_configmap(*chosen, compilation.files) for chosen, compilation in compiled))
        return 0
    try:
        write_files(output_dir, compiled[0][1].files)
    except OSError as error:
        stderr.write(f"llmroute: {output_dir} cannot be written: {error.strerror}\n")
        return 1
    return 0


def _chosen(documents: Documents, gateway: str | None, namespace: str | None, *, only_one: bool) -> list[GatewayId]:
    if only_one or gateway is not None or not documents.routes:
        return [choose_gateway(documents, gateway, namespace)]
    return [there for there in documents.gateways() if namespace is None or there[0] == namespace]


class _Literal(str):
    """A text that YAML shows as a block."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Literal, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def _configmap(namespace: str, gateway: str, files: Mapping[str, bytes]) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": c.configmap_name(gateway), "namespace": namespace},
        "data": {name: _Literal(data.decode()) for name, data in sorted(files.items())},
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Replaces a gateway's files in a plain directory, `gateway.json` last: a gateway that reads in between finds
    digests that do not fit and keeps what it has. Files of routes that are gone are removed."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: (name == c.GATEWAY_FILE, name)):
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=directory)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(files[name])
            os.fchmod(descriptor, 0o644)
        Path(temporary).replace(directory / name)
    for path in directory.glob("route.*.json"):
        if path.name not in files:
            path.unlink(missing_ok=True)

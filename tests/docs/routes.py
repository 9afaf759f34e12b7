"""Routes of the documentation as whole documents, for whoever validates them."""

from collections.abc import Iterator
from typing import Any

import yaml

from tests.docs.blocks import EVERY_PAGE, REPOSITORY, Block, blocks_of
from tools.reference_page import EXAMPLE

GENERATED = "docs/reference.md"
"""Its blocks are cut out of one route (`EXAMPLE`), which is here as a whole."""
SETTINGS = "docs/sizing.md"
"""Its block of YAML is of the injector's settings."""
OVERLAY = "# kustomization.yaml"
"""Begins a block that tests/monitoring builds with kustomize."""


def is_part(block: Block) -> bool:
    """Whether it shows a part of a route."""
    other = block.is_route or block.path in (GENERATED, SETTINGS) or block.first_line == OVERLAY
    return block.language == "yaml" and not other


def completed(block: Block) -> dict[str, Any]:
    """The route of a block that shows a part of one: what it needs beside that is put there."""
    shown = yaml.safe_load(block.text)
    spec = {"auth": {"mode": "None"}, "upstreams": [{"name": "any", "url": "mock://local"}], **shown.get("spec", shown)}
    target = {"upstream": spec["upstreams"][0]["name"]}
    spec.setdefault("models", [{"name": "any", "targets": [target]}])
    name = f"{block.page.stem}-{block.line}"
    return {"apiVersion": "llmroute.dev/v1alpha1", "kind": "LLMRoute", "metadata": {"name": name}, "spec": spec}


def every_route() -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it stands, and the route: of all pages, of the reference's example, of examples/."""
    for page in EVERY_PAGE:
        for block in blocks_of(page):
            if block.is_route:
                yield from ((block.place, one) for one in _routes(block.text))
            elif is_part(block):
                yield block.place, completed(block)
    for file in (EXAMPLE, *sorted((REPOSITORY / "examples").rglob("*.yaml"))):
        yield from ((str(file.relative_to(REPOSITORY)), one) for one in _routes(file.read_text()))


def _routes(text: str) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all(text):
        if document.get("kind") == "LLMRoute":
            document["metadata"].pop("namespace", None)
            document.pop("status", None)
            yield document

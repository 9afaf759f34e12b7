"""Each direct dependency has its reason in docs/dependencies.md."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def direct() -> Iterator[str]:
    for part in ("contract", "sidecar", "operator"):
        yield from tomllib.loads((REPOSITORY / part / "pyproject.toml").read_text())["project"]["dependencies"]
    yield from tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    for name in ("bench.in", "installer.in"):
        yield from (REPOSITORY / "requirements" / name).read_text().split()


NAMES = sorted({re.split(r"[<>=\[~! ]", entry)[0].lower() for entry in direct()} - {"llmroute-contract"})


@pytest.mark.parametrize("name", NAMES)
def test_a_direct_dependency_has_its_reason(name: str) -> None:
    listed = {
        package.strip().lower()
        for line in (REPOSITORY / "docs" / "dependencies.md").read_text().splitlines()
        if line.startswith("| ")
        for package in line.split("|")[1].split(",")
    }
    assert name in listed, f"{name} is not in docs/dependencies.md"

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
    for path in (*sorted((REPOSITORY / "requirements").glob("*.in")), REPOSITORY / "examples/chat-app/requirements.in"):
        lines = path.read_text().splitlines()
        yield from (line for line in lines if line and not line.startswith("#"))


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


@pytest.mark.parametrize("lock", ["litellm.txt", "bench-litellm.txt"])
def test_no_poisoned_litellm_is_locked(lock: str) -> None:
    found = re.findall(r"^litellm==(\S+)", (REPOSITORY / "requirements" / lock).read_text(), re.MULTILINE)
    assert len(found) == 1
    assert found[0] not in {"1.82.7", "1.82.8", "1.107.0"}


def test_what_runs_litellm_upstreams_has_no_proxy_in_it() -> None:
    lock = (REPOSITORY / "requirements" / "litellm.txt").read_text()
    assert not re.findall(r"^(fastapi|uvicorn|gunicorn|litellm-proxy-extras|apscheduler)==", lock, re.MULTILINE)

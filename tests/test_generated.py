"""What is generated is current, and the repository names nothing that only one machine has."""

import subprocess
from pathlib import Path

import pytest

from tools.generate import REPOSITORY, generated


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path) -> None:
    assert path.read_text() == generated()[path], f"{path.name} is stale: run make generate"


def test_locks_name_no_download_address() -> None:
    for lock in (REPOSITORY / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text(), lock.name


def test_no_committed_file_names_this_checkouts_folder() -> None:
    found = subprocess.run(["git", "grep", "-lF", str(REPOSITORY)], cwd=REPOSITORY, capture_output=True, text=True)
    assert found.stdout == ""

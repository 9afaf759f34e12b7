"""tests/failures_told.py and tests/conftest.py: what is read of a run that failed is its end."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FAILING = """
import pytest

@pytest.fixture
def gateway():
    raise FileNotFoundError("there is no program")

@pytest.mark.parametrize("number", range(40))
def test_needs_a_gateway(gateway, number):
    pass

def test_is_wrong():
    assert 1 + 1 == 3
"""
PLUGIN = """
import pytest
from tests.failures_told import FailuresTold

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.pluginmanager.register(FailuresTold(config.pluginmanager.get_plugin("terminalreporter")))
"""


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_reason_is_told_once_however_many_tests_fail_for_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "test_it.py").write_text(FAILING)

    said = _run(tmp_path, "--tb=short", "-rsxX", "--rootdir=.").stdout

    _, _, end = said.partition(" what failed, and why ")
    assert end.splitlines()[1:-1] == [
        "FAILED test_it.py::test_is_wrong",
        "       assert (1 + 1) == 3",
        "FAILED test_it.py::test_needs_a_gateway[0], test_it.py::test_needs_a_gateway[1], "
        "test_it.py::test_needs_a_gateway[2] and 37 more",
        "       FileNotFoundError: there is no program (at its setup)",
    ]
    # and once when it happens, for who sees no end
    before, _, _ = said.partition("= ERRORS =")
    assert before.count("FAILED test_it.py::test_needs_a_gateway[0]: FileNotFoundError: there is no program") == 1
    assert before.count("there is no program") == 1


def test_a_program_that_cannot_start_is_told_at_once_and_no_test_is_run(tmp_path: Path) -> None:
    """As one whose first line names a Python that is gone."""
    program = tmp_path / "llmroute-compiled"
    program.write_text("#!/no/such/python\n")
    program.chmod(0o755)

    done = _run(REPOSITORY, "-q", "tests/sidecar/test_bad_requests.py", LLMROUTE_TEST_PROGRAM=str(program))

    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if "LLMROUTE_TEST_PROGRAM" in line]
    assert f"LLMROUTE_TEST_PROGRAM={program} cannot start: its interpreter is not there" in line
    assert "passed" not in done.stdout
    assert "error" not in done.stdout

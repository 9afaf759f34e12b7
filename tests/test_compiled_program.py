"""tools/compiled.py: the compiled gateway in a virtual environment, from a wheel that all on the machine share."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tools import compiled

SHOWS_WHERE_FROM = "import llmroute_sidecar.pipeline.attempt as it; print(it.__file__)"


@pytest.mark.server
@pytest.mark.timeout(
    900
)  # make test has compiled it before; whoever has not waits a minute, or several on a busy machine
def test_it_runs_after_the_environment_that_compiled_it_is_gone(tmp_path: Path) -> None:
    """A clone makes the program, and is taken away; the next one has the same sources and finds what was kept."""
    first, second = (_environment(tmp_path / name) for name in ("first", "second"))
    try:
        compiled.program(first)
    except compiled.Unavailable as reason:
        pytest.skip(f"the gateway cannot be compiled: {reason}")
    shutil.rmtree(first)

    program = compiled.program(second)

    done = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--config-dir" in done.stdout
    # and what it imports is the compiled one, of its own environment
    head = program.read_text().split("from llmroute_sidecar")[0]
    done = subprocess.run(
        [second / "bin" / "python", "-c", head + SHOWS_WHERE_FROM], capture_output=True, text=True, timeout=60
    )
    assert Path(done.stdout.strip()).suffix == ".so", done.stdout + done.stderr
    assert Path(done.stdout.strip()).is_relative_to(second)


def _environment(folder: Path) -> Path:
    """A virtual environment that sees the packages of the one that tests, as another clone has its own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    (site,) = (folder / "lib").glob("python*/site-packages")
    packages = sysconfig.get_path("purelib")
    (site / "the_packages.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    return folder

"""The gateway as its image has it, with its request path compiled (sidecar/hatch_build.py), for tests and measurements.

`python -m tools.compiled` makes it for this Python, once for one state of the sources, and prints where the program is:

    LLMROUTE_TEST_PROGRAM=$(python -m tools.compiled) pytest tests/sidecar
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_SIDECAR = _ROOT / "sidecar"
_KEPT = 4
"""States of the sources, for other worktrees on this machine."""
_KIND = "import sys, sysconfig; print(sys.version, sysconfig.get_platform(), sysconfig.get_config_var('SOABI'))"
_PROGRAM = """\
#!{python}
import sys
sys.path.insert(0, {site!r})
from llmroute_sidecar.command import main
sys.exit(main())
"""


class Unavailable(Exception):
    """It cannot be compiled here; the text says why."""


def digest(python: Path) -> str:
    """Of all that goes into it, the machine's kind included: a home may be seen by several."""
    found = hashlib.sha256(subprocess.run([python, "-c", _KIND], capture_output=True, check=True).stdout)
    files = [*_SIDECAR.glob("*.*"), *_SIDECAR.rglob("src/**/*.py"), *(_ROOT / "contract").rglob("src/**/*.py")]
    locks = [_ROOT / "requirements" / f"{name}.txt" for name in ("image-build", "dev")]  # what compiles, in its places
    for file in [*sorted(files), *locks]:
        found.update(f"\0{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def build(builder: Path, types_from: Path, folder: Path) -> Path:
    """The sidecar's wheel, in `folder`. `builder` is a Python that has hatchling, mypy and setuptools, `types_from` one
    that has what the gateway needs. Raises Unavailable."""
    environment = {**os.environ, "HATCH_BUILD_HOOKS_ENABLE": "1", "LLMROUTE_TYPES_FROM": str(types_from)}
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(builder), "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=_SIDECAR, env=environment, capture_output=True, text=True, timeout=1800)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise Unavailable(f"the gateway could not be compiled (Debian: apt-get install gcc python3-dev): {said}")
    return wheels[0]


def program(environment: Path) -> Path:
    """`llmroute`, compiled, in the virtual environment at `environment`, which has what the gateway needs and what
    compiles it. Only the wheel is kept elsewhere, for other environments: nothing there names one, as each may be taken
    away. Raises Unavailable."""
    python = environment / "bin" / "python"
    site, made = environment / "compiled", environment / "bin" / "llmroute-compiled"
    shutil.rmtree(site, ignore_errors=True)
    with _kept_wheel(python) as wheel, zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    made.write_text(_PROGRAM.format(python=python, site=str(site)))
    made.chmod(0o755)
    return made


@contextmanager
def _kept_wheel(python: Path) -> Iterator[Path]:
    """Of this state of the sources, from the cache; built where it is not there. Nobody clears it away meanwhile."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmroute-compiled"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"wheel-{digest(python)}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            said = "compiled: the gateway's request path, once for this state of the sources"
            print(said, file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                build(python, python, Path(scratch) / "wheel").parent.rename(folder)
        os.utime(folder)
        states = sorted((one for one in cache.iterdir() if one.is_dir()), key=lambda one: -one.stat().st_mtime)
        for old in states[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        yield next(folder.glob("*.whl"))


def main() -> int:
    try:
        print(program(Path(sys.prefix)))
    except Unavailable as error:
        print(f"compiled: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

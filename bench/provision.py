"""Gets what is measured into environments of their own, below the cache. Debian's packages are `tools/debian.py`'s.

Says aloud what it installs. What cannot be had is left out of the run with one line, never an error. Everything is
pinned by hash (`requirements/`), nothing that it brings is run while it is installed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import compiled
from tools.debian import find

_ROOT = Path(__file__).parents[1]
_LOCKS = _ROOT / "requirements"
_PARTS = ("contract", "sidecar")
"""What a gateway's image holds."""
_DEBIAN_PYTHON = Path("/usr/bin/python3")
"""What that image runs on. A Python that pyenv has built has no PGO and is a fifth slower."""
CACHE = Path.home() / ".cache" / "llmroute-bench"
_INSTALL_SECONDS = 600
_BUILD = (
    "import os, sys; from hatchling.build import build_editable; os.chdir(sys.argv[1]); build_editable(sys.argv[2])"
)

_HAS_HEADERS = "import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class _Failed(Exception):
    pass


def tools() -> Path | None:
    """A virtual environment with Envoy and py-spy."""
    lock = _LOCKS / "bench.txt"
    python = Path(sys.executable)
    return _environment("tools", "Envoy, py-spy", (lock.read_bytes(), _about(python)), _installing(python, lock))


def litellm() -> Path | None:
    """A virtual environment with LiteLLM's proxy, on the Python that serves llmroute too."""
    lock = _LOCKS / "bench-litellm.txt"
    python = serving_python()
    return _environment("litellm", "LiteLLM's proxy", (lock.read_bytes(), _about(python)), _installing(python, lock))


def gateway() -> Path | None:
    """A virtual environment with what the gateway's image holds, at the versions of requirements/dev.txt, and the two
    parts as they are in this tree, the sidecar compiled as the image's is; where that cannot be done, as it stands.
    """
    python = serving_python()
    builder = _builder(python)
    lock = _only((_LOCKS / "dev.txt").read_text(), {f"llmroute-{part}" for part in _PARTS})
    projects = [(_ROOT / part / "pyproject.toml").read_bytes() for part in _PARTS]

    def install(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="llmroute-bench-") as scratch:
            needed = Path(scratch) / "gateway.txt"
            needed.write_text(lock)
            _installing(python, needed)(folder)
            compiled_parts = () if builder is None else ("sidecar",)
            for part in _PARTS:
                if part not in compiled_parts:
                    _run([sys.executable, "-c", _BUILD, str(_ROOT / part), scratch])
            if builder is not None:
                try:
                    compiled.build(builder / "bin" / "python", folder / "bin" / "python", Path(scratch) / "compiled")
                except compiled.Unavailable as error:
                    raise _Failed(str(error)) from None
            wheels = [str(wheel) for wheel in Path(scratch).rglob("*.whl")]
            _run([_uv(), "pip", "install", "--quiet", "--python", str(folder), "--no-deps", "--no-index", *wheels])

    content = (lock.encode(), _about(python), str(_ROOT).encode(), *projects)
    if builder is None:
        return _environment("gateway", "what the gateway needs", content, install)
    content = (*content, compiled.digest(python).encode())
    return _environment("gateway", "what the gateway needs, and the gateway, compiled,", content, install)


def _builder(python: Path) -> Path | None:
    """A virtual environment with what compiles, as in the build of the gateway's image."""
    if find("gcc") is None or subprocess.run([python, "-c", _HAS_HEADERS], capture_output=True, timeout=20).returncode:
        say("llmroute IS NOT COMPILED, as its image is: gcc or Python's headers are not here (Debian: python3-dev)")
        return None
    lock = _LOCKS / "image-build.txt"
    return _environment(
        "builder", "what compiles the gateway", (lock.read_bytes(), _about(python)), _installing(python, lock)
    )


def portkey() -> Path | None:
    """A node_modules with Portkey's gateway."""
    npm = find("npm")
    if npm is None or find("node") is None:
        say("COULD NOT INSTALL Portkey's gateway: npm and node are not here")
        return None
    files = [_LOCKS / "bench-portkey" / name for name in ("package.json", "package-lock.json")]

    def install(folder: Path) -> None:
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
        options = ["--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier"]
        _run([npm, "ci", "--silent", *options], folder)

    found = _environment("portkey", "Portkey's gateway", [file.read_bytes() for file in files], install)
    return found / "node_modules" if found else None


def serving_python() -> Path:
    """Debian's where there is one that is new enough; else the one that measures."""
    if _DEBIAN_PYTHON.exists():
        done = subprocess.run(
            [_DEBIAN_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], capture_output=True, timeout=20
        )
        if done.returncode == 0:
            return _DEBIAN_PYTHON
    return Path(sys.executable)


def _environment(name: str, what: str, content: Iterable[bytes], install: Callable[[Path], None]) -> Path | None:
    """The folder that `install` fills, made where there is none for this content yet."""
    folder = CACHE / f"{name}-{hashlib.sha256(b'|'.join(content)).hexdigest()[:12]}"
    ready = folder / ".ready"
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(CACHE / f"{name}.lock"):
        if ready.exists():
            return folder
        say(f"installing {what} by hash into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            install(folder)
        except _Failed as error:
            say(f"COULD NOT INSTALL {what}: {error}")
            return None
        ready.touch()
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of two benchmarks that want the same, one installs it and the other waits."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _installing(python: Path, lock: Path) -> Callable[[Path], None]:
    def install(folder: Path) -> None:
        _run([_uv(), "venv", "--quiet", "--clear", "--no-project", "--python", str(python), str(folder)])
        options = ["--require-hashes", "--only-binary", ":all:", "--compile-bytecode"]  # as an image is built
        _run([_uv(), "pip", "install", "--quiet", "--python", str(folder), *options, "-r", str(lock)])

    return install


def _run(command: list[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Failed(str(error)) from None
    if done.returncode != 0:
        raise _Failed(" ".join((done.stderr or done.stdout).split())[-400:])


def _uv() -> str:
    return str(Path(sys.executable).parent / "uv")


def _about(python: Path) -> bytes:
    """Changes when another Python stands at that path."""
    done = subprocess.run([python, "-c", "import sys; print(sys.version, sys.prefix)"], capture_output=True, timeout=20)
    return os.fsencode(python) + done.stdout


def _only(lock: str, roots: set[str]) -> str:
    """Of a lock that tells of each package who wants it (uv's `# via`), those that the roots want, directly or not."""
    entries = {match[1]: match[0] for match in re.finditer(r"^([a-z0-9._-]+)==.*\n(?:[ #].*\n?)*", lock, re.MULTILINE)}
    wanted_by = {
        name: set(re.findall(r"^ +#(?: via| +) +([a-z0-9._-]+)", entry, re.MULTILINE))
        for name, entry in entries.items()
    }
    found = set(roots)
    while more := {name for name, by in wanted_by.items() if by & found} - found:
        found |= more
    return "".join(entry for name, entry in entries.items() if name in found)

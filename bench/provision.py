"""Gets the contenders' programs: Debian's packages, and a virtual environment of its own for what PyPI has.

Says aloud what it installs. What cannot be had is left out of the run with one line, never an error.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements" / "bench.txt"
CACHE = Path.home() / ".cache" / "llmroute-bench"
_INSTALL_SECONDS = 300


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def debian(programs: dict[str, str]) -> None:
    """Installs the packages (program -> package) whose programs are absent, where this is root on a Debian."""
    missing = sorted({package for program, package in programs.items() if find(program) is None})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"NOT FOUND: {', '.join(missing)}; as root: apt-get install --no-install-recommends {' '.join(missing)}")
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if not _ran(install):
        _ran(["apt-get", "update"])
        if not _ran(install):
            say(f"COULD NOT INSTALL {' '.join(missing)}")


def _ran(command: list[str]) -> bool:
    # RUNLEVEL=1: invoke-rc.d(8) then starts no service, so that Debian's nginx does not take port 80
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        return subprocess.run(command, env=env, capture_output=True, timeout=_INSTALL_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find(program: str) -> str | None:
    """Where a program is; Debian has servers in a folder that is not on everybody's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def environment() -> Path | None:
    """The virtual environment with everything in requirements/bench.txt, made where there is none for this lock."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / digest
    if (folder / ".ready").exists():
        return folder
    uv = Path(sys.executable).parent / "uv"
    say(f"installing {LOCK.name} (Envoy, py-spy) by hash into {folder}")
    commands = [
        [str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [str(uv), "pip", "install", "--quiet", "--python", str(folder), "--require-hashes", "-r", str(LOCK)],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"COULD NOT INSTALL {LOCK.name}: {error}")
            return None
        if done.returncode != 0:
            say(f"COULD NOT INSTALL {LOCK.name}: {' '.join(done.stderr.split())[-400:]}")
            return None
    (folder / ".ready").touch()
    return folder

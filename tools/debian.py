"""Debian's packages for tests and benchmarks: installs what is absent, as root, and says so aloud.

`python -m tools.debian PROGRAM=PACKAGE…`. What cannot be had is one loud line, never an error: whoever needs the
program says what is skipped without it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

_INSTALL_SECONDS = 900
_WAIT = "DPkg::Lock::Timeout=600"
"""Another that installs is waited for."""


def find(program: str) -> str | None:
    """Where a program is; Debian has servers in a folder that is not on everybody's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def install(programs: Mapping[str, str], who: str) -> None:
    """Installs the packages (program -> package) whose programs are absent. `who` begins each line that is said."""

    def say(text: str) -> None:
        print(f"{who}: {text}", file=sys.stderr, flush=True)

    missing = sorted({package for program, package in programs.items() if find(program) is None})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"NOT FOUND: {', '.join(missing)}; as root: apt-get install --no-install-recommends {' '.join(missing)}")
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    command = ["apt-get", "-o", _WAIT, "install", "-y", "--no-install-recommends", *missing]
    if _problem(command):
        _problem(["dpkg", "--configure", "-a"])  # what one left that was killed: until then nothing can be installed
        _problem(["apt-get", "-o", _WAIT, "update"])
        if problem := _problem(command):
            say(f"COULD NOT INSTALL {' '.join(missing)}: {problem}")


def _problem(command: list[str]) -> str:
    """Why it failed, in a line; "" where it did not."""
    # RUNLEVEL=1: invoke-rc.d(8) then starts no service, so that Debian's nginx does not take port 80
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"{command[0]} ended with {done.returncode}")


if __name__ == "__main__":
    install(dict(argument.split("=", 1) for argument in sys.argv[1:]), "setup")

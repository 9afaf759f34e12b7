"""Builds programs from the Go module proxy into a folder of the cache, once for all runs on a machine.

Owns the lock (two runs never build at once), the progress told to the person who waits, the log, and that what is kept
is in the folder whole or not at all, whenever a run was ended. Which programs are wanted, and of which modules, is the
caller's.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.children import with_us

PROGRESS_SECONDS = 15.0


class Unavailable(Exception):
    """What a test needs is not to be had here; the text says why and how to get it."""


def cache_root() -> Path:
    """Where all that tests build once is kept: outside the repository, named by version below."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "llmroute-test"


def holds_all(folder: Path, programs: Sequence[str]) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in programs)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Two runs must not build at once; the second waits and finds the first one's work."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is making {what}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class GoBuild:
    """Builds in `folder`, which the caller has locked. `how_to` tells a person what else there is to do."""

    go: str
    folder: Path
    how_to: str

    @property
    def log(self) -> Path:
        return self.folder / "build.log"

    def work(self, module: str) -> Path:
        """A scratch module's folder."""
        path = self.folder / "build" / module
        path.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, *arguments: str, work: Path, name: str) -> None:
        self._step(name, [self.go, *arguments], work)

    def build(self, program: str, package: str, work: Path, flags: str = "-s -w", tags: str = "") -> None:
        """One program, put into the folder when it is whole."""
        made = self.folder / "build" / program
        tagged = ["-tags", tags] if tags else []
        command = [self.go, "build", "-trimpath", "-ldflags", flags, *tagged, "-o", str(made), package]
        self._step(f"{program}: build", command, work)
        made.replace(self.folder / program)

    def keep(self, file: Path) -> None:
        """A copy of a file that is not the build's own, put into the folder when it is whole. Not its mode: modules are
        read-only."""
        part = self.folder / "build" / file.name
        part.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, part)
        part.replace(self.folder / file.name)

    def _step(self, name: str, command: Sequence[str], work: Path) -> None:
        scratch = self.folder / "build" / "scratch"  # go's own, which it leaves where it is killed
        scratch.mkdir(exist_ok=True)
        result = told(name, command, self.log, cwd=work, env={**go_environment(), "GOTMPDIR": str(scratch)})
        if result != 0:
            raise Unavailable(f"{name} failed; the log is {self.log}, its end:\n{tail(self.log)}\n{self.how_to}")


@contextmanager
def go_build(folder: Path, how_to: str) -> Iterator[GoBuild]:
    """A build in `folder` (locked by the caller); what is left of it besides the programs goes, and what an earlier one
    left that was ended in the middle. Raises Unavailable."""
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"{folder} lacks programs and there is no Go toolchain to build them; {how_to}")
    build = GoBuild(go, folder, how_to)
    shutil.rmtree(folder / "build", ignore_errors=True)
    build.log.write_text("")
    yield build
    shutil.rmtree(folder / "build", ignore_errors=True)


def go_environment() -> Mapping[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}


def told(
    name: str, command: Sequence[str], log: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Runs one command, with a line every PROGRESS_SECONDS while it runs and one at its end; its output goes to `log`.
    Returns its exit code."""
    began = time.monotonic()
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_SECONDS):
            say(f"{name}: {time.monotonic() - began:.0f} s")

    say(name)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        with log.open("a") as file:
            result = subprocess.run(with_us(command), cwd=cwd, env=env, stdout=file, stderr=subprocess.STDOUT)
    finally:
        done.set()
        teller.join()
    say(f"{name}: {'done' if result.returncode == 0 else 'failed'} after {time.monotonic() - began:.1f} s")
    return result.returncode


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def say(text: str) -> None:
    print(f"cluster: {text}", file=sys.stderr, flush=True)

"""Processes of the benchmark: started on a core, ended by their id, read through /proc.

Owns no knowledge of what they do.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 5.0


class Ended(Exception):
    """A process ended on its own; the text holds the last lines it wrote to stderr."""


@dataclass(frozen=True, slots=True)
class Child:
    popen: subprocess.Popen[bytes]
    started: float
    """time.monotonic() just before exec."""
    errors: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check(self) -> None:
        """Raises Ended where it has."""
        status = self.popen.poll()
        if status is not None:
            tail = self.errors.read_text(errors="replace").strip().splitlines()[-8:]
            raise Ended(f"ended with status {status}: " + (" | ".join(tail) or "no word on stderr"))


@contextmanager
def running(command: Sequence[str], core: int, errors: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """The command on one core, stdout to /dev/null, stderr to a file; its process tree is ended on leaving.

    Of this process's environment it gets nothing but PATH.
    """
    with errors.open("wb") as stderr:
        started = time.monotonic()
        popen = subprocess.Popen(
            ["taskset", "-c", str(core), *command],  # execs the command: the id stays
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={"PATH": os.environ.get("PATH", os.defpath), **environment},
            start_new_session=True,  # Ctrl-C reaches the benchmark alone, which then ends its own
        )
    child = Child(popen, started, errors)
    try:
        yield child
    finally:
        _stop(child)


def _stop(child: Child) -> None:
    if child.popen.poll() is not None:
        return
    members = tree(child.pid)
    child.popen.terminate()
    try:
        child.popen.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in members:
            _kill(pid)
        child.popen.wait(_STOP_SECONDS)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def tree(root: int) -> list[int]:
    """The ids of a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def rss_bytes(root: int) -> int:
    """Sum of RSS over the tree; pages that two of its processes share count twice."""
    total = 0
    for pid in tree(root):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except OSError:
            continue
    return total


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, of those that have ended and were waited for too."""
    return (
        sum(sum(int(field) for field in fields[11:15]) for pid in tree(root) if (fields := _stat(pid))) * _TICK_SECONDS
    )


def kept_waiting_seconds(root: int) -> float:
    """How long threads of the tree that could have run had to wait for their core, since they began."""
    total = 0
    for pid in tree(root):
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[1])
            except OSError:
                continue
    return total / 1e9


def _stat(pid: int) -> list[str]:
    """/proc/<pid>/stat from the state on (proc(5): field 3), or nothing where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()

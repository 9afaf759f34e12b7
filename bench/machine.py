"""The machine: which cores are used for what, free ports, and what a report must say about it."""

import os
import platform
import resource
import socket
import time
from dataclasses import dataclass
from pathlib import Path

_BUSY_FIELDS = (1, 2, 3, 6, 7, 8)  # of /proc/stat: user, nice, system, irq, softirq, steal
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


class TooFewCores(Exception):
    """One core for the contender and one for the rest are needed."""


@dataclass(frozen=True, slots=True)
class Cores:
    contender: int
    rig: int
    """For wrk, the stand-in and this process."""


def choose_cores() -> Cores:
    """The first two cores that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise TooFewCores(f"the benchmark needs two cores, this process may use {len(cores)}")
    return Cores(cores[0], cores[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit() -> None:
    """Children inherit it: many streams need two sockets each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def core_busy_seconds(core: int) -> float:
    """CPU time that `core` has spent at work since boot, whoever had it, the hypervisor included."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            fields = line.split()
            return sum(int(fields[index]) for index in _BUSY_FIELDS) * _TICK_SECONDS
    return 0.0


def busy_share(cores: Cores, seconds: float = 0.5) -> float:
    """How busy the busier of the two cores is with other people's work, just now."""
    both = (cores.contender, cores.rig)
    before = [core_busy_seconds(core) for core in both]
    time.sleep(seconds)
    return max((core_busy_seconds(core) - was) / seconds for core, was in zip(both, before, strict=True))


def describe() -> dict[str, str]:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "rig's python": platform.python_version(),
    }

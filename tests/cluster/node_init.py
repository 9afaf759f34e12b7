"""Process 1 of a node's namespaces: makes its private mounts and its network, starts its programs, and starts one again
that has ended, as a service manager would.

`python node_init.py SPEC`, under `unshare --mount --net --pid --fork --kill-child`: with it all the rest dies, mounts
and network included. SPEC is node_config.py's. Nothing here reaches the machine's own files, sysctls or network.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

_LOOK_SECONDS = 0.05
_REST_SECONDS = 1.0
"""Between the end of a program and its next start."""


def main(spec_path: Path) -> None:
    spec = json.loads(spec_path.read_text())
    folder = Path(spec["folder"])
    _mount(folder, spec["sysctls"])
    for command in spec["network"]:
        subprocess.run(["ip", *command], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    (folder / "namespaces-ready").touch()
    _look_after(folder, spec["programs"])


def _mount(folder: Path, sysctls: dict[str, str]) -> None:
    """Private copies of the fixed places that kubelet, containerd and the CNI plugins write to."""

    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)

    mount("-t", "proc", "proc", "/proc")
    mount("--make-rshared", "/")  # kubelet's mounts must reach containers
    mount("-t", "tmpfs", "tmpfs", "/run")
    for place in ("/var/lib", "/var/log"):
        upper, work = (folder / "private" / kind / place.lstrip("/") for kind in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={place},upperdir={upper},workdir={work}", place)
    # kubelet insists on writing these for the whole machine; it is shown the values that it wants
    for name, value in sysctls.items():
        shown, real = folder / "private" / name.replace("/", "_"), Path("/proc/sys", name)
        if real.exists():
            shown.write_text(value + "\n")
            mount("--bind", str(shown), str(real))


def _look_after(folder: Path, programs: list[dict[str, object]]) -> None:
    running: dict[int, str] = {}
    rest_until: dict[str, float] = {}
    while True:
        alive = set(running.values())
        for program in programs:
            name, command, after = str(program["name"]), program["command"], program["after"]
            assert isinstance(command, list)
            assert isinstance(after, list)
            if name in alive or time.monotonic() < rest_until.get(name, 0.0):
                continue
            if all(Path(path).exists() for path in after):
                with (folder / "log" / f"{name}.log").open("ab") as log:
                    # No Popen object: waitpid below takes the children that programs leave behind, too
                    running[_spawn(command, log.fileno())] = name
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG) if running else (0, 0)
            if pid == 0:
                break
            ended = running.pop(pid, None)
            if ended is not None:
                rest_until[ended] = time.monotonic() + _REST_SECONDS
                print(f"{ended} ended with {os.waitstatus_to_exitcode(status)}; it is started again", flush=True)
        time.sleep(_LOOK_SECONDS)


def _spawn(command: list[str], log: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

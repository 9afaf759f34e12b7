"""The contenders, one file each: what it is, how it is configured, how it is started. Nobody here measures anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

READY_PATH = "/ready"
"""Answered with 200 by each contender itself, on the port that serves."""
CLIENT_KEY = "bench-client-key"
UPSTREAM_KEY = "bench-upstream-key"
MODEL = "bench-model"
CONNECTIONS_MAX = 8192
"""More than any run opens: no contender is slowed by its own pool."""


@dataclass(frozen=True, slots=True)
class Ports:
    data: int
    admin: int
    upstream: int


class Absent(Exception):
    """This contender's program is not here; the text says why."""


class Contender(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def setup(self) -> str:
        """What is switched on, in a few words for the report."""

    def version(self) -> str:
        """The program's own word. Raises Absent."""

    def prepare(self, folder: Path, ports: Ports) -> list[str]:
        """Writes its configuration into an empty folder and returns the command that serves by it."""

"""The contenders, one file each: what it is, how it is configured, how it is started. Nobody here measures anything."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OURS = "llmroute"
READY_PATH = "/ready"
"""Where a contender whose configuration says so answers 200."""
CLIENT_KEY = "sk-bench-client-key"  # LiteLLM wants keys to begin so
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


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is put on a contender at once. Less than the default only where that is more than it can carry."""

    connections: int = 32
    streams: int = 32
    """At full speed."""
    paced_streams: int | None = None
    """None: as many as the plan has."""
    slow: bool = False
    """Fewer rounds, longer loads: few answers a second want more seconds to be counted."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A contender, configured: what is needed to start it, to ask it, and to change its configuration as it runs."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside PATH and a HOME of its own, which is all that it gets."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """That each request must have beside the client's key."""
    ready_path: str = READY_PATH
    change: Callable[[int], None] | None = None
    """Lays changed configuration where the process with this id takes it up. None: it is not reloaded while it runs."""
    taken: Callable[[], int] | None = None
    """How many changes it says it has taken up, where it says so."""


class Contender(ABC):
    name: str
    setup: str
    """What is switched on, in a few words for the report."""
    effort = Effort()
    transparent = True
    """Whether it hands on answers byte by byte. One that writes them anew is checked by what they say."""

    @abstractmethod
    def version(self) -> str:
        """The program's own word. Raises Absent."""

    @abstractmethod
    def prepare(self, folder: Path, ports: Ports) -> Setup:
        """Writes its configuration into an empty folder."""

    def prepare_large(self, folder: Path, ports: Ports, models: int) -> Setup | None:  # noqa: ARG002
        """The same with so many models, all of which each change touches; None where there is no such thing."""
        return None

"""What every place of configuration offers: has it changed, and what is in it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from llmroute_sidecar.snapshot import Secrets


class SourceError(Exception):
    """The configuration cannot be read. The text is for people and quotes no content."""


class NothingYet(SourceError):
    """There is no configuration: the ConfigMap has not come, or is gone."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Compiled files by name (`gateway.json`, `route.<name>.json`), the secrets they name, and notes for people."""

    files: Mapping[str, bytes]
    secrets: Secrets
    problems: tuple[str, ...] = ()
    """What is wrong with sources that were left out, each with file, line and field."""


class Source(Protocol):
    def fingerprint(self) -> Hashable:
        """Cheap; differs whenever the content may have changed. Never raises."""
        ...

    def read(self) -> Reading:
        """Raises SourceError."""
        ...

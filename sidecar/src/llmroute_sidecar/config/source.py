"""What every place of configuration offers: has it changed, and what is in it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from llmroute_sidecar.snapshot import Secrets

TOLD_MAX = 20
"""Problems that are told at once; a person mends those first."""


class SourceError(Exception):
    """There is no configuration to take, for these reasons. The texts are for people and quote no content."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        more = len(problems) - TOLD_MAX
        self.problems = problems[:TOLD_MAX] + ((f"and {more} more",) if more > 0 else ())

    def __str__(self) -> str:
        return "; ".join(self.problems)


class TryAgain(SourceError):
    """It could not be read, for a cause that may pass while the files stay as they are (no descriptor was left, a disk
    was in trouble); so they are to be read again even if nothing moves.
    """


@dataclass(frozen=True, slots=True)
class Reading:
    """Compiled files by name (`gateway.json`, `route.<name>.json`), the secrets they name, and notes for people."""

    files: Mapping[str, bytes]
    secrets: Secrets
    problems: tuple[str, ...] = ()
    """What is wrong with sources that were left out, each with file, line and field."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Compiled files that are there but could not be taken, and why."""
    in_trouble: bool = False
    """Whether some file (of a Secret too) could not be taken for a cause that may pass, as with TryAgain."""


class Source(Protocol):
    def fingerprint(self) -> Hashable:
        """Cheap; differs whenever the content may have changed. Never raises."""
        ...

    def mark(self) -> Hashable:
        """Costs so little that the event loop may look many times a second: another one says that the content was
        changed, the same one says nothing. Never raises.
        """
        ...

    def read(self) -> Reading:
        """Raises SourceError."""
        ...

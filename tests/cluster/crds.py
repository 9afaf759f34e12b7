"""CRDs of other projects: made or fetched once into the cache, and made known to an API server.

Owns the files' names, the lock and the waiting. Where they come from is the caller's: `make` puts them into a folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.go_build import GoBuild, cache_root, go_build, locked

_HOW_TO = "install Go 1.26 or newer"


@dataclass(frozen=True, slots=True)
class ForeignCrds:
    project: str
    version: str
    group: str
    kinds: Sequence[str]
    """In the plural, as their files are named: `GROUP_KINDS.yaml`."""
    make: Callable[[GoBuild, Sequence[Path]], None]
    """Puts each of these files where it is to be."""

    def ensure(self) -> Sequence[Path]:
        """Raises Unavailable."""
        folder = cache_root() / f"{self.project}-{self.version}"
        found = [folder / f"{self.group}_{kind}.yaml" for kind in self.kinds]
        with locked(folder, f"the CRDs of {self.project}"):
            if not all(path.exists() for path in found):
                with go_build(folder, _HOW_TO) as build:
                    self.make(build, found)
        return found

    def install(self, plane: ControlPlane) -> None:
        """They are known to it from here on. Raises Unavailable."""
        for path in self.ensure():
            plane.kubectl("apply", "--server-side", "-f", str(path))
        names = [f"crd/{kind}.{self.group}" for kind in self.kinds]
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

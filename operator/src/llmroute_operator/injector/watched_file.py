"""Files that kubelet renews under a running process (Secrets and ConfigMaps in volumes): read again when they change.

Owns when, and that what is no good never takes the place of what was. What the bytes mean is for who asks for them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from llmroute_operator.injector.metrics import Input, Metrics

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

Take = Callable[[Sequence[bytes]], None]
"""Takes the files' contents into use. Raises ValueError, saying why, where they are no good."""


class WatchedFiles:
    """Read together: a change of one is a change of all."""

    def __init__(self, what: Input, paths: Sequence[Path], take: Take, metrics: Metrics) -> None:
        self._what = what
        self._paths = paths
        self._take = take
        self._metrics = metrics
        self._seen: Sequence[bytes] | str | None = None
        self.ready = asyncio.Event()
        """Set once a good one was there."""

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Takes what has changed; tells what is no good, once."""
        try:
            contents: Sequence[bytes] = [path.read_bytes() for path in self._paths]
        except OSError as error:
            self._tell(f"cannot be read: {error.strerror}", f"cannot be read: {error}")
            return
        if contents == self._seen:
            return
        try:
            self._take(contents)
        except ValueError as error:
            self._tell(str(error), contents)
            return
        self._seen = contents
        self._metrics.loaded(self._what, "success")
        self.ready.set()
        _logger.info("%s loaded", self._what, extra={"fields": {"files": self._files}})

    def _tell(self, why: str, seen: Sequence[bytes] | str) -> None:
        if seen == self._seen:
            return
        self._seen = seen
        self._metrics.loaded(self._what, "error")
        kept = "the last good one stays in use" if self.ready.is_set() else "there is none to use yet"
        _logger.error("%s is no good: %s", self._what, kept, extra={"fields": {"files": self._files, "error": why}})

    @property
    def _files(self) -> str:
        return ", ".join(map(str, self._paths))

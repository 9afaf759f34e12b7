"""The shared state, which is killed, started again and stopped for a while as the traffic goes on."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.state_server import StateServer, serving_state

_AWAY_SECONDS = 0.7
_THERE_SECONDS = 2.0


@dataclass
class RestartingState:
    """A server, and what is done to it."""

    server: StateServer
    hands: Executor
    """Outlives the server: what a thread has started ends with it (tests/children.py)."""
    away_seconds: float = 0.0
    """How long it answered nobody, all in all."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.port}/0?timeout=200ms"

    async def disturb(self, going_on: Callable[[], bool]) -> None:
        server, chance, loop = self.server, random.Random(1), asyncio.get_running_loop()
        while going_on():
            await asyncio.sleep(_THERE_SECONDS)
            away, back = (server.kill, server.start) if chance.random() < 0.6 else (server.stop, server.go_on)
            began = time.monotonic()
            await loop.run_in_executor(self.hands, away)
            await asyncio.sleep(_AWAY_SECONDS)
            await loop.run_in_executor(self.hands, back)
            self.away_seconds += time.monotonic() - began


@contextmanager
def restarting_state(folder: Path) -> Iterator[RestartingState]:
    with ThreadPoolExecutor(1) as hands, serving_state(folder) as server:
        yield RestartingState(server, hands)

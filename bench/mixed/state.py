"""The shared state, which is killed, started again and stopped for a while as the traffic goes on."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.mixed.run import Disturbance
from tests.state_server import serving_state

_AWAY_SECONDS = 0.7
_THERE_SECONDS = 2.0


@contextmanager
def restarting_state(folder: Path) -> Iterator[tuple[str, Disturbance]]:
    """A server's address, and what is to be done to it."""
    with serving_state(folder) as server:

        async def disturb(going_on: Callable[[], bool]) -> None:
            chance = random.Random(1)
            while going_on():
                await asyncio.sleep(_THERE_SECONDS)
                away, back = (server.kill, server.start) if chance.random() < 0.6 else (server.stop, server.go_on)
                await asyncio.to_thread(away)
                await asyncio.sleep(_AWAY_SECONDS)
                await asyncio.to_thread(back)

        yield f"redis://127.0.0.1:{server.port}/0?timeout=200ms", disturb

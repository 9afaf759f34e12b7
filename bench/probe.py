"""Requests at an even pace, two each millisecond: a pause of the gateway is seen by every one that falls into it.

Unlike wrk's, this load does not wait for answers before it asks on, so a pause shows at its whole length and not once
for each connection. How long an answer took is counted from when it was due, a wait for a free connection included.
"""

import asyncio
import gc
import itertools
import statistics
import time
from array import array
from collections import deque
from dataclasses import dataclass
from typing import cast

import uvloop

from bench.load import PLAIN, Endpoint, Failed

CONNECTIONS = 16
PER_MS = 2
_GRACE_SECONDS = 5.0
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Probed:
    p50_ms: float
    p99_ms: float
    longest_ms: float
    answers: int
    errors: int
    """Other answers than 200, broken ones, and those that never came."""


class _Rig:
    """Who is free, what is due, and what came of it."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.due: deque[int] = deque()
        self.free: deque[_Asking] = deque()
        self.took_ns = array("q")
        self.errors = 0
        self.open = 0

    def ask(self) -> None:
        while self.due and self.free:
            self.free.popleft().ask(self.due.popleft())

    @property
    def waiting(self) -> int:
        return len(self.due) + self.open - len(self.free)


class _Asking(asyncio.Protocol):
    """A kept connection: one request after the other."""

    def __init__(self, rig: _Rig) -> None:
        self._rig = rig
        self._due: int | None = None
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are one by form only
        self._rig.open += 1
        self._rig.free.append(self)
        self._rig.ask()

    def ask(self, due: int) -> None:
        assert self._transport is not None
        self._due = due
        self._received = b""
        self._transport.write(self._rig.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._due is None:
            return
        head = self._received[:end].lower()
        at = head.find(_LENGTH)
        if at < 0 or self._transport is None:
            if self._transport is not None:
                self._transport.close()  # an answer without a length: connection_lost counts it
            return
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._received) < end + 4 + length:
            return
        if head.startswith(b"http/1.1 200"):
            self._rig.took_ns.append(time.monotonic_ns() - self._due)
        else:
            self._rig.errors += 1
        self._due = None
        if b"\r\nconnection: close" in head:
            self._transport.close()
        else:
            self._rig.free.append(self)
            self._rig.ask()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - counted, whatever it was
        self._rig.open -= 1
        if self._due is not None:
            self._rig.errors += 1
            self._due = None
        elif self in self._rig.free:
            self._rig.free.remove(self)


def probe(endpoint: Endpoint, seconds: float) -> Probed:
    """Raises Failed where there is no answer at all."""
    gc.collect()
    gc.disable()  # a collection of ours would show as a contender's pause
    try:
        return uvloop.run(_probe(endpoint, seconds))
    finally:
        gc.enable()


async def _probe(endpoint: Endpoint, seconds: float) -> Probed:
    rig = _Rig(endpoint.request(PLAIN))
    began = time.monotonic()
    for tick in itertools.count():
        now = time.monotonic()
        if now >= began + seconds:
            break
        if rig.open < CONNECTIONS:  # at the start, and where the other side hung up
            await _connect(rig, endpoint.port)
        rig.due.extend([time.monotonic_ns()] * PER_MS)
        rig.ask()
        await asyncio.sleep(max(began + (tick + 1) / 1000 - time.monotonic(), 0))
    until = time.monotonic() + _GRACE_SECONDS
    while rig.waiting and time.monotonic() < until:
        await asyncio.sleep(0.01)
    if not rig.took_ns:
        raise Failed("the prober got no answer")
    cuts = statistics.quantiles(rig.took_ns, n=100, method="inclusive")
    return Probed(
        p50_ms=cuts[49] / 1e6,
        p99_ms=cuts[98] / 1e6,
        longest_ms=max(rig.took_ns) / 1e6,
        answers=len(rig.took_ns),
        errors=rig.errors + rig.waiting,
    )


async def _connect(rig: _Rig, port: int) -> None:
    loop = asyncio.get_running_loop()
    try:
        for _ in range(CONNECTIONS - rig.open):
            await loop.create_connection(lambda: _Asking(rig), "127.0.0.1", port)
    except OSError:
        rig.errors += 1

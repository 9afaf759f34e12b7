"""Many streams at once, at a provider's pace: how long first chunks and each chunk were under way.

A raw client on asyncio's protocols, in the benchmark's own process. Streams are opened one after the other over a ramp,
as callers come, not in one burst (which would measure the queue). Chunks carry the instant of their sending.
"""

import asyncio
import gc
import statistics
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import uvloop

from bench.load import Endpoint, Failed, streaming
from bench.upstream import STAMP, STAMP_DIGITS

_STAMP_BYTES = len(STAMP) + STAMP_DIGITS
_LAST = b"0\r\n\r\n"
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    streams: int
    chunks: int
    gap_ms: int
    ramp_seconds: float

    @property
    def stream_seconds(self) -> float:
        return self.chunks * self.gap_ms / 1000


@dataclass(frozen=True, slots=True)
class Paced:
    first_ms: tuple[float, float]
    """p50 and p99 from the request's last byte to the first chunk."""
    chunk_ms: tuple[float, float]
    """p50 and p99 from the stand-in's sending to the client's reading, of all chunks but the first."""
    chunks: int
    seconds: float
    broken: int
    """Streams that did not end as they should."""


class _Tally:
    def __init__(self) -> None:
        self.first_ns = array("q")
        self.chunk_ns = array("q")
        self.complete = 0


class _Reading(asyncio.Protocol):
    """One stream: asks, reads to the end, hangs up."""

    def __init__(self, request: bytes, chunks: int, tally: _Tally, over: "asyncio.Future[None]") -> None:
        self._request = request
        self._chunks_left = chunks
        self._tally = tally
        self._over = over
        self._asked = 0
        self._seen_first = False
        self._carry = b""
        self._tail = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are one by form only
        self._asked = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        text = self._carry + data
        at = text.find(STAMP)
        end = 0
        while at >= 0 and at + _STAMP_BYTES <= len(text):
            end = at + _STAMP_BYTES
            self._chunk(now, int(text[end - STAMP_DIGITS : end]))
            at = text.find(STAMP, end)
        self._carry = text[at:] if at >= 0 else text[max(end, len(text) - len(STAMP) + 1) :]
        self._tail = (self._tail + data)[-len(_LAST) :]
        if self._tail == _LAST and self._transport is not None:
            if self._chunks_left == 0:
                self._tally.complete += 1
            self._transport.close()

    def _chunk(self, now: int, sent: int) -> None:
        if sent == 0:
            return  # the one that says why it stopped
        self._chunks_left -= 1
        if self._seen_first:
            self._tally.chunk_ns.append(now - sent)
        else:
            self._seen_first = True
            self._tally.first_ns.append(now - self._asked)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the tally tells
        if not self._over.done():
            self._over.set_result(None)


def paced(endpoint: Endpoint, pace: Pace, watch: Callable[[], None]) -> Paced:
    """Opens the streams, calls `watch` four times a second, waits for all to end.

    Raises Failed where none gave a chunk.
    """
    gc.collect()
    gc.disable()  # a collection of ours would show as a contender's latency
    try:
        return uvloop.run(_paced(endpoint, pace, watch))
    finally:
        gc.enable()


async def _paced(endpoint: Endpoint, pace: Pace, watch: Callable[[], None]) -> Paced:
    loop = asyncio.get_running_loop()
    request = endpoint.request(streaming(pace.chunks, pace.gap_ms))
    tally = _Tally()
    started = time.monotonic()
    watching = asyncio.create_task(_watch(watch))
    tasks = []
    for index in range(pace.streams):
        wait = started + pace.ramp_seconds * index / pace.streams - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(loop.create_task(_stream(endpoint.port, request, pace.chunks, tally)))
    await asyncio.wait(tasks, timeout=pace.stream_seconds + _GRACE_SECONDS)
    seconds = time.monotonic() - started
    for task in (*tasks, watching):
        task.cancel()
    await asyncio.gather(*tasks, watching, return_exceptions=True)
    if not tally.first_ns or not tally.chunk_ns:
        raise Failed("no stream gave a chunk")
    return Paced(
        first_ms=_percentiles(tally.first_ns),
        chunk_ms=_percentiles(tally.chunk_ns),
        chunks=len(tally.first_ns) + len(tally.chunk_ns),
        seconds=seconds,
        broken=pace.streams - tally.complete,
    )


async def _stream(port: int, request: bytes, chunks: int, tally: _Tally) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    await loop.create_connection(lambda: _Reading(request, chunks, tally, over), "127.0.0.1", port)
    await over


async def _watch(watch: Callable[[], None]) -> None:
    while True:
        watch()
        await asyncio.sleep(0.25)


def _percentiles(nanoseconds: "array[int]") -> tuple[float, float]:
    cuts = statistics.quantiles(nanoseconds, n=100, method="inclusive")
    return cuts[49] / 1e6, cuts[98] / 1e6

"""The watches where no real one can be made to misbehave: a kopf that hangs or ends, lines cut anywhere."""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_operator.controller import settings, watch_routes
from llmroute_operator.controller.api_server import _lines
from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.watch_routes import WATCH, RouteWatch, _kopf_settings


class Cluster:
    async def look_for_routes(self, namespace: str | None) -> None:
        pass


class Thread:
    """Stands for kopf: does what the test tells it."""

    started: list["Thread"]

    def __init__(self, *arguments: Any) -> None:
        self.on_list: Callable[[str], None] = arguments[-2]
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.is_stopped = False

    def start(self) -> None:
        Thread.started.append(self)

    async def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_routes, "_KopfThread", Thread)
    monkeypatch.setattr(watch_routes, "backoff", lambda *_: 0.0)
    Thread.started = []


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def _hang_and_end(listed: list[str | None]) -> None:
    now = 0.0
    life = SignsOfLife([WATCH], lambda: now, 0.01)
    watch = RouteWatch(None, ["a", "b"], Cluster(), life, lambda *_: None, listed.append)  # type: ignore[arg-type]
    running = asyncio.create_task(watch.run())
    try:
        await _until(lambda: len(Thread.started) == 1)
        first = Thread.started[0]
        for namespace in "aba":
            first.on_list(f"/apis/llmroute.dev/v1alpha1/namespaces/{namespace}/llmroutes")
        first.on_list("/apis/llmroute.dev/v1alpha1/llmroutes")
        assert listed == ["a", "b", "a", None], "a list made anew counts too: what went before it was not told"
        now = 1.0  # not a word for longer than can be
        await _until(lambda: len(Thread.started) == 2)
        assert first.is_stopped
        Thread.started[1].ended.set_exception(RuntimeError("kopf fell over"))
        await _until(lambda: len(Thread.started) == 3)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert Thread.started[-1].is_stopped


@pytest.mark.usefixtures("no_waiting")
def test_a_kopf_that_is_silent_or_ends_is_started_anew() -> None:
    asyncio.run(_hang_and_end([]))


def test_kopfs_watch_cannot_wait_for_ever_and_writes_nothing() -> None:
    made = _kopf_settings()
    assert made.watching.server_timeout == settings.WATCH_SECONDS
    assert made.watching.client_timeout is not None
    assert settings.WATCH_SECONDS < made.watching.client_timeout < settings.SILENCE_MAX_SECONDS
    assert made.watching.connect_timeout == made.networking.connect_timeout == settings.CONNECT_SECONDS
    assert made.networking.request_timeout == settings.REQUEST_SECONDS
    assert not made.posting.enabled
    assert made.peering.standalone
    assert made.scanning.disabled


async def _read(chunks: list[bytes]) -> list[bytes]:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [line async for line in _lines(arriving())]


@given(lines=st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line)), cuts=st.lists(st.integers(0, 500)))
def test_lines_are_whole_however_they_arrive(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[start:end] for start, end in pairwise(places)]
    assert asyncio.run(_read([chunk for chunk in chunks if chunk])) == lines


def test_a_line_may_be_longer_than_any_buffer() -> None:
    line = b"x" * 3_000_000
    assert asyncio.run(_read([line[:1_000_000], line[1_000_000:] + b"\n"])) == [line]

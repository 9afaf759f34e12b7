"""A worker that cannot start: calls fail at once while it rests, and each rest is longer, up to a bound."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.upstream.exchange import UpstreamBroken
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.litellm import LitellmCaller
from llmroute_sidecar.upstream.worker import REST_SECONDS, Worker, Workers, WorkerSettings
from tests.sidecar.test_pool import REQUEST, UPSTREAM

UPSTREAM_OF_LITELLM = replace(UPSTREAM, url=parse_upstream_url("litellm://openai/gpt"))
ENDS_AT_ONCE = Path("/bin/false")


def on_uvloop(test: Callable[[asyncio.AbstractEventLoop], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(runner.get_loop()))


def no_connection() -> HttpConnection:
    raise AssertionError("there is nobody to connect to")


def a_worker(loop: asyncio.AbstractEventLoop, python: Path = ENDS_AT_ONCE) -> Worker:
    return LitellmCaller(UPSTREAM_OF_LITELLM, Workers(WorkerSettings(python, 0.0), loop), loop).worker


async def fails(worker: Worker) -> None:
    with pytest.raises(UpstreamBroken) as broken:
        await worker.connect(no_connection)
    assert broken.value.reason == "worker_unavailable"


@pytest.mark.parametrize("python", [ENDS_AT_ONCE, Path("/nonexistent/python"), Path("/etc/passwd")])
def test_calls_fail_at_once_while_it_rests(python: Path) -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        worker = a_worker(loop, python)
        assert worker.state == "not_started"
        await asyncio.gather(*(fails(worker) for _ in range(5)))  # all waited for one start
        assert (worker.state, worker.pid, worker.restarts) == ("resting", None, 0)
        until = worker._not_before
        await fails(worker)
        assert worker._not_before == until  # nothing was started

    on_uvloop(test)


def test_each_rest_is_longer_up_to_a_bound() -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        worker = a_worker(loop)
        first, longest = REST_SECONDS
        for failures in range(10):
            worker._not_before = 0.0
            await fails(worker)
            rest = worker._not_before - loop.time()
            bound = min(longest, first * 2**failures)
            assert bound * 0.4 < rest <= bound
            assert worker.restarts == failures

    on_uvloop(test)


def test_a_call_that_gives_up_leaves_the_pool_as_it_was() -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        caller = LitellmCaller(UPSTREAM_OF_LITELLM, Workers(WorkerSettings(ENDS_AT_ONCE), loop), loop)
        for _ in range(5):  # more than the pool has places
            with pytest.raises(UpstreamBroken):
                await caller.open(REQUEST, loop.time() + 5)
        assert caller.open_connections == 0
        assert not caller.busy

    on_uvloop(test)


def test_a_caller_that_is_closed_takes_its_worker_with_it_and_its_successor_keeps_it() -> None:
    async def test(loop: asyncio.AbstractEventLoop) -> None:
        workers = Workers(WorkerSettings(ENDS_AT_ONCE), loop)
        old = LitellmCaller(UPSTREAM_OF_LITELLM, workers, loop)
        new = LitellmCaller(replace(UPSTREAM_OF_LITELLM, request_timeout=9.0), workers, loop)
        assert old.worker is new.worker
        old.close()
        assert list(workers) == [new.worker]
        other = LitellmCaller(replace(UPSTREAM_OF_LITELLM, url=parse_upstream_url("litellm://gemini")), workers, loop)
        assert other.worker is not new.worker  # another provider's credential never comes into its memory
        new.close()
        assert list(workers) == [other.worker]

    on_uvloop(test)

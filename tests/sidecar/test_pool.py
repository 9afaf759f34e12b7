"""The pool of connections: never more than its number, handed on in order, none lost however calls are cancelled."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.upstream import pool
from llmroute_sidecar.upstream.exchange import OutgoingRequest, UpstreamBroken
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.pool import HttpCaller

REQUEST = OutgoingRequest("/chat/completions", [], b"{}", "m", stream=False)
UPSTREAM = Upstream(
    id="r/u",
    name="u",
    route="r",
    url=parse_upstream_url("http://127.0.0.1:1"),
    protocol="OpenAI",
    credential=None,
    tls=None,
    headers=(),
    connect_timeout=5.0,
    first_token_timeout=5.0,
    idle_timeout=5.0,
    request_timeout=5.0,
    breaker_max_failures=5,
    breaker_reset=30.0,
    pool_max_connections=2,
    limits=(),
    unavailable=None,
)


class Server:
    """Answers each request, after `delay`, and counts."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.open = self.most = self.made = self.answered = 0
        self.drop_second = False
        """Close a connection at its second request, without a word."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.made += 1
        self.most = max(self.most, self.open)
        served = 0
        try:
            while True:
                await reader.readuntil(b"{}")
                served += 1
                if self.drop_second and served > 1:
                    return
                await asyncio.sleep(self.delay)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                self.answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(connections: int = 2) -> AsyncIterator[tuple[Server, HttpCaller]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    url = parse_upstream_url(f"http://127.0.0.1:{port}")
    caller = HttpCaller(replace(UPSTREAM, url=url, pool_max_connections=connections), asyncio.get_running_loop())
    try:
        yield server, caller
    finally:
        caller.close()
        assert caller.open_connections == 0
        listening.close()
        await settle(lambda: not server.open)


async def exchange(caller: HttpCaller, within: float = 5.0) -> HttpConnection:
    """One request to its end; returns the connection it went over."""
    deadline = asyncio.get_running_loop().time() + within
    connection = await caller.open(REQUEST, deadline)
    try:
        while not connection.complete:
            await connection.advance(deadline, "first_token_timeout")
        assert connection.buffer == b"ok"
    except BaseException:
        connection.abort()
        raise
    connection.release()
    return connection


def run(main: Coroutine[None, None, None]) -> None:
    """On the loop that the gateway runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_connections_are_used_again_and_no_more_are_made_than_may_be() -> None:
    async def main() -> None:
        async with serving(connections=3) as (server, caller):
            await asyncio.gather(*(exchange(caller) for _ in range(50)))
            assert server.made == server.most == 3
            assert server.answered == 50

    run(main())


def test_who_waits_longest_is_served_next() -> None:
    async def main() -> None:
        order: list[int] = []

        async def one(caller: HttpCaller, number: int) -> None:
            await exchange(caller)
            order.append(number)

        async with serving(connections=1) as (_, caller):
            calls = []
            for number in range(20):
                calls.append(asyncio.create_task(one(caller, number)))
                await asyncio.sleep(0)
            await asyncio.gather(*calls)
        assert order == sorted(order)

    run(main())


def test_nobody_overtakes_those_that_wait() -> None:
    """A place that becomes free goes to the one that waits, not to who comes just then."""

    async def main() -> None:
        async with serving(connections=1) as (_, caller):
            loop = asyncio.get_running_loop()
            first = await caller.open(REQUEST, loop.time() + 5)
            waiting = asyncio.create_task(exchange(caller))
            await asyncio.sleep(0)
            first.abort()
            late = asyncio.create_task(exchange(caller))
            done, _ = await asyncio.wait({waiting, late}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {waiting}
            await late

    run(main())


def test_a_place_that_does_not_become_free_in_time_is_told_so() -> None:
    async def main() -> None:
        async with serving(connections=1) as (_, caller):
            loop = asyncio.get_running_loop()
            first = await caller.open(REQUEST, loop.time() + 5)
            with pytest.raises(UpstreamBroken) as raised:
                await caller.open(REQUEST, loop.time() + 0.01)
            assert raised.value.reason == "pool_timeout"
            first.abort()
            await exchange(caller)

    run(main())


def test_a_fresh_connection_is_none_of_those_that_were_kept() -> None:
    async def main() -> None:
        async with serving(connections=5) as (server, caller):
            await asyncio.gather(*(exchange(caller) for _ in range(5)))
            server.drop_second = True
            deadline = asyncio.get_running_loop().time() + 5
            kept = await caller.open(REQUEST, deadline)
            with pytest.raises(UpstreamBroken) as raised:
                await kept.advance(deadline, "first_token_timeout")
            assert raised.value.unanswered
            kept.abort()
            fresh = await caller.open(REQUEST, deadline, fresh=True)
            await fresh.advance(deadline, "first_token_timeout")
            assert fresh.status == 200
            fresh.abort()

    run(main())


def test_a_fresh_connection_is_none_that_another_call_is_done_with() -> None:
    """Of an upstream that closes behind each answer, that one is dead as well."""

    async def main() -> None:
        async with serving(connections=1) as (server, caller):
            server.drop_second = True
            deadline = asyncio.get_running_loop().time() + 5
            first = await caller.open(REQUEST, deadline)
            waiting = asyncio.ensure_future(caller.open(REQUEST, deadline, fresh=True))
            while not first.complete:
                await first.advance(deadline, "first_token_timeout")
            first.release()
            fresh = await waiting
            await fresh.advance(deadline, "first_token_timeout")
            assert (fresh.status, server.made, caller.open_connections) == (200, 2, 1)
            fresh.abort()

    run(main())


def test_a_connection_that_ends_while_it_is_handed_on_is_not_used() -> None:
    """Nobody would hear of its end any more."""

    async def main() -> None:
        async with serving(connections=1) as (_, caller):
            deadline = asyncio.get_running_loop().time() + 5
            first = await caller.open(REQUEST, deadline)
            waiting = asyncio.ensure_future(exchange(caller))
            while not first.complete:
                await first.advance(deadline, "first_token_timeout")
            first.release()
            first.connection_lost(None)
            assert await waiting is not first

    run(main())


def test_connections_that_nobody_uses_are_closed_after_a_while() -> None:
    async def main() -> None:
        with patch.object(pool, "IDLE_SECONDS", 0.05):
            async with serving() as (server, caller):
                await asyncio.gather(exchange(caller), exchange(caller))
                assert caller.open_connections == 2
                await settle(lambda: caller.open_connections == 0 and server.open == 0)
                await exchange(caller)

    run(main())


def test_an_answer_that_comes_before_the_request_is_sent_ends_its_connection() -> None:
    """What the upstream has not read of the request would stand before the next one."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")  # and no more: the reader's own limit holds back the rest
        writer.write(b"HTTP/1.1 413 X\r\ncontent-length: 2\r\n\r\nno")
        await gone.wait()
        writer.close()

    gone = asyncio.Event()

    async def main() -> None:
        listening = await asyncio.start_server(early, "127.0.0.1", 0)
        try:
            port = listening.sockets[0].getsockname()[1]
            url = parse_upstream_url(f"http://127.0.0.1:{port}")
            loop = asyncio.get_running_loop()
            caller = HttpCaller(replace(UPSTREAM, url=url), loop)
            large = OutgoingRequest("/chat/completions", [], b"x" * (32 * 1024 * 1024), "m", stream=False)
            connection = await caller.open(large, loop.time() + 5)
            while not connection.complete:
                await connection.advance(loop.time() + 5, "first_token_timeout")
            assert connection.status == 413
            assert not connection.reusable
            connection.release()
            assert caller.open_connections == 0
        finally:
            gone.set()
            listening.close()

    run(main())


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_no_storm_of_cancelled_calls_loses_a_place(seed: int, connections: int) -> None:
    """Calls are cancelled, or run out of time, in whatever phase they are; then the pool must serve as before."""
    chance = random.Random(seed)

    async def main() -> None:
        async with serving(connections) as (server, caller):
            server.delay = 0.001
            calls = set()
            for _ in range(60):
                calls.add(asyncio.create_task(exchange(caller, within=chance.choice([0.0, 0.002, 5.0]))))
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    chance.choice(sorted(calls, key=id)).cancel()
            await asyncio.wait(calls)
            for call in calls:
                if not call.cancelled():
                    assert call.exception() is None or isinstance(call.exception(), UpstreamBroken)
            assert caller.open_connections <= connections
            server.delay = 0.0
            await asyncio.gather(*(exchange(caller) for _ in range(20)))

    run(main())

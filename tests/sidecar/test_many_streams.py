"""A thousand streams at once through one gateway; half of their clients leave, some before the first token."""

import asyncio
import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec
from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, event, providing
from tests.waiting import wait_until

pytestmark = pytest.mark.server
STREAMS = 1000
SILENT = 250
"""Of them get no token before they leave."""


@pytest.fixture(autouse=True)
def enough_descriptors() -> None:
    """The provider holds as many sockets as the clients, in this process; the gateway inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * STREAMS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here, and {wanted} are needed")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def open_stream(gateway: GatewayProcess, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    body = json.dumps({"model": "gpt", "messages": [], "stream": True, "number": number}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer


def test_half_of_a_thousand_clients_leave_and_nothing_of_theirs_is_left(tmp_path: Path) -> None:
    go_on = asyncio.Event()  # of the provider's loop

    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.json["number"] >= SILENT:
            writer.write(STREAM_HEAD + chunk(event("one")))
            await writer.drain()
        await go_on.wait()
        writer.write(chunk(event("two")) + chunk(DONE) + END)

    with providing(behaviour) as provider:
        route = spec(provider.url)
        route["upstreams"][0]["pool"] = {"maxConnections": 2 * STREAMS}
        with running(tmp_path, {"chat": route}) as gateway:
            tasks = gateway.tasks()
            asyncio.run(_clients(gateway, provider, go_on))
            wait_until(lambda: provider.open == STREAMS // 2, "only idle connections to be left")
            wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "no call to be in flight")
            wait_until(lambda: gateway.tasks() <= tasks, "no task to be left")
            wait_until(lambda: gateway.connections("client") == 0, "no client's connection to be left")
            assert gateway.connections("upstream") == STREAMS // 2  # idle, as the provider sees them
            left = gateway.metric("gateway_requests_total", method="POST", path="/v1/chat/completions", status="499")
            assert left == STREAMS // 2
            breaker = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"][0]
            assert breaker["consecutive_failures"] == 0


async def _clients(gateway: GatewayProcess, provider: Provider, go_on: asyncio.Event) -> None:
    streams = [await open_stream(gateway, number) for number in range(STREAMS)]
    for reader, _ in streams[SILENT:]:
        await asyncio.wait_for(reader.readuntil(b"one"), 60)
    await _until(lambda: provider.open == STREAMS, "all calls to reach the provider")
    assert gateway.tasks() >= STREAMS
    assert gateway.connections("client") == gateway.connections("upstream") == STREAMS
    leaving, staying = streams[: STREAMS // 2], streams[STREAMS // 2 :]
    for _, writer in leaving:
        writer.transport.abort()
    await _until(lambda: provider.open == len(staying), "the upstream's side of those who left to be free")
    provider.call(go_on.set)
    for reader, writer in staying:
        await asyncio.wait_for(reader.readuntil(b"[DONE]"), 60)
        writer.close()


async def _until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, 60)

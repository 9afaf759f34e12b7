"""Limits on calls at once, over sockets: slots come back on every path, the line is in order, who leaves it is gone."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import STREAM_HEAD, Provider, ProviderRequest, chunk, event, plain, providing, response
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.server


class Gate:
    """A provider's behaviour: calls wait until the test lets them go on, in the order it chooses."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.served: list[str] = []
        self._open: dict[str, asyncio.Event] = {}

    async def __call__(self, request: ProviderRequest, writer: Any) -> None:
        name = request.json["user"]
        self._open[name] = asyncio.Event()
        self.waiting.append(name)
        if request.json.get("stream"):
            writer.write(STREAM_HEAD + chunk(event("one")))
        try:
            await self._open[name].wait()
            self.served.append(name)
            await plain(request, writer)
        finally:
            self.waiting.remove(name)

    def let_go(self, provider: Provider, name: str) -> None:
        provider.call(self._open[name].set)

    def has(self, *names: str) -> None:
        wait_until(lambda: set(self.waiting) == set(names), f"the provider to hold {names}, not {self.waiting}")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def provider(gate: Gate) -> Iterator[Provider]:
    with providing(gate) as provider:
        yield provider


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def slots(number: int, **more: Any) -> dict[str, Any]:
    return {"name": "slots", "per": "Client", "concurrency": number, **more}


QUEUE = {"queue": {"size": 2, "timeout": "10m"}}
OTHER = "test-key-of-other"


@pytest.fixture
def serve(provider: Provider, tmp_path: Any) -> Iterator[Callable[..., GatewayProcess]]:
    with ExitStack() as stack:

        def start(*limits: dict[str, Any], **changes: Any) -> GatewayProcess:
            route = spec(provider.url, limits=list(limits), **changes)
            return stack.enter_context(running(tmp_path, {"chat": route}, keys={"other": OTHER}))

        yield start


def call(gateway: GatewayProcess, name: str, key: str = KEY, **fields: Any) -> httpx.Response:
    """A client of its own: a connection carries one call at a time."""
    body = {"model": "gpt", "messages": [], "user": name, **fields}
    return httpx.post(
        gateway.url + "/v1/chat/completions",
        content=json.dumps(body),
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )


def waiting(gateway: GatewayProcess, number: int) -> None:
    wait_until(
        lambda: gateway.metric("llmroute_limit_waiting", route="chat", limit="slots") == number,
        f"{number} calls to be in line",
    )


def free(gateway: GatewayProcess, number: int) -> None:
    wait_until(
        lambda: gateway.metric("llmroute_limit_remaining", route="chat", limit="slots", kind="concurrency") == number,
        f"{number} slots to be free",
    )


def test_a_call_without_a_slot_is_refused_and_the_slot_comes_back(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(slots(1))
    first = pool.submit(call, gateway, "a")
    gate.has("a")
    refused = call(gateway, "b")
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "concurrency"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["message"] == (
        "the limit 'slots' of 1 requests at a time is reached; try again in 1s"
    )
    assert refused.headers["x-llmroute-limit"] == "slots"
    assert refused.headers["retry-after"] == "1"
    other = pool.submit(call, gateway, "c", OTHER)  # counted apart
    gate.has("a", "c")
    for name in ("a", "c"):
        gate.let_go(provider, name)
    assert {first.result().status_code, other.result().status_code} == {200}
    free(gateway, 1)


def test_the_line_is_served_in_order_and_has_an_end(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(slots(1, **QUEUE))
    calls: list[Future[httpx.Response]] = []
    for place, name in enumerate(("a", "b", "c")):
        calls.append(pool.submit(call, gateway, name))
        waiting(gateway, place)
        gate.has("a")
    assert call(gateway, "d").status_code == 429
    for name in ("a", "b", "c"):
        gate.has(name)
        gate.let_go(provider, name)
    assert [each.result().status_code for each in calls] == [200, 200, 200]
    assert gate.served == ["a", "b", "c"]
    waiting(gateway, 0)
    free(gateway, 1)


def test_who_waits_too_long_is_refused_and_no_longer_in_line(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(slots(1, queue={"size": 1, "timeout": "50ms"}))
    first = pool.submit(call, gateway, "a")
    gate.has("a")
    for _ in range(2):  # its place is free again
        assert call(gateway, "b").json()["error"]["type"] == "concurrency"
    waiting(gateway, 0)
    gate.let_go(provider, "a")
    assert first.result().status_code == 200
    free(gateway, 1)


def test_a_client_that_leaves_the_line_makes_room_in_it_and_reaches_no_upstream(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(slots(1, queue={"size": 1, "timeout": "10m"}))
    first = pool.submit(call, gateway, "a")
    gate.has("a")
    leaving = left_open(gateway, "b")
    waiting(gateway, 1)
    leaving.close()
    waiting(gateway, 0)
    third = pool.submit(call, gateway, "c")
    waiting(gateway, 1)
    gate.let_go(provider, "a")
    gate.has("c")
    gate.let_go(provider, "c")
    assert [each.result().status_code for each in (first, third)] == [200, 200]
    assert gate.served == ["a", "c"]
    free(gateway, 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_leaves_gives_its_slot_to_the_next_in_line(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor, streamed: bool
) -> None:
    gateway = serve(slots(1, **QUEUE))
    leaving = left_open(gateway, "a", stream=streamed)
    gate.has("a")
    second = pool.submit(call, gateway, "b")
    waiting(gateway, 1)
    leaving.close()
    gate.has("b")
    gate.let_go(provider, "b")
    assert second.result().status_code == 200
    free(gateway, 1)


def test_a_slot_is_held_to_the_last_byte_of_a_stream(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(slots(1))
    with left_open(gateway, "a", stream=True) as client:
        received = b""
        while b"one" not in received:
            received += client.recv(65536)
        assert call(gateway, "b").status_code == 429
    free(gateway, 1)


@pytest.mark.parametrize("status", [400, 500])
def test_a_failed_call_gives_its_slot_back(
    serve: Callable[..., GatewayProcess], provider: Provider, status: int
) -> None:
    async def fails(_: ProviderRequest, writer: Any) -> None:
        writer.write(response(status, b"{}"))

    provider.behaviour = fails
    gateway = serve(slots(1))
    for _ in range(3):
        assert call(gateway, "a").status_code == (400 if status == 400 else 502)
    free(gateway, 1)


def test_more_slots_by_a_reload_let_in_who_waits(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(slots(1, **QUEUE))
    calls = [pool.submit(call, gateway, "a")]
    gate.has("a")
    calls.append(pool.submit(call, gateway, "b"))
    waiting(gateway, 1)
    gateway.write({"chat": spec(provider.url, limits=[slots(2, **QUEUE)])})
    gate.has("a", "b")
    assert gateway.metric("llmroute_limit_remaining", route="chat", limit="slots", kind="concurrency") == 0
    for name in ("a", "b"):
        gate.let_go(provider, name)
    assert [each.result().status_code for each in calls] == [200, 200]
    free(gateway, 2)


def test_a_full_upstream_is_passed_over_and_a_call_refused_only_when_none_is_left(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    gateway = serve(
        slots(1, per="Upstream"),
        upstreams=[upstream("first", provider.url), upstream("second", provider.url + "/second/v1")],
        models=[{"name": "gpt", "targets": [{"upstream": "first"}, {"upstream": "second", "weight": 0}]}],
    )
    calls = [pool.submit(call, gateway, "a")]
    gate.has("a")
    calls.append(pool.submit(call, gateway, "b"))
    gate.has("a", "b")
    assert provider.requests[-1].path == "/second/v1/chat/completions"
    refused = call(gateway, "c")
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "concurrency"
    for name in ("a", "b"):
        gate.let_go(provider, name)
    assert [each.result().headers["x-llmroute-upstream"] for each in calls] == ["first", "second"]
    free(gateway, 1)


def test_nothing_is_counted_while_a_call_waits_or_when_it_is_refused(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    requests = {"name": "requests", "per": "Client", "requests": 10, "window": "1h"}
    tokens = {"name": "tokens", "per": "Client", "tokens": 10_000, "window": "1h"}
    gateway = serve(requests, tokens, slots(1, queue={"size": 1, "timeout": "10m"}))

    def left(name: str) -> float:
        return gateway.metric("llmroute_limit_remaining", route="chat", limit=name, kind=name)

    first = pool.submit(call, gateway, "a")
    gate.has("a")
    before = (left("requests"), left("tokens"))
    assert before[0] == 9
    second = pool.submit(call, gateway, "b")
    waiting(gateway, 1)
    assert call(gateway, "c").status_code == 429
    assert (left("requests"), left("tokens")) == before
    gate.let_go(provider, "a")
    gate.has("b")
    gate.let_go(provider, "b")
    assert first.result().headers["x-ratelimit-remaining-requests"] == "9"
    assert second.result().headers["x-ratelimit-remaining-requests"] == "8"
    assert int(second.result().headers["x-ratelimit-remaining-tokens"]) < 10_000
    assert left("tokens") == 10_000 - 2 * 2  # what the provider says it used


def test_many_clients_that_come_and_go_leave_no_slot_behind(
    serve: Callable[..., GatewayProcess], provider: Provider, gate: Gate
) -> None:
    gateway = serve(slots(3, queue={"size": 20, "timeout": "10m"}))
    for _ in range(3):
        clients = [left_open(gateway, str(number), stream=number % 2 == 0) for number in range(20)]
        waiting(gateway, 17)
        for client in clients:
            client.close()
        waiting(gateway, 0)
        free(gateway, 3)
    gate.has()


def left_open(gateway: GatewayProcess, name: str, **fields: Any) -> socket.socket:
    """A client that has sent its request and is in the test's hand."""
    body = json.dumps({"model": "gpt", "messages": [], "user": name, **fields}).encode()
    client = socket.create_connection(("127.0.0.1", gateway.port), timeout=HANGS_AFTER)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-length: {len(body)}"
    )
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    return client

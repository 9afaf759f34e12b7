"""A client that leaves, whenever it leaves: its call ends at once, counts for no upstream, and its connections are
closed, never kept."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import Provider, ProviderRequest, completion, plain, providing, response
from tests.waiting import wait_until

pytestmark = pytest.mark.server


class Behaviours:
    """What the provider does, by the first part of the path."""

    def __init__(self) -> None:
        self.hanging = 0
        self.probe_hangs = False

    async def __call__(self, request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        match request.path.split("/")[1]:
            case "fails":
                writer.write(response(500, b"{}"))
            case "probe" if not self.probe_hangs:
                writer.write(response(500, b"{}"))
            case "small-pool" if request.json.get("user") == "quick":
                writer.write(response(200, completion()))
            case "good":
                await plain(request, writer)
            case _:
                await asyncio.sleep(60)


@pytest.fixture(scope="module")
def behaviours() -> Behaviours:
    return Behaviours()


@pytest.fixture(scope="module")
def provider(behaviours: Behaviours) -> Iterator[Provider]:
    with providing(behaviours) as provider:
        yield provider


@pytest.fixture(scope="module")
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        crowd = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            crowd.append(one)
        yield port
        for one in crowd:
            one.close()


@pytest.fixture(scope="module")
def gateway(provider: Provider, deaf_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    upstreams = [
        upstream("good", f"{provider.url}/good"),
        upstream("deaf", f"http://127.0.0.1:{deaf_port}", timeouts={"connect": "60s"}),
        upstream("hangs", f"{provider.url}/hangs"),
        upstream("fails", f"{provider.url}/fails", breaker={"maxFailures": 100}),
        upstream("probe", f"{provider.url}/probe", breaker={"maxFailures": 1, "reset": "100ms"}),
        upstream("small-pool", f"{provider.url}/small-pool", pool={"maxConnections": 1}),
        upstream(
            "hasty", f"{provider.url}/hasty", pool={"maxConnections": 1}, timeouts={"connect": "200ms"},
            breaker={"maxFailures": 1},
        ),
    ]  # fmt: skip
    models: list[dict[str, Any]] = [{"name": one["name"], "targets": [{"upstream": one["name"]}]} for one in upstreams]
    models.append({"name": "patient", "targets": [{"upstream": "fails"}], "retry": {"attempts": 5, "backoff": "30s"}})
    models.append({"name": "with-spare", "targets": [{"upstream": "hasty"}], "fallbacks": ["good"]})
    folder = tmp_path_factory.mktemp("gateway")
    with running(folder, {"chat": spec(provider.url, upstreams=upstreams, models=models)}) as gateway:
        yield gateway


def request(model: str, request_id: str, size: int = 0) -> bytes:
    body = json.dumps({"model": model, "messages": [], "user": "x" * size}).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {KEY}",
        f"x-request-id: {request_id}",
        f"content-length: {len(body)}",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def call(gateway: GatewayProcess, model: str, request_id: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    connection.sendall(request(model, request_id))
    return connection


def in_flight(gateway: GatewayProcess) -> float:
    return gateway.metric("gateway_in_flight_requests")


def called(provider: Provider, upstream: str) -> int:
    return sum(request.path.startswith(f"/{upstream}/") for request in provider.requests)


def breaker(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    breakers = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"]
    found: dict[str, Any] = next(breaker for breaker in breakers if breaker["upstream"] == name)
    return found


@pytest.mark.parametrize(
    ("model", "upstream"),
    [("deaf", "deaf"), ("hangs", "hangs"), ("patient", "fails")],
    ids=["while connecting", "before the answer's head", "while backing off"],
)
def test_a_client_that_leaves_ends_its_call_at_once(
    gateway: GatewayProcess, provider: Provider, model: str, upstream: str
) -> None:
    assert breaker(gateway, upstream)  # so that the connections of these looks themselves are there
    assert in_flight(gateway) == 0
    sockets = gateway.open_sockets()
    open_before = provider.open
    before = called(provider, upstream)
    with call(gateway, model, f"leaves-{model}"):
        wait_until(lambda: in_flight(gateway) == 1, "the call to have come")
        if upstream != "deaf":
            wait_until(lambda: called(provider, upstream) > before, "the provider to be called")
    wait_until(lambda: in_flight(gateway) == 0, "the call to be over")
    line = gateway.request_line(f"leaves-{model}")
    assert line["status"] == 499
    assert "exc_info" not in line
    assert breaker(gateway, upstream)["state"] == "closed"
    if upstream != "fails":
        assert breaker(gateway, upstream)["consecutive_failures"] == 0
        wait_until(lambda: provider.open <= open_before, "the provider's connection to be closed")
        wait_until(lambda: gateway.open_sockets() <= sockets, "no socket to be left behind")


def test_a_call_behind_another_does_not_hide_that_its_client_has_left(gateway: GatewayProcess) -> None:
    with call(gateway, "hangs", "in-front") as connection:
        connection.sendall(request("good", "behind"))
        wait_until(lambda: in_flight(gateway) == 2, "both calls to have come")
    wait_until(lambda: in_flight(gateway) == 0, "both calls to be over")
    assert gateway.request_line("in-front")["status"] == gateway.request_line("behind")["status"] == 499


def test_a_client_that_leaves_while_waiting_for_a_place_gives_it_up(
    gateway: GatewayProcess, provider: Provider
) -> None:
    with call(gateway, "small-pool", "has-the-place"):
        wait_until(lambda: called(provider, "small-pool") == 1, "the only place to be taken")
        waiting = [call(gateway, "small-pool", f"waits-{number}") for number in range(5)]
        wait_until(lambda: in_flight(gateway) == 6, "the others to wait")
        for connection in waiting:
            connection.close()
        wait_until(lambda: in_flight(gateway) == 1, "those that wait to be gone")
    wait_until(lambda: in_flight(gateway) == 0, "the first to be gone")
    assert called(provider, "small-pool") == 1
    assert gateway.post({"model": "small-pool", "user": "quick"}).status_code == 200


def test_no_place_in_the_pool_says_nothing_about_the_upstream(gateway: GatewayProcess, provider: Provider) -> None:
    """Its own limit of connections is the gateway's matter: the next candidate serves, the breaker does not count."""
    with call(gateway, "hasty", "has-the-only-place"):
        wait_until(lambda: called(provider, "hasty") == 1, "the only place to be taken")
        for _ in range(2):
            assert gateway.post({"model": "with-spare"}).headers["x-fallback-model"] == "good"
        attempts = gateway.post({"model": "hasty"}).json()["error"]["attempts"]
        assert [attempt["reason"] for attempt in attempts] == ["pool_timeout"]
        assert breaker(gateway, "hasty")["consecutive_failures"] == 0
    wait_until(lambda: in_flight(gateway) == 0, "the first to be gone")


def test_a_probe_whose_client_leaves_gives_its_slot_back(
    gateway: GatewayProcess, provider: Provider, behaviours: Behaviours
) -> None:
    assert gateway.post({"model": "probe"}).status_code == 502  # opens the breaker
    behaviours.probe_hangs = True
    wait_until(lambda: breaker(gateway, "probe")["state"] == "half_open", "the breaker to be half open")
    before = called(provider, "probe")
    for number in range(3):
        with call(gateway, "probe", f"probe-{number}"):
            wait_until(lambda: called(provider, "probe") == before + number + 1, "the probe to be sent")  # noqa: B023
            assert gateway.post({"model": "probe"}).json()["error"]["code"] == "circuit_open"
        wait_until(lambda: in_flight(gateway) == 0, "the probe to be gone")
        assert breaker(gateway, "probe")["state"] == "half_open"


def test_nothing_of_a_large_call_stays_when_its_client_leaves(gateway: GatewayProcess, provider: Provider) -> None:
    """Not until a garbage collection, either: a body of megabytes must not hang on a cycle of references."""
    size = 8 * 1024 * 1024
    before = 0
    for number in range(10):
        calls = called(provider, "hangs")
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            connection.sendall(request("hangs", f"large-{number}", size))
            wait_until(lambda: called(provider, "hangs") > calls, "the provider to be called")  # noqa: B023
        wait_until(lambda: in_flight(gateway) == 0, "the call to be over")
        before = before or gateway.memory_kib()
    assert gateway.memory_kib() - before < 4 * size // 1024
    provider.requests.clear()


def test_departures_are_told_apart_from_the_upstreams_failures(gateway: GatewayProcess) -> None:
    assert gateway.metric("gateway_upstream_requests_total", upstream="hangs", status="cancelled") >= 1
    assert gateway.metric("gateway_upstream_requests_total", upstream="hangs", status="error") == 0

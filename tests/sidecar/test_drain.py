"""Taking leave: SIGTERM begins the drain, what is under way finishes within the grace time, a second signal ends it."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway_process import KEY, GatewayProcess, end, running, spec, start, write_secret
from tests.provider import DONE, END, STREAM_HEAD, ProviderRequest, chunk, completion, event, providing, response
from tests.waiting import wait_until

pytestmark = pytest.mark.server


class Held:
    """A provider that answers nothing until it is told to."""

    def __init__(self) -> None:
        self._go_on = threading.Event()

    def go_on(self) -> None:
        self._go_on.set()

    async def __call__(self, request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.json.get("stream"):
            writer.write(STREAM_HEAD + chunk(event("one")))
        while not self._go_on.is_set():
            await asyncio.sleep(0.005)
        if request.json.get("stream"):
            writer.write(chunk(event("two")) + chunk(DONE) + END)
        else:
            writer.write(response(200, completion()))


def send(gateway: GatewayProcess, *, stream: bool = False, small_buffer: bool = False) -> socket.socket:
    """A raw connection on which a call was sent."""
    data = json.dumps({"model": "gpt", "messages": [], "stream": stream}).encode()
    connection = socket.socket()
    if small_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", gateway.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
    connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    got = b""
    while data := connection.recv(65536):
        got += data
    return got


@contextmanager
def holding(folder: Path, *arguments: str) -> Iterator[tuple[GatewayProcess, Held]]:
    held = Held()
    with providing(held) as provider, running(folder, {"chat": spec(provider.url)}, *arguments) as gateway:
        yield gateway, held


def drained(gateway: GatewayProcess) -> None:
    """Sends SIGTERM and waits until it has been heard."""
    gateway.terminate()
    wait_until(lambda: httpx.get(f"{gateway.admin_url}/ready").status_code == 503, "/ready to turn 503")


def test_what_is_under_way_finishes_and_nothing_new_begins(tmp_path: Path) -> None:
    with holding(tmp_path) as (gateway, held):
        with send(gateway) as plain, send(gateway, stream=True) as stream, send(gateway) as kept:
            half = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
            half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            idle = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
            wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 3, "the calls to be under way")
            drained(gateway)
            assert idle.recv(100) == b""  # a connection without a request is closed at once
            assert httpx.get(f"{gateway.url}/ready").json()["reason"] == "draining"
            assert httpx.get(f"{gateway.url}/health").status_code == 200

            refused = httpx.post(
                f"{gateway.url}/v1/chat/completions", headers={"x-api-key": KEY}, json={"model": "gpt"}
            )
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "not_ready"
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["connection"] == "close"

            half.sendall(f"authorization: Bearer {KEY}\r\ncontent-length: 0\r\n\r\n".encode())
            assert b'"not_ready"' in read_to_end(half)
            half.close()
            idle.close()

            assert gateway.process.poll() is None
            held.go_on()
            answer = read_to_end(plain)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close\r\n" in answer
            assert read_to_end(stream).endswith(DONE + b"\r\n" + END)
            assert read_to_end(kept).startswith(b"HTTP/1.1 200 ")
        assert gateway.exit_code() == 0
        messages = [line["message"] for line in gateway.lines]
        assert messages[-1] == "stopped"
        assert "draining" in messages


def test_a_call_that_waits_behind_another_on_its_connection_is_refused(tmp_path: Path) -> None:
    with holding(tmp_path) as (gateway, held):
        with send(gateway, stream=True) as connection:
            begun = b""
            while b"one" not in begun:  # its head is out, and has not said that the connection ends
                begun += connection.recv(65536)
            drained(gateway)
            head = f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
            connection.sendall(f"{head}content-length: 2\r\n\r\n{{}}".encode())
            wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 2, "the second call to have come")
            held.go_on()
            answer = read_to_end(connection)
            assert DONE + b"\r\n" + END + b"HTTP/1.1 503 " in answer
            assert b'"not_ready"' in answer
        assert gateway.exit_code() == 0


def test_without_a_configuration_yet_it_is_not_ready_and_says_so(tmp_path: Path) -> None:
    gateway = start(tmp_path)
    try:
        assert gateway.get("/health").status_code == 200
        ready = gateway.get("/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "no configuration yet")
        refused = gateway.post({"model": "gpt"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-request-id"]
        write_secret(gateway.secrets_dir, "clients", {"app": KEY})
        gateway.write({"chat": spec("mock://local")})
        assert gateway.get("/ready").status_code == 200
        assert gateway.post({"model": "gpt"}).status_code == 200
    finally:
        end(gateway)


def test_an_idle_gateway_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path, {"chat": spec("mock://local")}) as gateway:
        gateway.post({"model": "gpt"})
        gateway.terminate()
        assert gateway.exit_code() == 0


def nothing_in_flight(gateway: GatewayProcess) -> bool:
    try:
        return gateway.metric("gateway_in_flight_requests") == 0
    except httpx.TransportError:
        return True  # the system took all of the answer at once, and the gateway has gone


def test_a_large_last_answer_arrives_whole(tmp_path: Path) -> None:
    """Written is not sent: the process waits until a slow client has taken what it had to say."""
    size = 1000 * 1000
    go_on = asyncio.Event()

    async def large(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(response(200, b"x" * size))

    with (
        providing(large) as provider,
        running(tmp_path, {"chat": spec(provider.url)}) as gateway,
        send(gateway, small_buffer=True) as connection,
    ):
        wait_until(lambda: provider.requests, "the provider to be called")
        drained(gateway)
        provider.call(go_on.set)
        wait_until(lambda: nothing_in_flight(gateway), "the answer to be written")
        assert len(read_to_end(connection).partition(b"\r\n\r\n")[2]) == size
        assert gateway.exit_code() == 0


def test_what_takes_longer_than_the_grace_time_is_cut(tmp_path: Path) -> None:
    with holding(tmp_path, "--grace", "0.2") as (gateway, _):
        with send(gateway, stream=True) as stream, send(gateway) as plain:
            wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 2, "the calls to be under way")
            gateway.terminate()
            for connection in (stream, plain):
                try:
                    got = read_to_end(connection)
                except ConnectionResetError:
                    got = b""
                assert b"[DONE]" not in got
                assert not got.endswith(END)
        assert gateway.exit_code() == 0
        assert "the grace time is over; calls under way are cut" in [line["message"] for line in gateway.lines]
        cut = [line["status"] for line in gateway.lines if line["logger"] == "llmroute.request"]
        assert cut == [503, 503]  # neither was answered, and no client had left


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with holding(tmp_path, "--grace", "600") as (gateway, _), send(gateway):
        wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 1, "the call to be under way")
        drained(gateway)
        gateway.terminate()
        assert gateway.exit_code() == 1
        assert not [line for line in gateway.log_path.read_text().splitlines() if not line.startswith("{")]

"""Streams: chunk by chunk, cancelled with their client, held back by a slow one, never ending as if they were whole."""

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec
from tests.provider import DONE, END, STREAM_HEAD, ProviderRequest, chunk, event, providing
from tests.waiting import wait_until

pytestmark = pytest.mark.server
STREAM = {"model": "gpt", "messages": [], "stream": True}


def stream(gateway: GatewayProcess, body: object = STREAM) -> socket.socket:
    """A raw connection on which a streamed call was sent."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
    connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """What came last before `wanted`, and it."""
    got = b""
    while wanted not in got:
        data = connection.recv(1024 * 1024)
        if not data:
            raise AssertionError(f"the connection ended before {wanted!r}: {got[-500:]!r}")
        got = got[-4096:] + data
    return got


def read_to_end(connection: socket.socket) -> bytes:
    got = b""
    while data := connection.recv(65536):
        got += data
    return got


def test_each_chunk_arrives_before_the_next_one_is_sent(tmp_path: Path) -> None:
    go_on = threading.Event()

    async def stepwise(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for word in ("one", "two", "three"):
            writer.write(chunk(event(word)))
            await writer.drain()
            await asyncio.to_thread(go_on.wait, 20)
            go_on.clear()
        writer.write(chunk(DONE) + END)

    with (
        providing(stepwise) as provider,
        running(tmp_path, {"chat": spec(provider.url)}) as gateway,
        stream(gateway) as connection,
    ):
        for word in (b"one", b"two", b"three"):
            read_until(connection, word)
            go_on.set()
        read_until(connection, b"[DONE]")


@pytest.mark.parametrize("moment", ["before the head", "before the first content", "in the middle"])
def test_a_client_that_leaves_cancels_the_upstream_call(tmp_path: Path, moment: str) -> None:
    async def endless(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if moment != "before the head":
            writer.write(STREAM_HEAD)
        if moment == "in the middle":
            writer.write(chunk(event("one")))
        await asyncio.sleep(60)

    with providing(endless) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        with stream(gateway) as connection:
            wait_until(lambda: provider.requests, "the provider to be called")
            if moment == "in the middle":
                read_until(connection, b"one")
        wait_until(lambda: provider.open == 0, "the provider's connection to be closed")
        wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "nothing to be in flight")
        lines = wait_until(
            lambda: [
                line for line in gateway.lines if line.get("logger") == "llmroute.request" and line["status"] == 499
            ],
            "the log line of the cancelled call",
        )
        assert len(lines) == 1
        breaker = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"][0]
        assert breaker["consecutive_failures"] == 0


def test_many_cancelled_calls_leave_no_connection_behind(tmp_path: Path) -> None:
    """More than the pool holds, so that waiting for a place is cancelled too; then the pool must serve as before."""

    async def slow(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.json.get("hang"):
            await asyncio.sleep(60)
        writer.write(STREAM_HEAD + chunk(event("one")) + chunk(DONE) + END)

    with providing(slow) as provider:
        chat = spec(provider.url)
        chat["upstreams"][0]["pool"] = {"maxConnections": 10}
        with running(tmp_path, {"chat": chat}) as gateway:
            for _ in range(5):
                hanging = [stream(gateway, {**STREAM, "hang": True}) for _ in range(40)]
                wait_until(lambda: provider.open == 10, "the pool to be full")
                for connection in hanging:
                    connection.close()
                wait_until(lambda: provider.open == 0, "all connections to be closed")
            calls = [stream(gateway) for _ in range(30)]
            for connection in calls:
                read_until(connection, b"[DONE]")
                connection.close()
            assert provider.open <= 10


def test_a_slow_client_holds_back_the_upstream_not_memory(tmp_path: Path) -> None:
    sent = 0
    big = chunk(b"data: " + b"x" * 65536 + b"\n\n")
    pieces = 1600  # 100 MiB

    async def firehose(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM_HEAD + chunk(event("one")))
        for _ in range(pieces):
            writer.write(big)
            await writer.drain()
            sent += len(big)
        writer.write(chunk(DONE) + END)

    with providing(firehose) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        before = gateway.memory_kib()
        with stream(gateway) as connection:
            read_until(connection, b"one")
            last = -1

            def still() -> bool:
                nonlocal last
                last, now = sent, last
                return now == sent and sent > 0

            wait_until(still, "the provider to be held back", every=0.3)
            assert sent < 40 * 1024 * 1024
            assert gateway.memory_kib() - before < 16 * 1024
            read_until(connection, b"[DONE]")


@pytest.mark.parametrize("ending", ["closed", "malformed", "inside an event"])
def test_a_stream_that_breaks_off_ends_with_an_error_event_and_without_done(tmp_path: Path, ending: str) -> None:
    async def broken(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("one")))
        await writer.drain()
        if ending == "malformed":
            writer.write(b"zz\r\n")
            await writer.drain()
        else:
            if ending == "inside an event":
                writer.write(chunk(event("two")[:-20]))
                await writer.drain()
            writer.close()

    with providing(broken) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        answer = gateway.post(STREAM)
        assert answer.status_code == 200
        assert "one" in answer.text
        assert "[DONE]" not in answer.text
        *words, last = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
        assert [word["choices"][0]["delta"]["content"] for word in words] == ["one"]
        assert last["error"]["code"] == "upstream_failed"
        assert gateway.metric("llmroute_streams_truncated_total") == 1
        breaker = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"][0]
        assert breaker["consecutive_failures"] == 1


@pytest.mark.parametrize(
    ("path", "first", "name", "code"),
    [
        ("/v1/messages", "content_block_delta", b"event: error\n", None),
        ("/v1/responses", "response.output_text.delta", b"event: error\n", "upstream_failed"),
        ("/v1/completions", "x", b"data: ", "upstream_failed"),
    ],
)
def test_the_error_event_is_in_the_streams_own_protocol(
    tmp_path: Path, path: str, first: str, name: bytes, code: str | None
) -> None:
    begun = b'event: %b\ndata: {"type":"%b"}\n\n' % (first.encode(), first.encode())

    async def broken(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(begun))
        await writer.drain()
        writer.close()

    with providing(broken) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        answer = gateway.post(STREAM, path=path)
        assert answer.content.startswith(begun + name)
        last = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
        assert last["error"]["message"] == "the upstream broke off before the answer was complete"
        assert last.get("type", "error") == "error"
        assert last["error"].get("code") == code


def test_a_stream_that_falls_silent_is_ended(tmp_path: Path) -> None:
    async def stalls(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("one")))
        await asyncio.sleep(60)

    with providing(stalls) as provider:
        chat = spec(provider.url)
        chat["upstreams"][0]["timeouts"] = {"idle": "200ms"}
        with running(tmp_path, {"chat": chat}) as gateway:
            answer = gateway.post(STREAM)
            assert "upstream_failed" in answer.text
            assert "[DONE]" not in answer.text
            wait_until(lambda: provider.open == 0, "the provider's connection to be closed")


def test_a_large_plain_answer_that_breaks_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    body = b"x" * (3 * 1024 * 1024)

    async def broken(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(body)
        )
        await writer.drain()
        writer.close()

    with (
        providing(broken) as provider,
        running(tmp_path, {"chat": spec(provider.url)}) as gateway,
        stream(gateway, {"model": "gpt", "messages": []}) as connection,
    ):
        try:
            got = read_to_end(connection)
        except ConnectionResetError:
            return
        assert not got.endswith(END)


def test_a_stream_without_a_length_ends_with_its_connection(tmp_path: Path) -> None:
    """HTTP/1.0 style: RFC 9112 §6.3 lets the connection's end be the body's."""

    async def old_style(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event("one") + DONE)
        await writer.drain()
        writer.close()

    with providing(old_style) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        for _ in range(3):
            answer = gateway.post(STREAM)
            assert answer.text.endswith("data: [DONE]\n\n")


def test_a_mock_stream_has_its_words_its_gap_and_its_end(tmp_path: Path) -> None:
    with running(tmp_path, {"chat": spec("mock://local?tokens=5&gap=1ms")}) as gateway:
        text = gateway.post(STREAM).text
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events[-1] == "[DONE]"
        deltas = [json.loads(line)["choices"][0]["delta"] for line in events[:-1]]
        assert "".join(delta.get("content", "") for delta in deltas) == "This answer comes from a"
        with stream(gateway, STREAM) as connection:
            read_until(connection, b"This")
        wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the cancelled mock stream to be over")

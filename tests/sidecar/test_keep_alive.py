"""Signs of life in silent streams: only where asked, between whole events, and what they mean for failures."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import (
    DONE,
    END,
    STREAM_HEAD,
    Behaviour,
    Provider,
    ProviderRequest,
    chunk,
    completion,
    event,
    plain,
    providing,
    response,
)
from tests.sidecar.test_streams import read_to_end, read_until
from tests.waiting import wait_until

pytestmark = pytest.mark.server
COMMENT = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
SOON = {"after": "100ms", "every": "100ms"}


class Slow:
    """A provider's behaviour that waits between its pieces until the test says go."""

    def __init__(self, *pieces: bytes, closes: bool = False) -> None:
        self.pieces = pieces
        self.closes = closes
        self.go = threading.Semaphore(0)

    async def __call__(self, _: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        for piece in self.pieces:
            if piece:
                writer.write(piece)
                await writer.drain()
            else:
                await asyncio.to_thread(self.go.acquire, timeout=20)
        if self.closes:
            writer.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """The slow one."""
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def spare() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, spare: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    patient = {"breaker": {"maxFailures": 1000}}
    chat = spec(
        provider.url,
        upstreams=[
            upstream("slow", provider.url, **patient),
            upstream("quick", spare.url),
            upstream("down", "http://127.0.0.1:1", **patient),
        ],
        models=[
            {"name": "kept", "targets": [{"upstream": "slow"}], "fallbacks": ["spare"], "keepAlive": SOON},
            {"name": "late", "targets": [{"upstream": "down"}], "fallbacks": ["unkept"], "keepAlive": SOON},
            {"name": "unkept", "targets": [{"upstream": "slow"}]},
            {"name": "spare", "targets": [{"upstream": "quick"}]},
        ],
    )
    with running(tmp_path_factory.mktemp("gateway"), {"chat": chat}) as gateway:
        yield gateway


@pytest.fixture
def behaves(provider: Provider) -> Iterator[Any]:
    """Says what the slow provider does in this test."""

    def behaves(behaviour: Behaviour) -> Behaviour:
        provider.behaviour = behaviour
        return behaviour

    yield behaves
    provider.behaviour = plain


def called(gateway: GatewayProcess, model: str = "kept", path: str = "/v1/chat/completions") -> socket.socket:
    """A connection on which a streamed call was sent, which is to be the last."""
    data = json.dumps({"model": model, "messages": [], "stream": True}).encode()
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n"
    connection.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def body_of(connection: socket.socket, got: bytes) -> bytes:
    """The body of a chunked answer of which `got` has come."""
    body, rest = b"", (got + read_to_end(connection)).partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def request_id_of(head: bytes) -> str:
    return head.lower().partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()


def words(body: bytes) -> str:
    """What a client reads: comments and pings are no content."""
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if "choices" in event)


def breaker(gateway: GatewayProcess) -> int:
    return int(gateway.get("/v1/circuit-breakers").json()["circuit_breakers"][0]["consecutive_failures"])


def test_a_silent_stream_is_begun_and_kept_alive_before_its_content_and_between_its_pieces(
    gateway: GatewayProcess, behaves: Any
) -> None:
    slow = behaves(Slow(b"", STREAM_HEAD + chunk(event("one ")), b"", chunk(event("two")) + chunk(DONE) + END))
    with called(gateway) as connection:
        head = read_until(connection, b"\r\n\r\n").lower()
        assert head.startswith(b"http/1.1 200 ")
        for line in (
            b"content-type: text/event-stream; charset=utf-8",
            b"cache-control: no-cache",
            b"transfer-encoding: chunked",
            b"x-llmroute-origin: gateway",
            b"x-llmroute-upstream: slow",
            b"x-llmroute-attempts: 1",
        ):
            assert b"\r\n" + line + b"\r\n" in head
        read_until(connection, COMMENT)
        read_until(connection, COMMENT)
        slow.go.release()
        read_until(connection, b"one ")
        read_until(connection, COMMENT)
        slow.go.release()
        rest = read_to_end(connection)
        assert b"two" in rest
        assert rest.endswith(b"data: [DONE]\n\n\r\n" + END)


def test_a_stream_that_speaks_in_time_is_handed_on_as_it_is(gateway: GatewayProcess, provider: Provider) -> None:
    answer = gateway.post({"model": "kept", "stream": True})
    assert (answer.headers["x-llmroute-origin"], answer.headers["content-type"]) == ("upstream", "text/event-stream")
    assert words(answer.content) == "one two three"
    assert b"keep-alive" not in answer.content


@pytest.mark.parametrize(("model", "streamed"), [("unkept", True), ("kept", False)])
def test_nothing_is_sent_where_it_was_not_asked_for_nor_in_a_plain_answer(
    gateway: GatewayProcess, behaves: Any, model: str, streamed: bool
) -> None:
    async def late(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)  # four times what another model would be kept alive after
        await plain(request, writer)

    behaves(late)
    answer = gateway.post({"model": model, "stream": streamed})
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert b"keep-alive" not in answer.content
    assert (words(answer.content) if streamed else answer.json()["choices"][0]["message"]["content"]) in (
        "one two three",
        "hello",
    )


def test_signs_of_life_come_between_whole_events_only(gateway: GatewayProcess, behaves: Any) -> None:
    two = event("two")
    slow = behaves(Slow(STREAM_HEAD + chunk(event("one ") + two[:30]), b"", chunk(two[30:]) + chunk(DONE) + END))
    with called(gateway) as connection:
        head = read_until(connection, COMMENT)
        slow.go.release()
        body = body_of(connection, head)
        assert words(body) == "one two"
        assert set(body.split(b"\n\n")) == {part.strip() for part in (event("one "), COMMENT, two, DONE)} | {b""}


def test_an_event_too_large_to_hold_back_is_not_broken_into(gateway: GatewayProcess, behaves: Any) -> None:
    large = event("x" * 200_000)
    slow = behaves(
        Slow(STREAM_HEAD + chunk(event("one ")) + chunk(large[:-9]), b"", chunk(large[-9:]) + chunk(DONE) + END)
    )
    with called(gateway) as connection:
        got = read_until_size(connection, 200_000)
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)  # silent for five times as long as a sign of life would take
        connection.settimeout(20)
        slow.go.release()
        body = body_of(connection, got)
        assert words(body) == "one " + "x" * 200_000
        assert COMMENT not in body


def read_until_size(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += connection.recv(1 << 20)
    return got


FAILURES: dict[str, Slow] = {
    "closes": Slow(b"", b"HTTP/1.1 200", closes=True),
    "answers 500": Slow(b"", response(500, b"{}")),
    "is malformed": Slow(b"", STREAM_HEAD + b"zz\r\n", closes=True),
    "answers with an error event": Slow(b"", STREAM_HEAD + chunk(b'data: {"error": {"message": "x"}}\n\n') + END),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_fails_once_the_stream_is_begun_is_told_in_it_and_no_other_is_tried(
    gateway: GatewayProcess, spare: Provider, behaves: Any, failure: str
) -> None:
    assert gateway.post({"model": "unkept"}).status_code == 200
    asked, truncated = len(spare.requests), gateway.metric("llmroute_streams_truncated_total")
    behaves(FAILURES[failure])
    with called(gateway) as connection:
        begun = read_until(connection, COMMENT)
        FAILURES[failure].go.release()
        body = body_of(connection, begun)
    told = json.loads(body.replace(COMMENT, b"").removeprefix(b"data: "))
    assert told["error"]["code"] == "upstream_failed"
    assert len(spare.requests) == asked
    assert breaker(gateway) == 1
    assert gateway.metric("llmroute_streams_truncated_total") == truncated + 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(400, b'{"error": {"message": "your\\nfault", "code": "bad_thing"}}'), "your\nfault"),
        (response(422, b"<html>"), "the upstream broke off before the answer was complete"),
        (response(200, completion()), "the upstream broke off before the answer was complete"),
    ],
    ids=["a mistake", "not JSON", "no stream"],
)
def test_an_answer_that_is_no_stream_is_told_as_an_error_in_the_one_that_is_begun(
    gateway: GatewayProcess, behaves: Any, answer: bytes, message: str
) -> None:
    slow = behaves(Slow(b"", answer))
    assert gateway.post({"model": "spare"}).status_code == 200
    with called(gateway) as connection:
        begun = read_until(connection, COMMENT)
        slow.go.release()
        body = body_of(connection, begun).replace(COMMENT, b"")
    assert json.loads(body.removeprefix(b"data: "))["error"]["message"] == message
    assert body.count(b"\n\n") == 1
    line = gateway.request_line(request_id_of(begun))
    assert (line["status"], line["tried"]) == (200, ["slow: not_a_stream"])


def test_anthropics_sign_of_life_is_its_ping(gateway: GatewayProcess, behaves: Any) -> None:
    begun = b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'
    slow = behaves(Slow(b"", STREAM_HEAD + chunk(begun), b"", closes=True))
    with called(gateway, path="/v1/messages") as connection:
        read_until(connection, PING)
        slow.go.release()
        read_until(connection, begun)
        read_until(connection, PING)
        slow.go.release()
        rest = read_to_end(connection)
        assert b'event: error\ndata: {"type":"error","error":{"type":"api_error"' in rest


def test_the_time_runs_from_the_calls_begin_and_fallbacks_before_it_are_free(
    gateway: GatewayProcess, behaves: Any
) -> None:
    slow = behaves(Slow(b"", STREAM_HEAD + chunk(event("one")) + chunk(DONE) + END))
    with called(gateway, "late") as connection:
        head = read_until(connection, b"\r\n\r\n")
        assert b"\r\nx-fallback-model: unkept\r\n" in head
        assert b"\r\nx-llmroute-upstream: slow\r\nx-llmroute-attempts: 2\r\n" in head
        slow.go.release()
        read_until(connection, b"[DONE]")
    wait_until(
        lambda: gateway.metric("gateway_fallback_used_total", from_model="late", to_model="unkept") == 1,
        "the fallback to be counted",
    )


def test_a_client_that_leaves_a_stream_kept_alive_cancels_the_upstream_call(
    gateway: GatewayProcess, provider: Provider, behaves: Any
) -> None:
    async def silent(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the tests before to be over")
    behaves(silent)
    with called(gateway) as connection:
        read_until(connection, COMMENT)
        open_before = provider.open
    wait_until(lambda: provider.open < open_before, "the provider's connection to be closed")
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "nothing to be in flight")


def test_the_openai_sdk_reads_through_signs_of_life(gateway: GatewayProcess, behaves: Any, tmp_path: Path) -> None:
    slow = behaves(Slow(b"", STREAM_HEAD + chunk(event("one ")), b"", chunk(event("two")) + chunk(DONE) + END))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = client.chat.completions.create(model="kept", messages=[], stream=True)
        said = []
        slow.go.release()
        for part in stream:
            said.append(part.choices[0].delta.content)
            threading.Timer(0.3, slow.go.release).start()
        assert said == ["one ", "two"]

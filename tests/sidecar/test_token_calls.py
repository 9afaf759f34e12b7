"""Limits on tokens over sockets: what each kind of answer is settled by, and what clients see of it."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import (
    DONE,
    END,
    STREAM_HEAD,
    Behaviour,
    Provider,
    ProviderRequest,
    answers,
    chunk,
    closes_after,
    event,
    plain,
    providing,
    response,
)
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.server
LIMIT = 100_000
USAGE = {"prompt_tokens": 700, "completion_tokens": 300, "total_tokens": 1000}
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One limit for each test's model, so that none sees another's tokens."""
    chat = spec(
        provider.url,
        upstreams=[
            upstream("provider", provider.url),
            upstream("anthropic", provider.url, protocol="Anthropic"),
        ],
        models=[
            {"name": "m-*", "targets": [{"upstream": "provider"}]},
            {
                "name": "kept-*",
                "targets": [{"upstream": "provider"}],
                "keepAlive": {"after": "100ms", "every": "1h"},
            },
            {"name": "claude-*", "targets": [{"upstream": "anthropic"}]},
        ],
        limits=[{"name": "tokens", "per": "Model", "tokens": LIMIT, "window": "1h"}],
    )
    with running(tmp_path_factory.mktemp("gateway"), {"chat": chat}) as gateway:
        yield gateway


def used(gateway: GatewayProcess, model: str) -> int:
    """Tokens that count for the model by now: a call that fits says what is left beside its own reservation."""
    provider_free = gateway.post({"model": model, "messages": [], "max_tokens": 1}, headers={"x-probe": "1"})
    assert provider_free.status_code in (200, 400), provider_free.text
    own = LIMIT - int(provider_free.headers["x-ratelimit-remaining-tokens"])
    return own - len(json.dumps({"model": model, "messages": [], "max_tokens": 1})) // 4 - 1


def probed(behaviour: Behaviour) -> Behaviour:
    """As `behaviour`, but probes are refused like a client's mistake, which costs nothing."""

    async def either(request: ProviderRequest, writer: Any) -> None:
        refused = response(400, b'{"error": {"message": "probe"}}')
        await (answers(refused) if "x-probe" in request.headers else behaviour)(request, writer)

    return either


def stream(*events: bytes) -> bytes:
    return STREAM_HEAD + b"".join(chunk(each) for each in events) + END


def sse(document: dict[str, Any]) -> bytes:
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


USAGE_CHUNK = (
    b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}).encode() + b"\n\n"
)


@pytest.mark.parametrize(
    ("path", "model", "answer"),
    [
        ("/v1/chat/completions", "m-chat", {"choices": [], "usage": USAGE}),
        ("/v1/completions", "m-text", {"choices": [], "usage": USAGE}),
        ("/v1/embeddings", "m-vector", {"data": [], "usage": {"prompt_tokens": 1000, "total_tokens": 1000}}),
        ("/v1/responses", "m-answer", {"usage": {"input_tokens": 700, "output_tokens": 300, "total_tokens": 1000}}),
        (
            "/v1/messages",
            "claude-plain",
            {"usage": {"input_tokens": 600, "cache_read_input_tokens": 100, "output_tokens": 300}},
        ),
    ],
)
def test_a_plain_answer_is_settled_by_its_usage(
    gateway: GatewayProcess, provider: Provider, path: str, model: str, answer: dict[str, Any]
) -> None:
    provider.behaviour = probed(answers(response(200, json.dumps(answer).encode())))
    for calls in (1, 2):
        assert gateway.post({"model": model, **HELLO}, path).json() == answer
        assert used(gateway, model) == 1000 * calls


@pytest.mark.parametrize(
    ("path", "model", "events"),
    [
        ("/v1/chat/completions", "m-chat-stream", [event("one"), USAGE_CHUNK, DONE]),
        ("/v1/completions", "m-text-stream", [event("one"), USAGE_CHUNK, DONE]),
        (
            "/v1/responses",
            "m-answer-stream",
            [
                sse({"type": "response.created", "response": {}}),
                sse({"type": "response.output_text.delta", "delta": "one"}),
                sse({"type": "response.completed", "response": {"usage": {"input_tokens": 700, "output_tokens": 300}}}),
            ],
        ),
        (
            "/v1/messages",
            "claude-stream",
            [
                sse({"type": "message_start", "message": {"usage": {"input_tokens": 700, "output_tokens": 1}}}),
                sse({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "one"}}),
                sse({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 300}}),
                sse({"type": "message_stop"}),
            ],
        ),
    ],
)
def test_a_stream_is_settled_by_its_usage(
    gateway: GatewayProcess, provider: Provider, path: str, model: str, events: list[bytes]
) -> None:
    estimated = gateway.metric("llmroute_usage_estimated_total")
    provider.behaviour = probed(answers(stream(*events)))
    answer = gateway.post({"model": model, "stream": True, **HELLO}, path)
    assert answer.content == b"".join(each for each in events if each != USAGE_CHUNK)
    assert used(gateway, model) == 1000
    assert gateway.metric("llmroute_usage_estimated_total") == estimated


@pytest.mark.parametrize("slowly", [False, True])
def test_usage_is_asked_for_in_the_clients_stead_and_kept_from_it(
    gateway: GatewayProcess, provider: Provider, slowly: bool
) -> None:
    async def behaviour(_: ProviderRequest, writer: Any) -> None:
        writer.write(STREAM_HEAD + chunk(event("one")))
        if slowly:  # the client has the first piece before the next one comes
            await writer.drain()
        writer.write(chunk(event("two")) + chunk(USAGE_CHUNK + DONE) + END)

    provider.behaviour = behaviour
    body = {"model": "m-hidden", "stream": True, "stream_options": {"include_obfuscation": False}, **HELLO}
    answer = gateway.post(body)
    assert provider.requests[-1].json == {
        **body,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }
    assert answer.content == event("one") + event("two") + DONE


def test_a_client_that_asks_for_usage_gets_it_and_its_body_goes_on_as_it_is(
    gateway: GatewayProcess, provider: Provider
) -> None:
    provider.behaviour = answers(stream(event("one"), USAGE_CHUNK, DONE))
    body = json.dumps({"model": "m-asked", "stream": True, "stream_options": {"include_usage": True}, **HELLO}).encode()
    answer = gateway.post(body)
    assert provider.requests[-1].body == body
    assert answer.content == event("one") + USAGE_CHUNK + DONE


def test_other_protocols_and_plain_calls_are_not_asked(gateway: GatewayProcess, provider: Provider) -> None:
    provider.behaviour = plain
    for path, model, streamed in (
        ("/v1/messages", "claude-asked", True),
        ("/v1/responses", "m-responses", True),
        ("/v1/chat/completions", "m-plain", False),
    ):
        gateway.post({"model": model, "stream": streamed, **HELLO}, path)
        assert "stream_options" not in provider.requests[-1].json


def test_a_stream_that_its_upstream_cuts_is_settled_by_what_was_delivered(
    gateway: GatewayProcess, provider: Provider
) -> None:
    estimated = gateway.metric("llmroute_usage_estimated_total")
    provider.behaviour = probed(closes_after(STREAM_HEAD + chunk(event("x" * 4000)) + chunk(event("y" * 400))))
    body = {"model": "m-cut", "stream": True, **HELLO}
    answer = gateway.post(body)
    assert b"upstream_failed" in answer.content
    assert used(gateway, "m-cut") == 1100 + len(json.dumps(body)) // 4
    assert gateway.metric("llmroute_usage_estimated_total") == estimated + 1


def test_a_stream_that_its_client_leaves_is_settled_by_what_was_delivered(
    gateway: GatewayProcess, provider: Provider
) -> None:
    async def behaviour(_: ProviderRequest, writer: Any) -> None:
        writer.write(STREAM_HEAD + chunk(event("x" * 4000)))
        await wait_for_ever()

    provider.behaviour = probed(behaviour)
    body = json.dumps({"model": "m-left", "stream": True, **HELLO}).encode()
    leave_after(gateway, body, b"xxxx")
    wait_until(lambda: used(gateway, "m-left") == 1000 + len(body) // 4, "the call to be settled")


def test_a_client_that_leaves_before_the_first_token_has_used_its_prompt(
    gateway: GatewayProcess, provider: Provider
) -> None:
    async def behaviour(_: ProviderRequest, writer: Any) -> None:
        await wait_for_ever()

    provider.behaviour = probed(behaviour)
    before = len(provider.requests)
    body = json.dumps({"model": "m-gone", "stream": True, **HELLO}).encode()
    with connection(gateway, body):
        wait_until(lambda: len(provider.requests) > before, "the call to reach the provider")
        assert used(gateway, "m-gone") == 50 + len(body) // 4  # reserved
    wait_until(lambda: used(gateway, "m-gone") == len(body) // 4, "the call to be settled")


@pytest.mark.parametrize("status", [400, 500])
def test_a_call_that_failed_gets_back_what_was_reserved(
    gateway: GatewayProcess, provider: Provider, status: int
) -> None:
    provider.behaviour = probed(answers(response(status, b'{"error": {"message": "no"}}')))
    assert gateway.post({"model": f"m-failed-{status}", **HELLO}).status_code == (400 if status == 400 else 502)
    assert used(gateway, f"m-failed-{status}") == 0


def test_an_answer_without_usage_is_estimated_and_says_so(gateway: GatewayProcess, provider: Provider) -> None:
    estimated = gateway.metric("llmroute_usage_estimated_total")
    provider.behaviour = probed(answers(response(200, b'{"text": "' + b"x" * 4000 + b'"}')))
    body = {"model": "m-silent", **HELLO}
    gateway.post(body)
    assert 1000 <= used(gateway, "m-silent") - len(json.dumps(body)) // 4 <= 1010
    assert gateway.metric("llmroute_usage_estimated_total") == estimated + 1


def test_a_used_up_limit_refuses_and_says_which(gateway: GatewayProcess, provider: Provider) -> None:
    usage = {"prompt_tokens": 99_000, "completion_tokens": 995, "total_tokens": 99_995}
    provider.behaviour = answers(response(200, json.dumps({"choices": [], "usage": usage}).encode()))
    first = gateway.post({"model": "m-used-up", **HELLO})
    assert first.headers["x-ratelimit-limit-tokens"] == str(LIMIT)
    assert 99_000 < int(first.headers["x-ratelimit-remaining-tokens"]) < LIMIT
    assert first.headers["x-ratelimit-reset-tokens"] == "1h0m0s"
    seen = len(provider.requests)
    refused = gateway.post({"model": "m-used-up", **HELLO})
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "tokens"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    message = "the limit 'tokens' of 100000 tokens has 5 left, too few for this request; try again in "
    assert refused.json()["error"]["message"].startswith(message)
    assert refused.headers["x-llmroute-limit"] == "tokens"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "5"
    assert 3590 <= int(refused.headers["retry-after"]) <= 3600
    assert "x-ratelimit-limit-requests" not in refused.headers
    assert len(provider.requests) == seen
    assert gateway.post({"model": "m-other", **HELLO}).status_code == 200
    assert gateway.metric("llmroute_limit_remaining", route="chat", limit="tokens", kind="tokens") <= 5


def test_a_large_plain_answer_is_read_at_its_end(gateway: GatewayProcess, provider: Provider) -> None:
    usage = {"prompt_tokens": 1000, "total_tokens": 1000}
    body = json.dumps({"data": [0.123456789] * 300_000, "usage": usage}).encode()
    provider.behaviour = probed(answers(response(200, body)))
    assert gateway.post({"model": "m-large", "input": "x"}, "/v1/embeddings").content == body
    assert used(gateway, "m-large") == 1000


@pytest.mark.parametrize(
    ("model", "late", "tokens"),
    [
        ("kept-served", stream(event("one"), USAGE_CHUNK, DONE), 1000),
        ("kept-refused", response(400, b'{"error": {"message": "no"}}'), 0),
    ],
)
def test_a_stream_that_was_kept_alive_is_settled_too(
    gateway: GatewayProcess, provider: Provider, model: str, late: bytes, tokens: int
) -> None:
    alive = asyncio.Event()

    async def behaviour(_: ProviderRequest, writer: Any) -> None:
        await alive.wait()
        writer.write(late)

    provider.behaviour = probed(behaviour)
    with connection(gateway, json.dumps({"model": model, "stream": True, **HELLO}).encode()) as client:
        received = receive_until(client, b": keep-alive")
        provider.call(alive.set)
        received += receive_until(client, b"0\r\n\r\n")
    assert b'"usage"' not in received
    assert (b"[DONE]" in received) is (tokens > 0)
    assert used(gateway, model) == tokens


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def connection(gateway: GatewayProcess, body: bytes) -> socket.socket:
    """A client that has sent its request."""
    client = socket.create_connection(("127.0.0.1", gateway.port), timeout=HANGS_AFTER)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-length: {len(body)}"
    )
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    return client


def leave_after(gateway: GatewayProcess, body: bytes, seen: bytes) -> None:
    """Sends a request and closes once `seen` has come."""
    with connection(gateway, body) as client:
        receive_until(client, seen)


def receive_until(client: socket.socket, seen: bytes) -> bytes:
    received = b""
    while seen not in received:
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received

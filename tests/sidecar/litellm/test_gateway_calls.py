"""Calls through the gateway and a worker to a real server: answers, models, the error table, fallbacks, departures."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.gateway_process import KEY, GatewayProcess
from tests.provider import STREAM_HEAD, Behaviour, Provider, ProviderRequest, chunk, event
from tests.sidecar.litellm.direct import events_of, text_of
from tests.sidecar.litellm.providers import anthropic_events, any_provider, cut_after, fails, says
from tests.sidecar.litellm.routes import CREDENTIALS, URLS
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.server
NAMES = sorted(URLS)


def hello(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


def first_then(first: Behaviour, path: str) -> Behaviour:
    """`first` for calls to `path`, the ordinary answer for the others."""

    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        await (first if path in request.path else any_provider)(request, writer)

    return behaviour


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_goes_through(gateway: GatewayProcess, provider: Provider, name: str) -> None:
    answer = gateway.post(hello(name))
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.headers["x-llmroute-origin"] == "upstream"
    seen = provider.requests[-1]
    assert CREDENTIALS[name] in str(seen.headers)
    assert seen.headers["x-request-id"] == answer.headers["x-request-id"]
    assert KEY not in str(seen.headers)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_goes_through(gateway: GatewayProcess, provider: Provider, name: str) -> None:
    answer = gateway.post(hello(name, stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert text_of(events_of(answer.content)) == "one two three"
    assert answer.content.endswith(b"data: [DONE]\n\n")


def test_openais_sdk_is_served(gateway: GatewayProcess, provider: Provider) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        for name in NAMES:
            chat = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hello"}])
            assert chat.choices[0].message.content
            stream = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "hello"}], stream=True
            )
            assert "".join(part.choices[0].delta.content or "" for part in stream if part.choices) == "one two three"
        assert client.embeddings.create(model="gemini", input="hello").data[0].embedding == [0.5, -0.25]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("openai", "gpt-test"),
        ("renamed", "gpt-other"),
        ("any-thing", "gpt-test"),
        ("what-no-entry-names", "claude-test"),
    ],
)
def test_the_model_is_the_targets_or_else_the_urls(
    gateway: GatewayProcess, provider: Provider, asked: str, sent: str
) -> None:
    assert gateway.post(hello(asked)).status_code == 200
    assert provider.requests[-1].json["model"] == sent


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_the_clients_mistake_goes_back_to_it(gateway: GatewayProcess, provider: Provider, status: int) -> None:
    provider.behaviour = fails(status, "messages.0: what a strange role")
    answer = gateway.post(hello("openai"))
    assert answer.status_code == status
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert "what a strange role" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "credential_refused"), (403, "credential_refused"), (500, "server_error"), (503, "server_error")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_other_failures_are_told_as_an_attempt(
    gateway: GatewayProcess, provider: Provider, status: int, reason: str, stream: bool
) -> None:
    provider.behaviour = fails(status, f"no, {CREDENTIALS['openai']}")
    answer = gateway.post(hello("openai", stream=stream))
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert error["attempts"] == [{"model": "openai", "upstream": "openai", "reason": reason, "status": status}]
    assert CREDENTIALS["openai"] not in answer.text


def test_a_pause_that_a_provider_asks_for_is_kept(gateway: GatewayProcess, provider: Provider) -> None:
    provider.behaviour = fails(429, "slow down", "retry-after-ms: 1")
    answer = gateway.post(hello("gemini"))
    attempts = answer.json()["error"]["attempts"]
    assert [(attempt["reason"], attempt["status"]) for attempt in attempts] == [("throttled", 429)]
    provider.behaviour = any_provider
    wait_until(lambda: gateway.post(hello("gemini")).status_code == 200, "the rest to be over")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_failure_falls_back_to_another_upstream(
    gateway: GatewayProcess, provider: Provider, status: int, stream: bool
) -> None:
    provider.behaviour = first_then(fails(status, "no", "retry-after-ms: 1"), "/messages")
    answer = gateway.post(hello("chained", stream=stream))
    assert answer.status_code == 200
    assert answer.headers["x-fallback-model"] == "openai"


@pytest.mark.parametrize("in_good_order", [False, True])
def test_a_stream_cut_before_its_first_word_falls_back(
    gateway: GatewayProcess, provider: Provider, in_good_order: bool
) -> None:
    cut = cut_after(anthropic_events()[:2], in_good_order=in_good_order)
    provider.behaviour = first_then(cut, "/messages")
    answer = gateway.post(hello("chained", stream=True))
    assert answer.headers["x-fallback-model"] == "openai"
    assert text_of(events_of(answer.content)) == "one two three"


@pytest.mark.parametrize("in_good_order", [False, True])
def test_a_stream_cut_after_it_ends_with_an_error_event(
    gateway: GatewayProcess, provider: Provider, in_good_order: bool
) -> None:
    cut = cut_after(anthropic_events()[:4], in_good_order=in_good_order)
    provider.behaviour = first_then(cut, "/messages")
    answer = gateway.post(hello("chained", stream=True))
    *chunks, last = events_of(answer.content)
    assert text_of(chunks) == "one two "
    assert "error" in last
    assert b"[DONE]" not in answer.content


def test_a_slow_client_holds_back_the_provider_not_memory(gateway: GatewayProcess, provider: Provider) -> None:
    sent = 0
    big = chunk(event("x" * 65536))
    assert gateway.post(hello("openai")).status_code == 200
    (worker,) = [one for one in gateway.status()["litellm_workers"] if one["upstream"] == "openai"]

    async def firehose(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM_HEAD + chunk(event("one")))
        for _number in range(1600):  # 100 MiB
            writer.write(big)
            await writer.drain()
            sent += len(big)

    last = -1

    def held_back(_: socket.socket) -> None:
        def still() -> bool:
            nonlocal last
            last, now = sent, last
            return now == sent and sent > 0

        wait_until(still, "the provider to be held back", every=0.3)

    before = gateway.memory_kib()
    provider.behaviour = firehose
    _leave(gateway, hello("openai", stream=True), held_back)
    assert sent < 40 * 1024 * 1024
    assert gateway.memory_kib() - before < 16 * 1024
    (after,) = [one for one in gateway.status()["litellm_workers"] if one["upstream"] == "openai"]
    assert after["resident_bytes"] - worker["resident_bytes"] < 64 * 1024 * 1024


class Held:
    """A provider that begins an answer, or not, and then waits: counts who came and who left."""

    def __init__(self, begin: Behaviour) -> None:
        self._begin = begin
        self.came = self.left = 0

    async def __call__(self, request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        try:
            await self._begin(request, writer)
        except asyncio.CancelledError:
            self.left += 1
            raise


async def _silence(_: ProviderRequest, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_waiting_ends_the_providers_call(
    gateway: GatewayProcess, provider: Provider, name: str, stream: bool
) -> None:
    held = provider.behaviour = Held(_silence)
    _leave(gateway, hello(name, stream=stream), lambda _: wait_until(lambda: held.came == 1, "the call to arrive"))
    wait_until(lambda: held.left == 1, "the provider to be left")
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the call to be over")
    provider.behaviour = any_provider
    assert gateway.post(hello(name)).status_code == 200


def test_a_client_that_leaves_a_stream_ends_the_providers_call(gateway: GatewayProcess, provider: Provider) -> None:
    held = provider.behaviour = Held(says(anthropic_events()[:3]))
    _leave(gateway, hello("anthropic", stream=True), lambda connection: connection.recv(1))
    wait_until(lambda: held.left == 1, "the provider to be left")
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the call to be over")


def _leave(gateway: GatewayProcess, body: dict[str, Any], when: Callable[[socket.socket], object]) -> None:
    """Makes a call, has `when` say when it is time, and closes the connection."""
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=HANGS_AFTER) as connection:
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        when(connection)

"""The official `anthropic` client against the real gateway, with nothing but ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
set: `/v1/messages` plain and streamed, its typed errors, a stream that breaks off, signs of life.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import END, STREAM_HEAD, Provider, ProviderRequest, chunk, providing, response

pytestmark = pytest.mark.server
PROVIDER_KEY = "sk-ant-of-the-provider"
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 2},
}


def told(kind: str, **more: Any) -> bytes:
    """One event of Anthropic's streams."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def delta(text: str) -> bytes:
    return told("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


BEGINNING = told("message_start", message={**MESSAGE, "content": [], "stop_reason": None}) + told(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
ENDING = (
    told("content_block_stop", index=0)
    + told("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 2})
    + told("message_stop")
)

TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bonn"}}
TOOL_MESSAGE = {**MESSAGE, "content": [TOOL_USE], "stop_reason": "tool_use"}
TOOL_EVENTS = (
    told("message_start", message={**MESSAGE, "content": [], "stop_reason": None})
    + told("content_block_start", index=0, content_block={**TOOL_USE, "input": {}})
    + told("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"city": '})
    + told("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '"Bonn"}'})
    + told("content_block_stop", index=0)
    + told("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 12})
    + told("message_stop")
)
TOOL: anthropic.types.ToolParam = {
    "name": "weather",
    "description": "Tells it",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Thinking:
    """Lets the provider's slow answer go on."""

    def __init__(self) -> None:
        self.done = threading.Event()


@pytest.fixture(scope="module")
def thinking() -> Thinking:
    return Thinking()


@pytest.fixture(scope="module")
def provider(thinking: Thinking) -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        name = request.path.split("/")[1]
        if name == "broken":
            writer.write(response(529, b'{"type":"error","error":{"type":"overloaded_error","message":"secret"}}'))
        elif name == "mistaken":
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too large"}}
            writer.write(response(400, json.dumps(error).encode()))
        elif name == "cut":
            writer.write(STREAM_HEAD + chunk(BEGINNING + delta("hel")))
            await writer.drain()
            writer.close()
        elif request.json.get("tools") and "tool_result" not in request.body.decode():
            if request.json.get("stream"):
                writer.write(STREAM_HEAD + chunk(TOOL_EVENTS) + END)
            else:
                writer.write(response(200, json.dumps(TOOL_MESSAGE).encode()))
        elif request.json.get("stream"):
            if name == "slow":
                writer.write(STREAM_HEAD + chunk(BEGINNING))
                await writer.drain()
                await asyncio.to_thread(thinking.done.wait, 20)
                writer.write(chunk(delta("hel") + delta("lo") + ENDING) + END)
            else:
                writer.write(STREAM_HEAD + chunk(BEGINNING) + chunk(delta("hel")) + chunk(delta("lo") + ENDING) + END)
        else:
            writer.write(response(200, json.dumps(MESSAGE).encode(), "request-id: req_provider"))

    with providing(behaviour) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    names = ["good", "broken", "mistaken", "cut", "slow"]
    credential = {"secretRef": {"name": "clients", "key": "provider"}}
    route = spec(
        provider.url,
        upstreams=[
            upstream(
                name,
                f"{provider.url}/{name}/v1",
                protocol="Anthropic",
                credential=credential,
                breaker={"maxFailures": 100},
            )
            for name in names
        ],
        models=[
            *({"name": name, "targets": [{"upstream": name}]} for name in names if name != "slow"),
            {"name": "slow", "targets": [{"upstream": "slow"}], "keepAlive": {"after": "1s", "every": "1s"}},
            {"name": "falls", "targets": [{"upstream": "broken"}], "fallbacks": ["good"]},
        ],
        limits=[{"name": "tokens", "per": "Client", "tokens": 1_000_000}],
    )
    route["auth"]["clients"] = [{"name": "narrow", "models": ["good"]}]
    keys = {"narrow": "key-narrow", "provider": PROVIDER_KEY}
    with running(tmp_path_factory.mktemp("gateway"), {"chat": route}, keys=keys) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def environment(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", gateway.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


@pytest.fixture
def client(environment: None) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(max_retries=0) as client:
        yield client


def ask(client: anthropic.Anthropic, model: str) -> str:
    answer = client.messages.create(model=model, max_tokens=10, messages=[{"role": "user", "content": "hi"}])
    block = answer.content[0]
    assert block.type == "text"
    return block.text


def stream(client: anthropic.Anthropic, model: str) -> Iterator[str]:
    with client.messages.stream(model=model, max_tokens=10, messages=[{"role": "user", "content": "hi"}]) as answer:
        yield from answer.text_stream


def test_a_message_is_answered_with_the_gateways_own_credential(
    client: anthropic.Anthropic, provider: Provider
) -> None:
    assert ask(client, "good") == "hello"
    request = provider.requests[-1]
    assert (request.path, request.headers["x-api-key"]) == ("/good/v1/messages", PROVIDER_KEY)
    assert request.headers["anthropic-version"]
    assert KEY not in str(request.headers)


def test_a_stream_comes_piece_by_piece_and_its_usage_is_counted(
    client: anthropic.Anthropic, gateway: GatewayProcess
) -> None:
    before = gateway.metric("llmroute_tokens_total", model="good", upstream="good", type="output", estimated="false")
    assert list(stream(client, "good")) == ["hel", "lo"]
    after = gateway.metric("llmroute_tokens_total", model="good", upstream="good", type="output", estimated="false")
    assert after - before == 2


def test_a_tool_is_used_and_its_result_is_sent_back(client: anthropic.Anthropic, provider: Provider) -> None:
    asked: list[Any] = [{"role": "user", "content": "the weather in Bonn?"}]
    answer = client.messages.create(model="good", max_tokens=50, messages=asked, tools=[TOOL])
    assert answer.stop_reason == "tool_use"
    (use,) = answer.content
    assert use.type == "tool_use"
    assert (use.name, use.input) == ("weather", {"city": "Bonn"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
    asked += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    again = client.messages.create(model="good", max_tokens=50, messages=asked, tools=[TOOL])
    assert again.content[0].type == "text"
    assert provider.requests[-1].json["tools"] == [TOOL]


def test_a_tools_input_comes_piece_by_piece(client: anthropic.Anthropic) -> None:
    asked: list[Any] = [{"role": "user", "content": "the weather in Bonn?"}]
    with client.messages.stream(model="good", max_tokens=50, messages=asked, tools=[TOOL]) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        (use,) = stream.get_final_message().content
    assert "".join(pieces) == '{"city": "Bonn"}'
    assert use.type == "tool_use"
    assert use.input == {"city": "Bonn"}


def test_an_overloaded_provider_is_fallen_back_from(client: anthropic.Anthropic) -> None:
    answer = client.messages.with_raw_response.create(
        model="falls", max_tokens=10, messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.headers["x-fallback-model"] == "good"


@pytest.mark.parametrize(
    ("model", "key", "error"),
    [
        ("good", "unknown", anthropic.AuthenticationError),
        ("falls", "key-narrow", anthropic.PermissionDeniedError),
        ("nowhere", KEY, anthropic.NotFoundError),
        ("mistaken", KEY, anthropic.BadRequestError),
        ("broken", KEY, anthropic.InternalServerError),
    ],
)
def test_refusals_are_the_sdks_own_errors(model: str, key: str, error: type[anthropic.APIStatusError]) -> None:
    with anthropic.Anthropic(api_key=key, max_retries=0) as client, pytest.raises(error) as caught:
        ask(client, model)
    assert caught.value.response.headers["x-request-id"]
    assert "secret" not in str(caught.value)


def test_a_stream_that_breaks_off_raises_in_the_sdk(client: anthropic.Anthropic) -> None:
    heard: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        heard.extend(stream(client, "cut"))
    assert heard == ["hel"]
    assert caught.value.body["error"]["type"] == "api_error"  # type: ignore[index]


def test_a_silent_stream_is_kept_alive_by_pings_that_the_sdk_understands(
    client: anthropic.Anthropic, thinking: Thinking
) -> None:
    kinds = []
    with client.messages.create(
        model="slow", max_tokens=10, messages=[{"role": "user", "content": "hi"}], stream=True
    ) as answer:
        for event in answer:
            kinds.append(event.type)
            thinking.done.set()  # heard while the provider has told no content: the stream was begun to keep it alive
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_delta") == 2

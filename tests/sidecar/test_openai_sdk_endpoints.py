"""The official `openai` client at every JSON endpoint, through the gateway to a provider that answers as OpenAI does:
what the SDK makes of an answer is the same as without the gateway."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam

from tests.gateway_process import KEY, GatewayProcess
from tests.provider import Provider, providing
from tests.sidecar import openai_answers
from tests.sidecar.openai_answers import CALL, VECTOR

pytestmark = pytest.mark.server
PARAMETERS: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it", "parameters": PARAMETERS},
}
RESPONSE_TOOL: FunctionToolParam = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing(openai_answers.openai) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with openai_answers.gateway_before(provider, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def direct(provider: Provider) -> Iterator[openai.OpenAI]:
    """Without the gateway between."""
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_a_tool_is_called_and_its_answer_is_sent_back(client: openai.OpenAI, provider: Provider) -> None:
    messages: list[Any] = [{"role": "user", "content": "the weather in Bonn?"}]
    answer = client.chat.completions.create(model="m", messages=messages, tools=[TOOL])
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == (CALL["name"], CALL["arguments"])
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    again = client.chat.completions.create(model="m", messages=messages, tools=[TOOL])
    assert again.choices[0].message.content == "hello"
    sent = provider.requests[-1].json
    assert (sent["model"], sent["tools"], sent["messages"][-1]["content"]) == ("m-at-provider", [TOOL], "rain")


def test_a_tools_arguments_come_piece_by_piece(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "hi"}], tools=[TOOL]
    ) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == CALL["arguments"]
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.arguments == CALL["arguments"]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_streams_usage_is_told_to_those_who_ask(client: openai.OpenAI, wanted: bool) -> None:
    """The gateway asks in any case, for the limit on tokens."""
    options: Any = {"stream_options": {"include_usage": True}} if wanted else {}
    parts = list(client.chat.completions.create(model="m", messages=[], stream=True, **options))
    assert [part.choices[0].delta.content for part in parts if part.choices] == ["", "hel", "lo", None]
    told = [part.usage.total_tokens for part in parts if part.usage]
    assert told == ([14] if wanted else [])


def test_a_response_is_given_plain(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="m", input="hi")
    assert answer.output_text == "hello"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14


@pytest.mark.parametrize("tool", [False, True])
def test_a_response_comes_event_by_event_as_without_the_gateway(
    client: openai.OpenAI, direct: openai.OpenAI, tool: bool
) -> None:
    def events(of: openai.OpenAI) -> list[Any]:
        more: Any = {"tools": [RESPONSE_TOOL]} if tool else {}
        with of.responses.stream(model="m", input="hi", **more) as stream:
            return [event.model_dump(warnings=False) for event in stream]

    assert events(client) == events(direct)
    assert events(client)[-1]["type"] == "response.completed"


def test_a_response_calls_a_tool_and_takes_its_answer(client: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "the weather in Bonn?"}]
    answer = client.responses.create(model="m", input=asked, tools=[RESPONSE_TOOL])
    (call,) = answer.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Bonn"}
    asked += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    assert client.responses.create(model="m", input=asked, tools=[RESPONSE_TOOL]).output_text == "hello"


def test_embeddings_come_as_the_sdk_asks_for_them(client: openai.OpenAI, provider: Provider) -> None:
    """It asks for base64 of its own and decodes it; floats come as floats."""
    assert [tuple(one.embedding) for one in client.embeddings.create(model="m", input=["a", "b"]).data] == [VECTOR] * 2
    assert provider.requests[-1].json["encoding_format"] == "base64"
    plain = client.embeddings.create(model="m", input="a", encoding_format="float")
    assert tuple(plain.data[0].embedding) == VECTOR
    raw: Any = client.embeddings.create(model="m", input="a", encoding_format="base64").data[0].embedding
    assert isinstance(raw, str)


def test_moderations_images_and_completions_go_through(client: openai.OpenAI, provider: Provider) -> None:
    assert client.moderations.create(model="m", input="hi").results[0].categories.violence
    images = client.images.generate(model="m", prompt="a hat").data or []
    assert images[0].b64_json == "aGVsbG8="
    assert client.completions.create(model="m", prompt="hi").choices[0].text == "hello"
    streamed = client.completions.create(model="m", prompt="hi", stream=True)
    assert [part.choices[0].text for part in streamed if part.choices] == ["hello"]
    paths = [request.path for request in provider.requests[-4:]]
    assert paths == ["/v1/moderations", "/v1/images/generations", "/v1/completions", "/v1/completions"]
    assert {request.json["model"] for request in provider.requests[-4:]} == {"m-at-provider"}


def test_the_models_that_are_listed_are_the_ones_that_may_be_asked(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object) == ("m", "model")
    assert client.chat.completions.create(model=model.id, messages=[]).choices[0].message.content == "hello"

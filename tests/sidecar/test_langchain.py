"""`langchain-openai` against the real gateway, with nothing but OPENAI_BASE_URL and OPENAI_API_KEY set."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.gateway_process import KEY, GatewayProcess
from tests.provider import Provider, providing
from tests.sidecar import openai_answers
from tests.sidecar.openai_answers import VECTOR

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langchain_core"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing(openai_answers.openai) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with openai_answers.gateway_before(provider, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def environment(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{gateway.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"rain in {city}"


def test_a_chat_is_answered_and_tells_its_usage() -> None:
    answer = ChatOpenAI(model="m").invoke("hi")
    assert answer.content == "hello"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 14


def test_a_chat_comes_piece_by_piece_with_its_usage_at_the_end() -> None:
    pieces = list(ChatOpenAI(model="m", stream_usage=True).stream("hi"))
    assert "".join(str(piece.content) for piece in pieces) == "hello"
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert isinstance(whole, AIMessageChunk)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] == 14


def test_many_at_once_over_its_async_client() -> None:
    async def calls() -> list[object]:
        answers = await ChatOpenAI(model="m").abatch([f"hi {number}" for number in range(20)])
        return [answer.content for answer in answers]

    assert asyncio.run(calls()) == ["hello"] * 20


def test_an_agents_turn_calls_a_tool_and_sends_its_answer_back(provider: Provider) -> None:
    model = ChatOpenAI(model="m").bind_tools([weather])
    asked = HumanMessage("the weather in Bonn?")
    answer = model.invoke([asked])
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Bonn"})
    told = weather.invoke(call)
    assert isinstance(told, ToolMessage)
    assert model.invoke([asked, answer, told]).content == "hello"
    assert provider.requests[-1].json["messages"][-1]["content"] == "rain in Bonn"


def test_a_tool_is_called_in_a_stream() -> None:
    whole: AIMessageChunk | None = None
    for piece in ChatOpenAI(model="m").bind_tools([weather]).stream("the weather in Bonn?"):
        assert isinstance(piece, AIMessageChunk)
        whole = piece if whole is None else whole + piece
    assert whole is not None
    assert whole.tool_calls[0]["args"] == {"city": "Bonn"}


def test_it_may_speak_responses_instead(provider: Provider) -> None:
    model = ChatOpenAI(model="m", use_responses_api=True)
    assert model.invoke("hi").text == "hello"
    assert "".join(piece.text for piece in model.stream("hi")) == "hello"
    assert provider.requests[-1].path == "/v1/responses"


def test_documents_and_queries_are_embedded() -> None:
    # It counts tokens with a table that it would fetch from the network.
    embeddings = OpenAIEmbeddings(model="m", check_embedding_ctx_length=False)
    assert embeddings.embed_documents(["a", "b"]) == [list(VECTOR)] * 2
    assert embeddings.embed_query("a") == list(VECTOR)


def test_a_refusal_is_raised_as_the_sdks_own_error() -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        ChatOpenAI(model="unheard-of").invoke("hi")
    assert raised.value.code == "model_not_found"

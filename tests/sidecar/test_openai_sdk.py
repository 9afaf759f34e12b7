"""The official `openai` client against the real gateway, with nothing but OPENAI_BASE_URL and OPENAI_API_KEY set.

What an application sees is what the SDK makes of our answers: its typed errors, its retries, its streams.
"""

import asyncio
import json
from collections.abc import Iterator

import openai
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import (
    STREAM_HEAD,
    Provider,
    ProviderRequest,
    chunk,
    event,
    plain,
    providing,
    response,
)

pytestmark = pytest.mark.server
EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "model": "embed",
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        _, upstream, _, path = request.path.split("/", 3)
        if upstream == "broken":
            writer.write(response(500, b'{"error":{"message":"sk-of-the-provider"}}'))
        elif upstream == "throttled":
            writer.write(response(429, b"{}", "retry-after: 1"))
        elif upstream == "mistaken":
            writer.write(response(400, b'{"error":{"message":"too long","code":"context_length_exceeded"}}'))
        elif upstream == "cut":
            writer.write(STREAM_HEAD + chunk(event("one")))
            await writer.drain()
            writer.close()
        elif path == "embeddings":
            writer.write(response(200, json.dumps(EMBEDDING).encode()))
        else:
            await plain(request, writer)

    with providing(behaviour) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    names = ["good", "broken", "throttled", "mistaken", "cut"]
    chat = spec(
        provider.url,
        upstreams=[
            *(upstream(name, f"{provider.url}/{name}/v1", breaker={"maxFailures": 100}) for name in names),
            upstream("open", f"{provider.url}/broken/v1", breaker={"maxFailures": 1, "reset": "1h"}),
        ],
        models=[{"name": name, "targets": [{"upstream": name}]} for name in [*names, "open"]],
    )
    chat["auth"]["clients"] = [{"name": "narrow", "models": ["open"]}]
    limited = spec(
        f"{provider.url}/good/v1",
        models=[{"name": "limited", "targets": [{"upstream": "provider"}]}],
        limits=[{"name": "two", "per": "Client", "requests": 2, "window": "1s"}],
    )
    hourly = spec(
        f"{provider.url}/good/v1",
        models=[{"name": "hourly", "targets": [{"upstream": "provider"}]}],
        limits=[{"name": "one-an-hour", "per": "Client", "requests": 1, "window": "1h"}],
    )
    routes = {"chat": chat, "limited": limited, "hourly": hourly}
    with running(tmp_path_factory.mktemp("gateway"), routes, keys={"narrow": "key-narrow"}) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def environment(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{gateway.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def client(environment: None) -> Iterator[openai.OpenAI]:
    with openai.OpenAI() as client:
        yield client


def ask(client: openai.OpenAI, model: str) -> str | None:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
    return answer.choices[0].message.content


def test_a_chat_is_answered(client: openai.OpenAI, provider: Provider) -> None:
    assert ask(client, "good") == "hello"
    assert provider.requests[-1].json["messages"] == [{"role": "user", "content": "hello"}]
    assert KEY not in str(provider.requests[-1].headers)


def test_a_stream_comes_word_by_word(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="good", messages=[{"role": "user", "content": "hello"}], stream=True)
    assert [part.choices[0].delta.content for part in stream] == ["one ", "two ", "three", None]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} >= {"good", "broken", "limited"}


def test_embeddings_go_through(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.embeddings.create(model="good", input="hello", encoding_format="float")
    assert answer.data[0].embedding == [0.25, -0.5]
    assert provider.requests[-1].path == "/good/v1/embeddings"


def test_the_async_client_is_served_the_same() -> None:
    async def calls() -> tuple[str | None, list[str | None]]:
        async with openai.AsyncOpenAI() as client:
            answer = await client.chat.completions.create(model="good", messages=[])
            stream = await client.chat.completions.create(model="good", messages=[], stream=True)
            return answer.choices[0].message.content, [part.choices[0].delta.content async for part in stream]

    assert asyncio.run(calls()) == ("hello", ["one ", "two ", "three", None])


def test_many_calls_at_once_over_one_client() -> None:
    async def calls() -> list[str | None]:
        async with openai.AsyncOpenAI() as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(model="good", messages=[]) for _ in range(50))
            )
            return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(calls()) == ["hello"] * 50


def test_a_wrong_key_is_an_authentication_error() -> None:
    with openai.OpenAI(api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as raised:
        ask(client, "good")
    assert raised.value.code == "invalid_api_key"
    assert raised.value.request_id is not None


def test_a_model_that_the_key_may_not_use_is_a_permission_error() -> None:
    with openai.OpenAI(api_key="key-narrow") as client, pytest.raises(openai.PermissionDeniedError) as raised:
        ask(client, "good")
    assert raised.value.code == "model_not_allowed"
    assert raised.value.param == "model"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        ask(client, "unheard-of")
    assert raised.value.code == "model_not_found"


def test_the_providers_own_word_on_a_mistake_comes_through(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, "mistaken")
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.response.headers["x-llmroute-origin"] == "upstream"


def test_a_used_up_limit_is_a_rate_limit_error() -> None:
    with openai.OpenAI(max_retries=0) as client:
        ask(client, "hourly")
        with pytest.raises(openai.RateLimitError) as raised:
            ask(client, "hourly")
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.type == "requests"
    assert raised.value.response.headers["x-llmroute-limit"] == "one-an-hour"
    assert int(raised.value.response.headers["retry-after"]) > 3000


def test_a_limit_of_an_hour_is_not_retried(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    def refusals() -> float:
        return gateway.metric("gateway_rate_limited_total")

    with openai.OpenAI(max_retries=0) as once:
        while not refusals():  # used up, whichever test came first
            try:
                ask(once, "hourly")
            except openai.RateLimitError:
                break
    before = refusals()
    with pytest.raises(openai.RateLimitError):
        ask(client, "hourly")
    assert refusals() == before + 1


def test_the_client_waits_as_long_as_a_limit_says_and_succeeds(client: openai.OpenAI) -> None:
    assert [ask(client, "limited") for _ in range(4)] == ["hello"] * 4


def test_a_failed_upstream_is_an_internal_server_error_and_not_retried(
    client: openai.OpenAI, provider: Provider
) -> None:
    before = len(provider.requests)
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, "broken")
    assert raised.value.status_code == 502
    assert raised.value.code == "upstream_failed"
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["attempts"][0]["reason"] == "server_error"
    assert "sk-of-the-provider" not in str(raised.value)
    assert len(provider.requests) == before + 1


def test_a_throttled_upstream_is_tried_again_after_its_pause(client: openai.OpenAI, provider: Provider) -> None:
    """429 from the provider, and no other candidate: the pause is the provider's, the retry the SDK's."""
    before = len(provider.requests)
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, "throttled")
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 2
    assert len(provider.requests) >= before + 2


def test_an_open_breaker_is_an_internal_server_error(client: openai.OpenAI, provider: Provider) -> None:
    with pytest.raises(openai.InternalServerError):
        ask(client, "open")  # the failure that opens it
    before = len(provider.requests)
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, "open")
    assert raised.value.status_code == 503
    assert raised.value.code == "circuit_open"
    assert len(provider.requests) == before


def test_a_stream_that_is_cut_raises_in_the_middle(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="cut", messages=[], stream=True)
    words = []
    with pytest.raises(openai.APIError, match="broke off"):  # noqa: PT012 - what came before it is the point
        for part in stream:
            words.append(part.choices[0].delta.content)  # noqa: PERF401
    assert words == ["one"]


def test_a_stream_that_is_left_early_is_over_for_the_provider_too(
    client: openai.OpenAI, gateway: GatewayProcess
) -> None:
    with client.chat.completions.create(model="good", messages=[], stream=True) as stream:
        assert next(iter(stream)).choices[0].delta.content == "one "
    assert ask(client, "good") == "hello"

"""The worker's program against real servers that play OpenAI, Anthropic and Gemini: answers, errors, cut streams."""

import base64
import json
import struct
from typing import Any

import pytest

from tests.provider import Provider, event
from tests.sidecar.litellm.direct import DirectWorker, text_of
from tests.sidecar.litellm.providers import (
    WORDS,
    anthropic_events,
    cut_after,
    fails,
    gemini_events,
)
from tests.sidecar.litellm.routes import api_base

pytestmark = pytest.mark.server
KEY = "sk-canary-0123456789"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
MODELS = {"openai": "gpt-test", "anthropic": "claude-test", "gemini": "gemini-test"}
NAMES = sorted(MODELS)


def of(name: str, provider: Provider, **more: Any) -> dict[str, Any]:
    return {
        "provider": name,
        "model": MODELS[name],
        "api_key": KEY,
        "api_base": api_base(name, provider.url),
        **more,
    }


def openai_events() -> list[bytes]:
    return [event(word) for word in WORDS]


EVENTS = {"openai": openai_events, "anthropic": anthropic_events, "gemini": gemini_events}


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_is_answered_in_openais_words(worker: DirectWorker, provider: Provider, name: str) -> None:
    answer = worker.call("/chat/completions", of(name, provider), {**HELLO, "max_tokens": 10, "temperature": 0.5})
    assert answer.status == 200
    choice = answer.json["choices"][0]
    assert choice["message"]["content"] == ("hello" if name == "openai" else "one two three")
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    assert answer.json["usage"]["total_tokens"] > 0
    assert answer.json["object"] == "chat.completion"
    assert KEY in str(provider.requests[-1].headers)  # each provider has another header for it
    assert MODELS[name] in provider.requests[-1].path + provider.requests[-1].body.decode()


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_is_openais(worker: DirectWorker, provider: Provider, name: str) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    answer = worker.call("/chat/completions", of(name, provider), body)
    assert answer.status == 200
    assert answer.whole
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert text_of(answer.events) == "one two three"
    assert len({chunk["id"] for chunk in answer.events}) == 1
    *_, last, usage = answer.events
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("name", ["openai", "gemini"])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings_are_floats_or_base64(
    worker: DirectWorker, provider: Provider, name: str, encoding: str | None
) -> None:
    body = {"input": "hello", **({"encoding_format": encoding} if encoding else {})}
    answer = worker.call("/embeddings", of(name, provider), body)
    assert answer.status == 200, answer.content
    vector = answer.json["data"][0]["embedding"]
    if encoding == "base64":
        vector = list(struct.unpack("<2f", base64.b64decode(vector)))
    assert vector == [0.5, -0.25]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        (400, 400, "invalid_request"),
        (401, 401, "credential_refused"),
        (403, 403, "credential_refused"),
        (404, 404, "not_found"),
        (429, 429, "rate_limit_exceeded"),
        (500, 500, "server_error"),
        (503, 503, "server_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_providers_error_is_told_by_status_and_code(
    worker: DirectWorker, provider: Provider, name: str, status: int, told: int, code: str, stream: bool
) -> None:
    provider.behaviour = fails(status, f"what went wrong, {KEY}, http://inner.example/x", "retry-after: 7")
    answer = worker.call("/chat/completions", of(name, provider), {**HELLO, "stream": stream})
    assert (answer.status, answer.error["code"]) == (told, code)
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert KEY not in answer.content.decode()
    assert "inner.example" not in answer.content.decode()
    assert ("what went wrong" in answer.error["message"]) is (status in (400, 404))
    if status == 429:
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("status", "told"), [(408, 504), (409, 409), (413, 413), (422, 422), (402, 403), (502, 502), (504, 504), (529, 529)]
)
def test_rarer_errors_keep_their_kind(worker: DirectWorker, provider: Provider, status: int, told: int) -> None:
    provider.behaviour = fails(status, "what went wrong")
    assert worker.call("/chat/completions", of("openai", provider), HELLO).status == told


def test_a_context_too_long_is_the_clients_mistake(worker: DirectWorker, provider: Provider) -> None:
    message = "This model's maximum context length is 10 tokens. However, your messages resulted in 20 tokens."
    provider.behaviour = fails(400, message)
    answer = worker.call("/chat/completions", of("openai", provider), HELLO)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


def test_a_provider_that_cannot_be_reached_is_a_failure(worker: DirectWorker, provider: Provider) -> None:
    for name in NAMES:
        parameters = of(name, provider, api_base="http://127.0.0.1:1/v1")
        assert worker.call("/chat/completions", parameters, HELLO).status >= 500


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_good_order", [False, True])
def test_a_cut_stream_never_looks_finished(
    worker: DirectWorker, provider: Provider, name: str, in_good_order: bool
) -> None:
    events = EVENTS[name]()
    kept = events[:4] if name == "anthropic" else events[:2]
    provider.behaviour = cut_after(kept, in_good_order=in_good_order)
    answer = worker.call("/chat/completions", of(name, provider), {**HELLO, "stream": True})
    assert answer.status == 200
    assert not answer.whole
    assert text_of(answer.events) == "one two "
    assert all(choice["finish_reason"] is None for chunk in answer.events for choice in chunk["choices"])
    assert b"[DONE]" not in answer.content


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_good_order", [False, True])
def test_a_stream_cut_before_its_first_word_is_an_error_with_a_status(
    worker: DirectWorker, provider: Provider, name: str, in_good_order: bool
) -> None:
    provider.behaviour = cut_after([], in_good_order=in_good_order)
    answer = worker.call("/chat/completions", of(name, provider), {**HELLO, "stream": True})
    assert answer.status >= 500


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_base", "http://127.0.0.1:1"),
        ("base_url", "http://127.0.0.1:1"),
        ("api_key", "mine"),
        ("extra_headers", {"authorization": "mine"}),
        ("extra_body", {}),
        ("mock_response", "hello"),
        ("fallbacks", ["openai/gpt"]),
        ("custom_llm_provider", "ollama"),
        ("num_retries", 9),
        ("litellm_params", {}),
        ("callbacks", ["x"]),
    ],
)
def test_a_client_cannot_set_what_is_the_routes_to_say(
    worker: DirectWorker, provider: Provider, field: str, value: Any
) -> None:
    before = len(provider.requests)
    answer = worker.call("/chat/completions", of("openai", provider), {**HELLO, field: value})
    assert (answer.status, answer.error["param"]) == (400, field)
    assert len(provider.requests) == before


@pytest.mark.parametrize(
    "model", ["https://evil.example/x", "http:evil", "a/../../b", "//evil.example", "x?y=1", "a b", "", "../x", "a%2fb"]
)
def test_a_model_that_reads_as_an_address_is_no_model(worker: DirectWorker, provider: Provider, model: str) -> None:
    before = len(provider.requests)
    answer = worker.call("/chat/completions", of("openai", provider, model=model), HELLO)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert len(provider.requests) == before


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_fetched_that_a_message_names(
    worker: DirectWorker, provider: Provider, name: str, stream: bool
) -> None:
    """Gemini takes images only inline, and litellm would fetch them: a client could have the pod call anybody."""
    image = {"type": "image_url", "image_url": {"url": f"{provider.url}/private.png"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, image]}], "stream": stream}
    before = len(provider.requests)
    answer = worker.call("/chat/completions", of(name, provider), body)
    assert [request for request in provider.requests[before:] if "private" in request.path] == []
    if name == "gemini":
        assert (answer.status, answer.error["code"]) == (400, "invalid_image_url")


def test_a_tool_that_is_a_server_of_the_clients_is_refused(worker: DirectWorker, provider: Provider) -> None:
    tools = [{"type": "mcp", "server_url": provider.url, "server_label": "x"}]
    answer = worker.call("/chat/completions", of("openai", provider), {**HELLO, "tools": tools})
    assert (answer.status, answer.error["param"]) == (400, "tools")


def test_tools_are_carried_both_ways(worker: DirectWorker, provider: Provider) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    answer = worker.call("/chat/completions", of("anthropic", provider), {**HELLO, "tools": tools})
    assert answer.status == 200
    assert provider.requests[-1].json["tools"][0]["name"] == "look"


def test_a_parameter_that_the_provider_lacks_is_refused_or_dropped(worker: DirectWorker, provider: Provider) -> None:
    body = {**HELLO, "logit_bias": {"1": 1}}
    refused = worker.call("/chat/completions", of("anthropic", provider), body)
    assert (refused.status, refused.error["code"]) == (400, "unsupported_parameter")
    dropped = worker.call("/chat/completions", of("anthropic", provider, drop_params=True), body)
    assert dropped.status == 200
    assert "logit_bias" not in provider.requests[-1].json


def test_azure_is_told_its_api_version(worker: DirectWorker, provider: Provider) -> None:
    parameters = {"provider": "azure", "model": "gpt-eu", "api_base": provider.url, "api_version": "2024-06-01"}
    answer = worker.call("/chat/completions", {**parameters, "api_key": KEY}, HELLO)
    assert answer.status == 200
    assert provider.requests[-1].path == "/openai/deployments/gpt-eu/chat/completions?api-version=2024-06-01"
    assert provider.requests[-1].headers["api-key"] == KEY


def test_aws_keys_come_as_json_in_one_credential(worker: DirectWorker, provider: Provider) -> None:
    keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "aws-secret-canary"}
    parameters = {
        "provider": "bedrock",
        "model": "anthropic.claude-test",
        "api_base": provider.url,
        "region": "eu-west-1",
        "api_key": json.dumps(keys),
    }
    provider.behaviour = fails(400, "aws-secret-canary is wrong")
    answer = worker.call("/chat/completions", parameters, HELLO)
    assert answer.status == 400
    assert "aws-secret-canary" not in answer.content.decode()
    authorization = provider.requests[-1].headers["authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIATEST/")
    assert "/eu-west-1/bedrock/" in authorization


def test_headers_of_the_route_go_to_the_provider(worker: DirectWorker, provider: Provider) -> None:
    headers = {"x-team": "shop", "traceparent": "00-1-2-01"}
    for name in NAMES:
        worker.call("/chat/completions", of(name, provider, headers=headers), HELLO)
        assert headers.items() <= provider.requests[-1].headers.items()


def test_an_unknown_provider_is_the_routes_mistake_not_the_clients(worker: DirectWorker, provider: Provider) -> None:
    answer = worker.call("/chat/completions", {"provider": "nobody", "model": "m", "api_key": KEY}, HELLO)
    assert (answer.status, answer.error["code"]) == (501, "unknown_provider")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/responses", HELLO, 404),
        ("/chat/completions", b"no json", 400),
        ("/chat/completions", b"[]", 400),
        ("/chat/completions", {"messages": "hello"}, 400),
        ("/embeddings", {}, 400),
        ("/embeddings", {"input": "x", "encoding_format": "hex"}, 400),
    ],
)
def test_what_cannot_be_put_to_litellm_is_refused(
    worker: DirectWorker, provider: Provider, path: str, body: Any, status: int
) -> None:
    assert worker.call(path, of("openai", provider), body).status == status


def test_a_large_body_is_taken(worker: DirectWorker, provider: Provider) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 8_000_000}]}
    assert worker.call("/chat/completions", of("openai", provider), body).status == 200

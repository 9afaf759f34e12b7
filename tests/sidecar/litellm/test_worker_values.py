"""The pure parts of the worker: which arguments litellm gets, what its exceptions mean, how its models are shown."""

import json
from typing import Any

import pytest

from llmroute_sidecar.litellm_worker import answer
from llmroute_sidecar.litellm_worker.errors import MESSAGE_MAX, cleaned, failure_of
from llmroute_sidecar.litellm_worker.request import (
    CHAT_FIELDS,
    Parameters,
    Unfit,
    chat_arguments,
    embedding_arguments,
    read_request,
)

SAID = {"provider": "openai", "model": "gpt", "api_key": "sk-canary-1", "timeout": 9.0}


def wire(body: Any, **more: Any) -> bytes:
    return json.dumps({**SAID, **more}).encode() + b"\n" + json.dumps(body).encode()


def test_what_the_route_says_wins_over_the_body() -> None:
    request = read_request(wire({"model": "other", "messages": []}, api_base="http://a.example", region="eu-west-1"))
    arguments = chat_arguments(request)
    assert arguments["model"] == "openai/gpt"
    assert arguments["api_key"] == "sk-canary-1"
    assert arguments["api_base"] == "http://a.example"
    assert arguments["aws_region_name"] == "eu-west-1"
    assert (arguments["num_retries"], arguments["max_retries"]) == (0, 0)


def test_a_client_has_no_word_that_is_the_routes() -> None:
    arguments = chat_arguments(read_request(wire({"messages": []}, api_base="a", api_version="b", region="c")))
    assert not CHAT_FIELDS & (arguments.keys() - {"messages"})


@pytest.mark.parametrize("field", ["metadata", "store"])
def test_what_is_for_openais_dashboard_alone_is_left_out(field: str) -> None:
    arguments = chat_arguments(read_request(wire({"messages": [], field: {"a": "b"}})))
    assert field not in arguments


def test_absent_and_null_are_the_same() -> None:
    assert "seed" not in chat_arguments(read_request(wire({"messages": [], "seed": None})))


def test_the_field_to_blame_is_named_and_short() -> None:
    with pytest.raises(Unfit) as unfit:
        embedding_arguments(read_request(wire({"input": "x", "y" * 500: 1})))
    assert unfit.value.param == "y" * 60
    assert len(unfit.value.message) < 150


def test_secrets_are_the_key_its_parts_and_the_headers() -> None:
    key = json.dumps({"aws_access_key_id": "AKIATEST1", "aws_secret_access_key": "secret-canary"})
    parameters = Parameters("bedrock", "m", key, 1.0, headers={"x-token": "header-canary"})
    assert {"AKIATEST1", "secret-canary", "header-canary", key} <= set(parameters.secrets)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("litellm.BadRequestError: OpenAIException - no such tool", "no such tool"),
        ('litellm.BadRequestError: AnthropicException - {"error":{"message":"too many tools"}}', "too many tools"),
        ("litellm.NotFoundError: the model is gone\nTraceback (most recent call last):\n x", "the model is gone"),
        ("see https://inner.example/a?b=c for more", "see *** for more"),
        ("Incorrect API key provided: sk-abcd1234efgh5678", "Incorrect API key provided: ***"),
        ("bad canary-one here", "bad *** here"),
        ("{ no json", "{ no json"),
        ("", ""),
    ],
)
def test_a_message_is_cleaned_of_secrets_addresses_and_wrapping(text: str, expected: str) -> None:
    assert cleaned(text, ["canary-one"]) == expected


def test_a_message_is_bounded() -> None:
    assert len(cleaned("a b " * 10_000, [])) == MESSAGE_MAX


class AuthenticationError(Exception):
    status_code = 401


class BadRequestError(Exception):
    status_code = 400


class BudgetError(BadRequestError):
    status_code = 413


class Wrapper(Exception):
    def __init__(self, original: Exception) -> None:
        self.original_exception = original


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (AuthenticationError("x"), 401, "credential_refused"),
        (BadRequestError("x"), 400, "invalid_request"),
        (BudgetError("x"), 413, "invalid_request"),
        (Wrapper(AuthenticationError("x")), 401, "credential_refused"),
        (KeyError("secret"), 500, "server_error"),
        (RecursionError(), 500, "server_error"),
    ],
)
def test_an_exception_is_known_by_its_class_and_status(raised: Exception, status: int, code: str) -> None:
    failure = failure_of(raised, [])
    assert (failure.status, failure.code) == (status, code)
    assert "secret" not in failure.body.decode()


def test_a_waiting_time_is_found_wherever_litellm_put_it() -> None:
    raised = BadRequestError("x")
    raised.status_code = 429
    raised.litellm_response_headers = {"retry-after": "3", "set-cookie": "no"}  # type: ignore[attr-defined]
    assert failure_of(raised, []).headers == {"retry-after": "3"}


def test_chunks_have_openais_fields_and_no_empty_extras() -> None:
    document = {
        "choices": [{"index": 0, "delta": {"content": "a", "provider_specific_fields": {"x": None}}}],
        "vertex_ai_safety_results": [],
    }
    data = answer.chunk(document)
    assert data.endswith(b"\n\n")
    assert json.loads(data.removeprefix(b"data: ")) == {
        "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]
    }


def test_a_completion_without_content_says_null() -> None:
    document = {"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [{}]}}]}
    choice = json.loads(answer.completion(document))["choices"][0]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] is None

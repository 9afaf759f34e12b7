"""What a request may say, as keyword arguments of litellm's functions. Pure; knows litellm's names, not litellm.

litellm takes over a hundred keywords, among them `api_base`, `api_key`, `fallbacks`, `mock_response` and callbacks: a
client that could set those would choose where the credential goes (CVE-2025-66405 of another gateway). So the body's
fields are taken from a list, and what is not on it is refused by name. What the route says comes apart from the body,
in `Parameters`, and always wins.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHAT_FIELDS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "thinking",  # Anthropic's, which litellm takes for all that think
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
EMBEDDING_FIELDS = frozenset({"dimensions", "encoding_format", "input", "user"})
IGNORED_FIELDS = frozenset({"metadata", "model", "store"})
"""`model` is the route's to say; the other two are for OpenAI's dashboard, and litellm gives `metadata` meanings of its
own."""
MODEL = re.compile(r"[A-Za-z0-9@][-A-Za-z0-9._:/@+]*")
_URL_LIKE = re.compile(r"https?:|//|(^|/)\.{1,2}(/|$)", re.IGNORECASE)
"""litellm calls a model of that kind where it is for some providers (`huggingface/https://…`)."""


class Unfit(Exception):
    """The request cannot be put to litellm: the client's mistake. `param` is the field to blame."""

    def __init__(self, message: str, param: str | None, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Parameters:
    """What the gateway says of a call, in the first line of its body."""

    provider: str
    model: str
    api_key: str | None
    timeout: float
    """Seconds; a backstop for what cannot be cancelled: the gateway ends a call by closing its connection."""
    api_base: str | None = None
    api_version: str | None = None
    region: str | None = None
    drop_params: bool = False
    headers: Mapping[str, str] | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no answer and no log line may hold."""
        told = [self.api_key, *(self.headers or {}).values(), *_credentials(self).values()]
        return tuple(text for text in told if isinstance(text, str) and len(text) >= 6)


@dataclass(frozen=True)
class Request:
    parameters: Parameters
    body: dict[str, Any]


def read_request(raw: bytes) -> Request:
    """The two parts of what the gateway sends: a line of parameters, and the client's body. Raises Unfit."""
    line, _, body = raw.partition(b"\n")
    parameters = Parameters(**json.loads(line))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Unfit("the body is not JSON", None) from None
    if not isinstance(document, dict):
        raise Unfit("the body must be a JSON object", None)
    if not MODEL.fullmatch(parameters.model) or _URL_LIKE.search(parameters.model):
        raise Unfit("the model's name has characters that no model's name has", "model", 404, "model_not_found")
    return Request(parameters, document)


def chat_arguments(request: Request) -> dict[str, Any]:
    """Keyword arguments of `litellm.acompletion`. Raises Unfit."""
    arguments = _taken(request.body, CHAT_FIELDS)
    if not isinstance(arguments.get("messages"), list):
        raise Unfit("messages must be a list", "messages")
    tools = arguments.get("tools")
    if isinstance(tools, list) and any(isinstance(tool, dict) and tool.get("type") == "mcp" for tool in tools):
        # litellm would connect to the server that the client names.
        raise Unfit("tools of type mcp are not served by litellm:// upstreams", "tools")
    return {**arguments, **_route_arguments(request.parameters)}


def embedding_arguments(request: Request) -> dict[str, Any]:
    """Keyword arguments of `litellm.aembedding`. Raises Unfit."""
    arguments = _taken(request.body, EMBEDDING_FIELDS)
    # SDKs ask for base64 unasked, and most providers have no such thing: the worker encodes.
    encoding = arguments.pop("encoding_format", None)
    if encoding not in (None, "float", "base64"):
        raise Unfit("encoding_format must be float or base64", "encoding_format")
    if "input" not in arguments:
        raise Unfit("input is missing", "input")
    return {**arguments, **_route_arguments(request.parameters)}


def _taken(body: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    unknown = sorted(body.keys() - fields - IGNORED_FIELDS)
    if unknown:
        raise Unfit(f"{unknown[0][:60]!r} is not a parameter that litellm:// upstreams take", unknown[0][:60])
    return {name: value for name, value in body.items() if name in fields and value is not None}


def _route_arguments(parameters: Parameters) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": f"{parameters.provider}/{parameters.model}",
        "custom_llm_provider": parameters.provider,
        "timeout": parameters.timeout,
        "num_retries": 0,  # the gateway's attempt engine tries again, within its budget and deadline; nobody else
        "max_retries": 0,
        "drop_params": parameters.drop_params,
        "extra_headers": dict(parameters.headers or {}),
        **_credentials(parameters),
    }
    if parameters.api_base is not None:
        arguments["api_base"] = parameters.api_base
    if parameters.api_version is not None:
        arguments["api_version"] = parameters.api_version
    if parameters.region is not None:
        arguments["aws_region_name"] = parameters.region
    return arguments


def _credentials(parameters: Parameters) -> dict[str, str]:
    """A credential is an API key; where AWS's keys are asked for, a JSON object of `aws_…` texts."""
    key = parameters.api_key
    if key is None:
        return {}
    if key.startswith("{") and parameters.provider in ("bedrock", "sagemaker", "sagemaker_chat"):
        try:
            parts = json.loads(key)
        except ValueError:
            return {"api_key": key}
        return {name: str(value) for name, value in parts.items() if name.startswith("aws_")}
    return {"api_key": key}

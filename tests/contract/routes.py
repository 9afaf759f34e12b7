"""LLMRoute documents for tests: small ones to build on, and the full example of the design with every field set."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llmroute_contract.compile import RouteSource
from llmroute_contract.compiled import CompiledRoute
from llmroute_contract.llmroute import LLMRouteSpec, parse_spec
from llmroute_contract.problem import Problem

Document = dict[str, Any]
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def full_route(name: str = "chat", namespace: str = "shop") -> Document:
    """Every field that a route can have. Times are texts, as JSON has them."""
    return {
        "apiVersion": "llmroute.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "gateway": "default",
            "auth": {
                "mode": "Keys",
                "keysFrom": {"secretRef": {"name": "chat-clients"}},
                "clients": [{"name": "web", "models": ["gpt-4o", "llama*"], "expiresAt": "2027-01-01T00:00:00Z"}],
            },
            "upstreams": [
                {
                    "name": "openai",
                    "url": "https://api.openai.com/v1",
                    "protocol": "OpenAI",
                    "credential": {"secretRef": {"name": "openai", "key": "api-key"}},
                    "tls": {
                        "caFrom": {"secretRef": {"name": "corp-ca", "key": "ca.crt"}},
                        "clientCertFrom": {"secretRef": {"name": "openai-mtls"}},
                    },
                    "headers": {"x-team": "shop"},
                    "timeouts": {"connect": "5s", "firstToken": "60s", "idle": "60s", "request": "600s"},
                    "breaker": {"maxFailures": 5, "reset": "30s", "scope": "Pod"},
                    "retryBudget": {"percent": 20, "burst": 10},
                    "pool": {"maxConnections": 100},
                },
                {"name": "azure", "url": "https://shop.openai.azure.com/openai/v1"},
                {"name": "local", "url": "mock://local?latency=200ms"},
                {
                    "name": "bedrock",
                    "url": "litellm://bedrock/anthropic.claude-3-haiku",
                    "litellm": {
                        "apiBase": "https://bedrock.example",
                        "apiVersion": "2024-06-01",
                        "region": "eu-west-1",
                        "dropParams": True,
                    },
                },
            ],
            "models": [
                {
                    "name": "gpt-4o",
                    "targets": [
                        {"upstream": "openai", "model": "gpt-4o", "weight": 90},
                        {"upstream": "azure", "model": "gpt-4o-eu", "weight": 10},
                    ],
                    "fallbacks": ["llama", "canned"],
                    "retry": {"attempts": 2, "backoff": "200ms"},
                    "sticky": {"header": "X-Session-Id"},
                    "keepAlive": {"after": "20s", "every": "15s"},
                },
                {"name": "llama", "targets": [{"upstream": "azure"}]},
                {"name": "canned", "targets": [{"upstream": "local"}]},
            ],
            "defaultUpstream": "openai",
            "sharedState": {"whenUnavailable": "FailOpen"},
            "limits": [
                {"name": "per-client", "per": "Client", "requests": 60, "window": "60s", "scope": "Pod"},
                {"name": "tokens", "per": "Model", "tokens": 200000, "window": "60s", "scope": "Gateway"},
                {
                    "name": "slots",
                    "per": "Gateway",
                    "concurrency": 64,
                    "scope": "Pod",
                    "queue": {"size": 100, "timeout": "5s"},
                },
                {"name": "spend", "per": "Client", "budget": {"usd": "20", "period": "Day"}, "scope": "Gateway"},
            ],
            "prices": [{"model": "gpt-4o-eu", "inputPerMillion": "2.75", "outputPerMillion": "11"}],
            "logging": {
                "sample": [
                    {"status": "2xx", "rate": 0.1},
                    {"client": "web", "rate": 1},
                    {"model": "llama*", "rate": 0.5},
                ]
            },
        },
    }


def model(name: str, *fallbacks: str) -> Document:
    made: Document = {"name": name, "targets": [{"upstream": "main"}]}
    return {**made, "fallbacks": list(fallbacks)} if fallbacks else made


def spec_document(models: Sequence[Document], **changes: Any) -> Document:
    """The least that a route with these models can be, at one upstream `main`."""
    return {
        "auth": {"mode": "None"},
        "upstreams": [{"name": "main", "url": "https://main.example/v1"}],
        "models": list(models),
        **changes,
    }


def source(
    name: str,
    models: Sequence[Document] = (),
    *,
    age: int = 0,
    generation: int = 1,
    last: CompiledRoute | None = None,
    **changes: Any,
) -> RouteSource:
    """A route as the controller hands it to the compiler; one with a larger `age` is older."""
    document = spec_document(models, **changes)
    if not models:
        del document["models"]
    return RouteSource(name, parse_spec(document), generation, BEGINNING - timedelta(hours=age), last)


def spec_of(document: Mapping[str, Any]) -> LLMRouteSpec:
    """The typed spec of a document that must be good."""
    parsed = parse_spec(dict(document))
    assert isinstance(parsed, LLMRouteSpec), [str(problem) for problem in parsed]
    return parsed


def problems_in(document: Mapping[str, Any]) -> tuple[Problem, ...]:
    """What is wrong with a spec that must be bad."""
    parsed = parse_spec(dict(document))
    assert isinstance(parsed, tuple), "the spec was taken"
    return parsed

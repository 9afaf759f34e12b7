"""The routes that the gateway serves, in versions that differ in all that a reload may have to replace."""

from collections.abc import Mapping
from typing import Any

from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import parse_spec

KEYS = {"web": "key-of-web", "batch": "key-of-batch", "agent": "key-of-agent", "cron": "key-of-cron"}
VERSIONS = 6


def files(steady_url: str, moody_url: str, dead_url: str, version: int) -> Mapping[str, bytes]:
    """The ConfigMap's files. `version` counts up; odd ones have other URLs, so that all pools are new."""
    spec = parse_spec(_document(steady_url, moody_url, dead_url, version % VERSIONS))
    compilation = compile_gateway("bench", "default", [RouteSource("mixed", spec, generation=1 + version)])
    verdict = compilation.verdicts["mixed"]
    assert verdict.accepted, verdict.problems
    return compilation.files


def _document(steady_url: str, moody_url: str, dead_url: str, version: int) -> dict[str, Any]:
    base = f"/of-version-{version % 2}/v1"
    timeouts = {"connect": "1s", "firstToken": "400ms", "idle": "2s", "request": "20s"}
    patient = {**timeouts, "connect": "10s", "firstToken": f"{10 + version}s"}  # the machine may be busy
    breaker = {"maxFailures": 5, "reset": "500ms"}
    targets = {
        "steady": [{"upstream": "steady", "model": "gpt-steady"}],
        "split": [{"upstream": "steady", "weight": 3 + version}, {"upstream": "moody", "weight": 1}],
        "moody": [{"upstream": "moody", "model": "gpt-moody"}],
        "alone": [{"upstream": "moody"}],
        "dead": [{"upstream": "dead"}],
        "claude": [{"upstream": "steady-claude"}],
    }
    fallbacks = {"moody": ["steady"], "split": ["steady"]}
    return {
        "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
        "upstreams": [
            {"name": "steady", "url": steady_url + base, "timeouts": patient},
            {"name": "steady-claude", "url": steady_url + base, "protocol": "Anthropic", "timeouts": patient},
            {"name": "moody", "url": moody_url + base, "timeouts": timeouts, "breaker": breaker},
            {"name": "dead", "url": dead_url + base, "timeouts": timeouts, "breaker": breaker},
        ],
        "models": [
            {
                "name": name,
                "targets": these,
                "retry": {"attempts": 2, "backoff": "10ms"},
                **({"fallbacks": fallbacks[name]} if name in fallbacks else {}),
            }
            for name, these in targets.items()
        ],
        "limits": [
            {"name": "per-client", "per": "Client", "requests": 40 + version, "window": "1s", "scope": "Gateway"},
            {"name": "tokens", "per": "Model", "tokens": 20_000 + version, "window": "1s", "scope": "Gateway"},
            {
                "name": "slots",
                "per": "Gateway",
                "concurrency": 12 + version,
                "queue": {"size": 6, "timeout": "100ms"},
            },
        ],
    }

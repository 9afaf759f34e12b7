"""Configuration from `GATEWAY_*` alone: the way of this project's seed, compiled like every other.

GATEWAY_API_KEYS                      dev-key                comma-separated
GATEWAY_UPSTREAMS                     mock=mock://local      name=url;name=url; each name is a model too
GATEWAY_DEFAULT_UPSTREAM              (none)                 one of those names, for all other models
GATEWAY_FALLBACKS                     (none)                 llama=gpt-4o-mini,mock;...
GATEWAY_RATE_LIMIT_PER_MINUTE         60                     requests of each key
GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES  5
GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS 30
GATEWAY_REQUEST_TIMEOUT_SECONDS       10                     for the first token, and between pieces
GATEWAY_SHARED_STATE_URL              (none)                 with it the rate limit counts over all processes
GATEWAY_SHARED_STATE_SECRET           (none)                 its Secret, in --secrets-dir
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from difflib import get_close_matches

from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import parse_spec
from llmroute_contract.problem import Problem
from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.config.secrets import SecretValues
from llmroute_sidecar.config.source import Reading, SourceError

_KEYS_SECRET = "gateway-api-keys"  # noqa: S105 - a name


class EnvironmentSource:
    """Read once: a process's environment does not change. Raises SourceError, naming the variable, when made."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._reading = _read(environment)

    def fingerprint(self) -> Hashable:
        return "environment"

    def mark(self) -> Hashable:
        return None

    def read(self) -> Reading:
        return self._reading


KNOWN = tuple(re.findall(r"^GATEWAY_\w+", __doc__ or "", re.MULTILINE))


def misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that are not read and nearly have the name of one that is. Others with that prefix may be Kubernetes'
    own, of a Service named `gateway`."""
    for name in sorted(environment.keys() - set(KNOWN)):
        if name.startswith("GATEWAY_") and (near := get_close_matches(name, KNOWN, n=1, cutoff=0.9)):
            yield f"{name} is not read; did you mean {near[0]}?"


def _read(environment: Mapping[str, str]) -> Reading:
    def number(name: str, default: str, least: float) -> float:
        text = environment.get(name, default)
        try:
            value = float(text)
        except ValueError:
            raise SourceError(f"{name} must be a number, not {text!r}") from None
        if not least <= value <= 1e9:
            raise SourceError(f"{name} must be at least {least:g}, not {text}")
        return value

    def whole(name: str, default: str) -> int:
        value = number(name, default, 1)
        if value != int(value):
            raise SourceError(f"{name} must be a whole number, not {environment[name]}")
        return int(value)

    keys = [key.strip() for key in environment.get("GATEWAY_API_KEYS", "dev-key").split(",") if key.strip()]
    if not keys:
        raise SourceError("GATEWAY_API_KEYS must hold at least one key, comma-separated")
    upstreams = _upstreams(environment.get("GATEWAY_UPSTREAMS", "mock=mock://local"))
    labels = _labels(upstreams)
    fallbacks = _fallbacks(environment.get("GATEWAY_FALLBACKS", ""), upstreams)
    timeout = f"{max(1, round(number('GATEWAY_REQUEST_TIMEOUT_SECONDS', '10', 0.001) * 1000))}ms"
    reset = f"{max(1, round(number('GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS', '30', 0.001) * 1000))}ms"
    max_failures = whole("GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES", "5")
    spec: dict[str, object] = {
        "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": _KEYS_SECRET}}},
        "upstreams": [
            {
                "name": labels[name],
                "url": url,
                "timeouts": {"connect": timeout, "firstToken": timeout, "idle": timeout},
                "breaker": {"maxFailures": max_failures, "reset": reset},
            }
            for name, url in upstreams.items()
        ],
        "models": [
            {
                "name": name,
                "targets": [{"upstream": labels[name]}],
                **({"fallbacks": fallbacks[name]} if name in fallbacks else {}),
            }
            for name in upstreams
        ],
        "limits": [
            {
                "name": "per-minute",
                "per": "Client",
                "requests": whole("GATEWAY_RATE_LIMIT_PER_MINUTE", "60"),
                "window": "60s",
                "scope": "Gateway" if environment.get("GATEWAY_SHARED_STATE_URL") else "Pod",
            }
        ],
    }
    default = environment.get("GATEWAY_DEFAULT_UPSTREAM", "").strip()
    if default:
        if default not in labels:
            raise SourceError(
                f"GATEWAY_DEFAULT_UPSTREAM: no upstream is named {default!r}; there are {', '.join(labels)}"
            )
        spec["defaultUpstream"] = labels[default]
    parsed = parse_spec(spec)
    compilation = compile_gateway("default", "default", [RouteSource("environment", parsed)])
    problems = compilation.verdicts["environment"].problems
    if problems:
        raise SourceError("; ".join(_in_variables(problem) for problem in problems))
    secrets = {f"key-{index}": key.encode() for index, key in enumerate(keys, start=1)}
    return Reading(compilation.files, SecretValues({_KEYS_SECRET: secrets}))


_VARIABLE_OF = (
    (re.compile(r"^spec\.models\[\d+\]\.fallbacks"), "GATEWAY_FALLBACKS"),
    (re.compile(r"^spec\.(models|upstreams)\[\d+\]\.(name|url)"), "GATEWAY_UPSTREAMS"),
    (re.compile(r"^spec\.upstreams\[\d+\]\.timeouts"), "GATEWAY_REQUEST_TIMEOUT_SECONDS"),
    (re.compile(r"^spec\.upstreams\[\d+\]\.breaker\.maxFailures"), "GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES"),
    (re.compile(r"^spec\.upstreams\[\d+\]\.breaker\.reset"), "GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS"),
    (re.compile(r"^spec\.limits"), "GATEWAY_RATE_LIMIT_PER_MINUTE"),
)


def _in_variables(problem: Problem) -> str:
    for pattern, variable in _VARIABLE_OF:
        if pattern.match(problem.field):
            return f"{variable}: {problem.message}"
    return str(problem)


def _upstreams(text: str) -> dict[str, str]:
    upstreams: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, url = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not url:
            raise SourceError("GATEWAY_UPSTREAMS must read name=url;name=url")
        if name in upstreams:
            raise SourceError(f"GATEWAY_UPSTREAMS names {name!r} twice")
        try:
            parse_upstream_url(url)
        except ValueError as error:
            hint = "; entries are separated by ;" if "," in url else ""
            raise SourceError(f"GATEWAY_UPSTREAMS: the url of {name!r} {error}{hint}") from None
        upstreams[name] = url
    if not upstreams:
        raise SourceError("GATEWAY_UPSTREAMS must name at least one upstream, as name=url")
    return upstreams


def _labels(names: Mapping[str, str]) -> dict[str, str]:
    """Model names as DNS labels, told apart by a number where they would meet."""
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        label = base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "upstream"
        number = 1
        while label in taken:
            number += 1
            label = f"{base}-{number}"
        taken.add(label)
        labels[name] = label
    return labels


def _fallbacks(text: str, upstreams: Mapping[str, str]) -> dict[str, list[str]]:
    fallbacks: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        model, equals, listed = (piece.strip() for piece in part.partition("="))
        names = [name.strip() for name in listed.split(",") if name.strip()]
        if not equals or not model or not names:
            raise SourceError("GATEWAY_FALLBACKS must read model=other,another;model=...")
        for name in (model, *names):
            if name not in upstreams:
                raise SourceError(f"GATEWAY_FALLBACKS: no upstream is named {name!r}; there are {', '.join(upstreams)}")
        fallbacks[model] = names
    return fallbacks

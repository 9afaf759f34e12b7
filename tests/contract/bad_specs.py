"""Every way in which a route can be wrong, as data: how the full route is changed, who refuses it, and what is said.

`refused_by` is "api" where the API server refuses at `kubectl apply` (schema, CEL, unknown fields), "condition" where
it takes the route and the controller tells in the route's conditions. The Python model refuses all of them.
"""

import copy
import re
from dataclasses import dataclass
from typing import Any, Literal

from tests.contract.routes import Document, full_route

ABSENT: Any = object()
"""As an edit's value: the field is taken out."""


@dataclass(frozen=True, slots=True)
class BadSpec:
    id: str
    edits: tuple[tuple[str, Any], ...]
    field: str
    """The path that the Problem must have."""
    words: str
    """Must stand in its message."""
    refused_by: Literal["api", "condition"] = "api"
    api_field: str | None = None
    """What the API server names, where that is not `field`."""
    older: tuple[Document, ...] = ()
    """Routes of the same gateway that were there before."""

    @property
    def document(self) -> Document:
        """The bad route: the full one with the edits."""
        return edited(full_route(), *self.edits)

    @property
    def named_by_api(self) -> str:
        return self.api_field or self.field


def edited(document: Document, *edits: tuple[str, Any]) -> Document:
    """A copy of `document` with each path (`spec.models[0].name`) set to its value; ABSENT takes it out."""
    made = copy.deepcopy(document)
    for path, value in edits:
        *way, last = (
            int(part[1:-1]) if part.startswith("[") else part for part in re.findall(r"\[\d+\]|[^.\[\]]+", path)
        )
        place: Any = made
        for part in way:
            place = place[part] if isinstance(part, int) else place.setdefault(part, {})
        if value is ABSENT:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(copy.deepcopy(value))
        else:
            place[last] = copy.deepcopy(value)
    return made


def _bad(
    id: str,  # noqa: A002 - as pytest names it
    field: str,
    value: Any,
    words: str,
    *more: tuple[str, Any],
    by: Literal["api", "condition"] = "api",
    at: str | None = None,
    api: str | None = None,
    older: tuple[Document, ...] = (),
) -> BadSpec:
    """`field` set to `value` is wrong there, or at `at`."""
    return BadSpec(id, ((field, value), *more), at or field, words, by, api, older)


def _url(id: str, url: Any, words: str, by: Literal["api", "condition"] = "api") -> BadSpec:  # noqa: A002
    return _bad(f"url-{id}", "spec.upstreams[1].url", url, words, by=by)


def _duration(id: str, value: Any, words: str) -> BadSpec:  # noqa: A002
    return _bad(f"duration-{id}", "spec.upstreams[0].timeouts.connect", value, words)


_NAMES = "spec.models[0].fallbacks"
_HEADERS = "spec.upstreams[0].headers"
_TARGET: Document = {"name": "other", "targets": [{"upstream": "azure"}]}
_OLDER = edited(full_route("older"), ("spec.defaultUpstream", ABSENT), ("spec.models[3]", {**_TARGET, "name": "mine"}))

TYPES = (
    _bad("upstreams-a-map", "spec.upstreams", {}, "must be a list, not a map"),
    _bad("auth-a-text", "spec.auth", "Keys", "must be a map of fields, not a text"),
    _bad("model-name-a-number", "spec.models[0].name", 4, "must be a text, not the number 4"),
    _bad("max-failures-a-text", "spec.upstreams[0].breaker.maxFailures", "5", "must be a whole number, not a text"),
    _bad("max-failures-true", "spec.upstreams[0].breaker.maxFailures", True, "must be a whole number, not true"),
    _bad("max-failures-a-half", "spec.upstreams[0].breaker.maxFailures", 2.5, "must be a whole number"),
    _bad("rate-a-text", "spec.logging.sample[0].rate", "0.1", "must be a number, not a text"),
    _bad("target-a-text", "spec.models[0].targets[0]", "openai", "must be a map of fields, not a text"),
    _bad("spec-absent", "spec", ABSENT, "is required"),
)

UNKNOWN_FIELDS = (
    _bad("unknown-in-spec", "spec.upstream", [], "is not a field"),
    _bad("unknown-in-upstream", "spec.upstreams[0].apiKey", "sk-secret", "is not a field"),
    _bad("unknown-in-breaker", "spec.upstreams[0].breaker.max_failures", 5, "is not a field"),
    _bad("unknown-in-target", "spec.models[0].targets[1].priority", 1, "is not a field"),
    _bad("unknown-and-null", "spec.upstreams[0].pool.minConnections", None, "is not a field"),
    _bad("namespace-of-a-secret", "spec.upstreams[0].credential.secretRef.namespace", "other", "is not a field"),
    _bad("unknown-at-the-top", "sepc", {}, "is not a field"),
)

LISTS = (
    _bad("no-upstreams", "spec.upstreams", [], "must not be empty", ("spec.defaultUpstream", ABSENT)),
    _bad("no-models", "spec.models", [], "must not be empty"),
    _bad("no-targets", "spec.models[0].targets", [], "must not be empty"),
    _bad("no-limits", "spec.limits", [], "must not be empty"),
    _bad("no-headers", _HEADERS, {}, "must not be empty"),
    _bad(
        "5000-models",
        "spec.models",
        [{"name": f"m{n}", "targets": [{"upstream": "azure"}]} for n in range(5000)],
        "at most 1000",
    ),
    _bad("17-fallbacks", _NAMES, ["llama"] * 17, "at most 16"),
)

MISSING = (
    _bad("no-auth", "spec.auth", ABSENT, "is required"),
    _bad("auth-null", "spec.auth", None, "is required"),
    _bad("upstream-without-url", "spec.upstreams[1].url", ABSENT, "is required"),
    _bad("upstream-without-name", "spec.upstreams[1].name", ABSENT, "is required"),
    _bad("model-without-targets", "spec.models[1].targets", ABSENT, "is required"),
    _bad("limit-without-per", "spec.limits[0].per", ABSENT, "is required"),
    _bad("secret-without-key", "spec.upstreams[0].credential.secretRef.key", ABSENT, "is required"),
    _bad(
        "serves-nothing",
        "spec.models",
        ABSENT,
        "models or defaultUpstream must be set",
        ("spec.defaultUpstream", ABSENT),
        at="spec",
    ),
)

DURATIONS = (
    _duration("without-unit", "5", "must be a duration such as"),
    _duration("a-number", 5, "must be a duration with a unit"),
    _duration("negative", "-5s", "must be a duration such as"),
    _duration("zero", "0s", "must be from 1ms to 5m"),
    _duration("too-long", "6m", "must be from 1ms to 5m"),
    _duration("beyond-all-bounds", "9999999h", "must be a duration such as"),
    _duration("so-long-that-it-overflows", "99999h99999h99999h99999h", "must be from 1ms to 5m"),
    _duration("empty", "", "must be a duration such as"),
    _duration("a-list", ["5s"], "must be a duration such as"),
    _duration("in-days", "1d", "must be a duration such as"),
    _duration("with-fraction", "1.5s", "must be a duration such as"),
    _bad("window-too-short", "spec.limits[0].window", "10ms", "must be from 1s to 24h"),
)

URLS = (
    _url("file", "file:///etc/passwd", "must begin with http://"),
    _url("ftp", "ftp://example.com/v1", "must begin with http://"),
    _url("javascript", "javascript:alert(1)", "must begin with http://"),
    _url("no-scheme", "api.openai.com/v1", "must begin with http://"),
    _url("upper-case-scheme", "HTTPS://api.openai.com/v1", "must begin with http://"),
    _url("credentials", "https://user:password@api.openai.com/v1", "must not hold a user or password"),
    _url("user", "https://user@api.openai.com/v1", "must not hold a user or password"),
    _url("no-host", "https:///v1", "must name a host"),
    _url("port-0", "https://api.openai.com:0/v1", "port"),
    _url("port-65536", "https://api.openai.com:65536/v1", "port"),
    _url("port-a-word", "https://api.openai.com:https/v1", "port"),
    _url("fragment", "https://api.openai.com/v1#top", "fragment"),
    _url("query", "https://api.openai.com/v1?api-version=1", "query"),
    _url("escape", "https://api.openai.com/v1%2f..", "plain path"),
    _url("dot-segments", "https://api.openai.com/v1/../admin", "plain path"),
    _url("space", "https://api.openai.com/v1 x", "printable ASCII"),
    _url("line-end", "https://api.openai.com/v1\n", "printable ASCII"),
    _url("too-long", "https://api.openai.com/" + "v" * 1024, "at most 1024"),
    _url("a-number", 443, "must be a text"),
    _url("port-with-zeros", "https://api.openai.com:0443/v1", "port"),
    _url("port-empty", "https://api.openai.com:/v1", "port"),
    _url("host-and-address", "https://api.openai.com[::1]/v1", "must name a host"),
    _url("host-after-backslash", "https://api.openai.com\\@evil.example/v1", "user or password"),
    _url("tab", "https://api.openai.com/\tv1", "printable ASCII"),
    _url("not-ascii", "https://api.opénai.com/v1", "printable ASCII"),
    _url("mock-parameter-unknown", "mock://local?latancy=200ms", "has no parameter 'latancy'"),
    _url("mock-latency-without-unit", "mock://local?tokens=3&latency=200", "must have a duration such as 200ms"),
    _url("mock-fails-too-often", "mock://local?fail=1.5", "a share from 0 to 1 as fail"),
    _url("mock-status-of-success", "mock://local?fail=1&status=200", "a status from 400 to 599 as status"),
    _url("litellm-port", "litellm://openai:443/gpt-4o", "must be litellm://provider"),
    _url("litellm-upper-case", "litellm://OpenAI/gpt-4o", "must be litellm://provider"),
    _url("litellm-model-as-url", "litellm://huggingface/(x)", "must be litellm://provider"),
    _url("bad-address", "http://[:::1]/v1", "must have an IPv6 address in brackets", by="condition"),
)

NAMES = (
    _bad("name-too-long", "metadata.name", "n" * 101, "at most 100"),
    _bad("gateway-too-long", "spec.gateway", "g" * 41, "at most 40"),
    _bad("gateway-upper-case", "spec.gateway", "Default", "must match"),
    _bad("upstream-name-too-long", "spec.upstreams[0].name", "u" * 64, "at most 63", ("spec.defaultUpstream", ABSENT)),
    _bad("upstream-name-with-dot", "spec.upstreams[1].name", "a.b", "must match"),
    _bad("model-name-too-long", "spec.models[0].name", "m" * 201, "at most 200"),
    _bad("model-name-empty", "spec.models[1].name", "", "must not be empty"),
    _bad("model-star-inside", "spec.models[0].name", "gpt-*-mini", "must match"),
    _bad("model-two-stars", "spec.models[0].name", "gpt**", "must match"),
    _bad("model-with-space", "spec.models[0].name", "gpt 4o", "must match"),
    _bad("model-with-line-end", "spec.models[0].name", "gpt-4o\n", "must match"),
    _bad("fallback-a-pattern", "spec.models[0].fallbacks[0]", "llama*", "must match"),
    _bad("secret-name-with-slash", "spec.auth.keysFrom.secretRef.name", "../keys", "must match"),
    _bad("secret-key-with-dots", "spec.upstreams[0].credential.secretRef.key", "..data", "must match"),
)

TWICE = (
    _bad(
        "upstream-twice",
        "spec.upstreams[3]",
        {"name": "azure", "url": "https://b.example"},
        "is the name of spec.upstreams[1] already",
        at="spec.upstreams[3].name",
        api="spec.upstreams[3]",
    ),
    _bad(
        "model-twice",
        "spec.models[3]",
        {"name": "llama", "targets": [{"upstream": "azure"}]},
        "is the name of spec.models[1] already",
        at="spec.models[3].name",
        api="spec.models[3]",
    ),
    _bad(
        "limit-twice",
        "spec.limits[4]",
        {"name": "slots", "per": "Client", "requests": 1},
        "is the name of spec.limits[2] already",
        at="spec.limits[4].name",
        api="spec.limits[4]",
    ),
    _bad(
        "price-twice",
        "spec.prices[1]",
        {"model": "gpt-4o-eu", "inputPerMillion": "1", "outputPerMillion": "1"},
        "is the model of spec.prices[0] already",
        at="spec.prices[1].model",
        api="spec.prices[1]",
    ),
    _bad(
        "client-twice",
        "spec.auth.clients[1]",
        {"name": "web"},
        "is the name of spec.auth.clients[0] already",
        at="spec.auth.clients[1].name",
        api="spec.auth.clients[1]",
    ),
)

HEADERS = (
    _bad("header-injection", f"{_HEADERS}.x-team", "shop\r\nauthorization: Bearer x", "must match"),
    _bad("header-name-injection", f"{_HEADERS}.x-a: b\r\nx-c", "d", "must match", api=_HEADERS),
    _bad("header-name-with-space", f"{_HEADERS}.x team", "shop", "must match", api=_HEADERS),
    _bad("header-name-too-long", f"{_HEADERS}.x{'-' * 128}", "shop", "at most 128", api=_HEADERS),
    _bad("header-reserved", f"{_HEADERS}.Authorization", "Bearer x", "the gateway itself sets", api=_HEADERS),
    _bad("header-framing", f"{_HEADERS}.transfer-encoding", "chunked", "the gateway itself sets", api=_HEADERS),
    _bad("header-value-a-number", f"{_HEADERS}.x-team", 7, "must be a text"),
)

LIMITS = (
    _bad("limit-of-two-kinds", "spec.limits[0].tokens", 100, "exactly one of", at="spec.limits[0]"),
    _bad(
        "limit-of-no-kind",
        "spec.limits[0].requests",
        ABSENT,
        "exactly one of",
        ("spec.limits[0].window", ABSENT),
        at="spec.limits[0]",
    ),
    _bad("window-with-concurrency", "spec.limits[2].window", "60s", "belongs to requests and tokens only"),
    _bad("window-with-budget", "spec.limits[3].window", "60s", "belongs to requests and tokens only"),
    _bad("budget-in-words", "spec.limits[3].budget.usd", "20 dollars", "must match"),
    _bad("budget-negative", "spec.limits[3].budget.usd", "-20", "must match"),
    _bad("budget-a-number", "spec.limits[3].budget.usd", 20, "must be a text"),
    _bad("budget-of-a-year", "spec.limits[3].budget.period", "Year", "must be 'Hour', 'Day', 'Week' or 'Month'"),
    _bad("queue-of-requests", "spec.limits[0].queue", {"size": 1, "timeout": "1s"}, "belongs to concurrency only"),
    _bad("queue-of-nobody", "spec.limits[2].queue.size", 0, "must be at least 1"),
    _bad("queue-without-end", "spec.limits[2].queue.timeout", ABSENT, "is required"),
    _bad("queue-too-patient", "spec.limits[2].queue.timeout", "11m", "must be from 1ms to 10m"),
    _bad("queue-per-upstream", "spec.limits[2].per", "Upstream", "is not for a limit", at="spec.limits[2].queue"),
    _bad("price-in-euros", "spec.prices[0].inputPerMillion", "€2", "must match"),
    _bad("price-of-nothing", "spec.prices[0].model", ABSENT, "is required"),
    _bad("price-of-one-side", "spec.prices[0].outputPerMillion", ABSENT, "is required"),
    _bad("requests-0", "spec.limits[0].requests", 0, "must be at least 1"),
    _bad("per-unknown", "spec.limits[0].per", "User", "must be 'Client', 'Model', 'Upstream' or 'Gateway'"),
    _bad("scope-unknown", "spec.limits[0].scope", "Cluster", "must be 'Pod' or 'Gateway'"),
)

AUTH = (
    _bad("keys-without-keys-from", "spec.auth.keysFrom", ABSENT, "is required when mode is Keys"),
    _bad(
        "none-with-keys",
        "spec.auth.mode",
        "None",
        "has no effect when mode is None",
        ("spec.auth.clients", ABSENT),
        at="spec.auth.keysFrom",
    ),
    _bad(
        "none-with-clients",
        "spec.auth.mode",
        "None",
        "has no effect when mode is None",
        ("spec.auth.keysFrom", ABSENT),
        at="spec.auth.clients",
    ),
    _bad("mode-unknown", "spec.auth.mode", "Basic", "must be 'Keys' or 'None'"),
    _bad("expires-in-words", "spec.auth.clients[0].expiresAt", "tomorrow", "RFC 3339"),
    _bad("expires-a-date", "spec.auth.clients[0].expiresAt", "2027-01-01", "RFC 3339"),
    _bad("expires-without-zone", "spec.auth.clients[0].expiresAt", "2027-01-01T00:00:00", "RFC 3339"),
    _bad("expires-on-no-hour", "spec.auth.clients[0].expiresAt", "2027-01-01T24:00:00Z", "RFC 3339"),
    _bad("expires-a-number", "spec.auth.clients[0].expiresAt", 1798761600, "RFC 3339"),
    _bad("expires-a-list", "spec.auth.clients[0].expiresAt", [], "RFC 3339"),
    _bad("expires-on-no-day", "spec.auth.clients[0].expiresAt", "2027-02-30T00:00:00Z", "no time that there is"),
)

BOUNDS = (
    _bad("protocol-unknown", "spec.upstreams[0].protocol", "Gemini", "must be 'OpenAI' or 'Anthropic'"),
    _bad("weight-negative", "spec.models[0].targets[0].weight", -1, "must be at least 0"),
    _bad("weight-too-large", "spec.models[0].targets[0].weight", 1001, "must be at most 1000"),
    _bad("attempts-0", "spec.models[0].retry.attempts", 0, "must be at least 1"),
    _bad("attempts-6", "spec.models[0].retry.attempts", 6, "must be at most 5"),
    _bad("retry-percent-401", "spec.upstreams[0].retryBudget.percent", 401, "must be at most 400"),
    _bad("retry-burst-negative", "spec.upstreams[0].retryBudget.burst", -1, "must be at least 0"),
    _bad("sticky-header-of-two-words", "spec.models[0].sticky.header", "session id", "must match"),
    _bad("sticky-header-empty", "spec.models[0].sticky.header", "", "must not be empty"),
    _bad("sticky-without-header", "spec.models[0].sticky", {}, "is required", at="spec.models[0].sticky.header"),
    _bad("keep-alive-at-once", "spec.models[0].keepAlive.after", "0s", "must be from 100ms to 1h"),
    _bad("keep-alive-too-often", "spec.models[0].keepAlive.every", "1ms", "must be from 100ms to 1h"),
    _bad("connections-0", "spec.upstreams[0].pool.maxConnections", 0, "must be at least 1"),
    _bad("rate-above-1", "spec.logging.sample[0].rate", 1.1, "must be at most 1"),
    _bad("rate-negative", "spec.logging.sample[0].rate", -0.1, "must be at least 0"),
    _bad("sample-of-nothing", "spec.logging.sample[0].status", ABSENT, "at least one of", at="spec.logging.sample[0]"),
    _bad("sample-status", "spec.logging.sample[0].status", "6xx", "must match"),
)

SCHEMES = (
    _bad(
        "tls-on-http", "spec.upstreams[0].url", "http://api.openai.com", "needs an https://", at="spec.upstreams[0].tls"
    ),
    _bad(
        "credential-on-mock",
        "spec.upstreams[2].credential",
        {"secretRef": {"name": "a", "key": "b"}},
        "takes no credential",
    ),
    _bad("litellm-on-https", "spec.upstreams[1].litellm", {"dropParams": True}, "needs a litellm:// url"),
    _bad("litellm-anthropic", "spec.upstreams[3].protocol", "Anthropic", "must be OpenAI"),
    _bad("litellm-base-mock", "spec.upstreams[3].litellm.apiBase", "mock://local", "must begin with http:// or https"),
    _bad("litellm-base-query", "spec.upstreams[3].litellm.apiBase", "https://a.example?x=1", "query"),
    _bad("litellm-version", "spec.upstreams[3].litellm.apiVersion", "2024/06", "must match"),
    _bad("litellm-region", "spec.upstreams[3].litellm.region", "EU", "must match"),
)

REFERENCES = (
    _bad("default-upstream-unknown", "spec.defaultUpstream", "opneai", "no upstream"),
    _bad(
        "target-unknown", "spec.models[1].targets[0].upstream", "azrue", "no upstream is named 'azrue'", by="condition"
    ),
    _bad("fallback-unknown", f"{_NAMES}[1]", "cannde", "no model of this gateway is named 'cannde'", by="condition"),
    _bad(
        "fallback-itself",
        "spec.models[1].fallbacks",
        ["llama"],
        "llama -> llama",
        by="condition",
        at="spec.models[1].fallbacks[0]",
    ),
    _bad(
        "fallback-cycle",
        "spec.models[1].fallbacks",
        ["gpt-4o"],
        "llama -> gpt-4o -> llama",
        by="condition",
        at="spec.models[1].fallbacks[0]",
    ),
    _bad(
        "fallback-cycle-by-pattern",
        "spec.models[1]",
        {"name": "llama*", "targets": [{"upstream": "azure"}], "fallbacks": ["llama-3"]},
        "llama* -> llama*",
        by="condition",
        at="spec.models[1].fallbacks[0]",
    ),
    _bad(
        "model-of-an-older-route",
        "spec.models[3]",
        {**_TARGET, "name": "mine"},
        "belongs to the older route 'older'",
        by="condition",
        at="spec.models[3].name",
        older=(_OLDER,),
    ),
    _bad(
        "default-of-an-older-route",
        "spec.models",
        [{**_TARGET, "name": "new"}],
        "set by the older route 'older'",
        ("spec.auth.clients", ABSENT),
        by="condition",
        at="spec.defaultUpstream",
        older=(edited(full_route("older")),),
    ),
)

BAD_SPECS: tuple[BadSpec, ...] = (
    *TYPES,
    *UNKNOWN_FIELDS,
    *LISTS,
    *MISSING,
    *DURATIONS,
    *URLS,
    *NAMES,
    *TWICE,
    *HEADERS,
    *LIMITS,
    *AUTH,
    *BOUNDS,
    *SCHEMES,
    *REFERENCES,
)


def told_in_conditions() -> tuple[BadSpec, ...]:
    """The specs that the API server takes: the controller tells what is wrong, with `field` and `words`."""
    return tuple(bad for bad in BAD_SPECS if bad.refused_by == "condition")

"""The LLMRoute resource (`llmroute.dev/v1alpha1`), typed: what a platform team writes.

Owns every field's type, bound, default, description and the rules that can be checked within one object; the CRD is
generated from here (`crd.py`). Names that must exist elsewhere in the route or gateway are checked in `references.py`.
CEL rules stand beside the Python checks of the same thing: the API server refuses early, `llmroute validate` refuses
the same.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from llmroute_contract.problem import Problem, problems_of
from llmroute_contract.scalars import (
    URL_MAX_LENGTH,
    ClientName,
    DurationBetween,
    Instant,
    Label,
    ModelMatch,
    ModelName,
    SecretKey,
    SecretName,
    Usd,
    parse_upstream_url,
)

GROUP = "llmroute.dev"
VERSION = "v1alpha1"
KIND = "LLMRoute"
PLURAL = "llmroutes"
API_VERSION = f"{GROUP}/{VERSION}"

TOKEN_PATTERN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"  # noqa: S105 - RFC 9110 §5.6.2 `token`, the form of a header's name
HEADER_VALUE_PATTERN = r"^[\x20-\x7e]*$"
RESERVED_HEADERS = frozenset(
    [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
        "x-request-id",
        "x-trace-id",
        "traceparent",
    ]
)


def cel(rule: str, message: str) -> JsonDict:
    """One `x-kubernetes-validations` entry."""
    return {"rule": rule, "message": message}


class Part(BaseModel):
    """Base of every object in a route: camelCase outside, unknown fields refused, values frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


class SecretEntry(Part):
    name: SecretName
    """Name of a Secret in the route's namespace."""
    key: SecretKey
    """Which entry of the Secret."""


class SecretWhole(Part):
    name: SecretName
    """Name of a Secret in the route's namespace."""


class SecretEntrySource(Part):
    secret_ref: SecretEntry
    """The Secret's entry that holds the value. It is mounted into the gateway; the controller never reads it."""


class SecretSource(Part):
    secret_ref: SecretWhole
    """The Secret. It is mounted into the gateway; the controller never reads it."""


class Client(Part):
    name: ClientName
    """The client's name: the key of its entry in the Secret of `keysFrom`."""
    models: Annotated[list[ModelMatch], Field(min_length=1, max_length=256)] | None = None
    """Models that this client may use; a trailing `*` matches a prefix. Default: all of the route."""
    expires_at: Instant | None = None
    """From when on the client's key is refused (RFC 3339)."""


class Auth(Part):
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel("self.mode != 'Keys' || has(self.keysFrom)", "keysFrom is required when mode is Keys"),
                cel(
                    "self.mode != 'None' || !has(self.keysFrom)",
                    "keysFrom has no effect when mode is None; leave it out",
                ),
                cel(
                    "self.mode != 'None' || !has(self.clients)",
                    "clients have no effect when mode is None; leave them out",
                ),
            ]
        }
    )

    mode: Literal["Keys", "None"] = "Keys"
    """`Keys`: callers present a key from `keysFrom`. `None`: whoever reaches the loopback port is the pod itself."""
    keys_from: SecretSource | None = None
    """The Secret of client keys: each entry is a client's name and, as its value, the key (several: one a line)."""
    clients: Annotated[list[Client], Field(min_length=1, max_length=256)] | None = None
    """Per client: allowed models and expiry. A client of the Secret that is not listed here may use every model."""

    @model_validator(mode="after")
    def _mode_and_keys_agree(self) -> Self:
        if self.mode == "Keys" and self.keys_from is None:
            raise ValueError("keysFrom is required when mode is Keys")
        if self.mode == "None" and (self.keys_from is not None or self.clients is not None):
            raise ValueError("keysFrom and clients have no effect when mode is None; leave them out")
        return self


class Tls(Part):
    ca_from: SecretEntrySource | None = None
    """PEM certificates to trust instead of the system's."""
    client_cert_from: SecretSource | None = None
    """A kubernetes.io/tls Secret (`tls.crt`, `tls.key`) presented to the upstream."""


class Timeouts(Part):
    connect: Annotated[float, DurationBetween("1ms", "5m")] = 5.0
    """Until a connection, TLS included, stands."""
    first_token: Annotated[float, DurationBetween("1ms", "24h")] = 60.0
    """From sending the request until the first content of the answer."""
    idle: Annotated[float, DurationBetween("1ms", "24h")] = 60.0
    """Between two pieces of the answer."""
    request: Annotated[float, DurationBetween("1ms", "24h")] = 600.0
    """One attempt from its beginning to the last byte."""


class Breaker(Part):
    max_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Consecutive failures that open the breaker."""
    reset: Annotated[float, DurationBetween("1ms", "24h")] = 30.0
    """How long it stays open before one request probes the upstream."""


class Pool(Part):
    max_connections: Annotated[int, Field(ge=1, le=10000)] = 100
    """Connections to the upstream, at most, per gateway; more requests wait, within `timeouts.connect`."""


def _url(text: str) -> str:
    parse_upstream_url(text)
    return text


Url = Annotated[
    str,
    StringConstraints(min_length=8, max_length=URL_MAX_LENGTH),
    AfterValidator(_url),
    Field(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "self.matches('^(http|https|mock|litellm)://')",
                    "must begin with http://, https://, mock:// or litellm://",
                ),
                cel(
                    "!self.matches('^[a-z]+://[^/?#]*@')",
                    "must not hold a user or password; use credential.secretRef",
                ),
                cel(
                    "!self.matches('^(http|https|mock)://') || (isURL(self) && url(self).getHost() != '')",
                    "must be a URL with a host",
                ),
                cel("!self.contains('#')", "must not have a #fragment"),
                cel(
                    "!self.matches('^https?://') || !self.contains('?')",
                    "must not have a ?query; it is a base to which paths are added",
                ),
                cel(r"self.matches('^[\\x21-\\x7e]+$')", "must be printable ASCII without spaces"),
                cel(
                    "!self.contains('%') && !self.matches('/[.][.]?(/|$)')",
                    "must have a plain path: no %-escapes, no dot segments",
                ),
            ]
        }
    ),
]


class Upstream(Part):
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel("!has(self.tls) || self.url.startsWith('https://')", "tls needs an https:// url"),
                cel(
                    "!has(self.credential) || !self.url.startsWith('mock://')",
                    "a mock:// upstream takes no credential",
                ),
            ]
        }
    )

    name: Label
    """The upstream's name, by which targets, `/v1/circuit-breakers` and metrics know it."""
    url: Url
    """The provider's base URL, as an SDK's base_url: http(s)://host[:port][/path] (no path means /v1),
    mock://local?latency=200ms, \
mock://fail, or litellm://provider/model."""
    protocol: Literal["OpenAI", "Anthropic"] = "OpenAI"
    """Which provider's API the upstream speaks: decides the credential's header and the paths it is sent."""
    credential: SecretEntrySource | None = None
    """The provider's API key."""
    tls: Tls | None = None
    """How to trust and be trusted by an https:// upstream."""
    headers: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(pattern=TOKEN_PATTERN, min_length=1, max_length=128)],
                Annotated[str, StringConstraints(pattern=HEADER_VALUE_PATTERN, max_length=1024)],
            ],
            Field(
                min_length=1,
                max_length=32,
                json_schema_extra={
                    "x-kubernetes-validations": [
                        cel(
                            f"self.all(name, name.size() <= 128 && name.matches('{TOKEN_PATTERN.replace(chr(39), chr(92) + chr(39))}'))",
                            "names must be header names (RFC 9110 tokens) of at most 128 characters",
                        ),
                        cel(
                            f"self.all(name, !(name.lowerAscii() in {sorted(RESERVED_HEADERS)!r}))",
                            "must not set a header that the gateway itself sets; for keys use credential.secretRef",
                        ),
                        cel(
                            r"self.all(name, self[name].matches('^[\\x20-\\x7e]*$'))",
                            "values must be printable ASCII",
                        ),
                    ]
                },
            ),
        ]
        | None
    ) = None
    """Headers added to each request to this upstream. Not for keys: those belong in `credential`."""
    timeouts: Timeouts = Timeouts()
    """Limits in time for one attempt."""
    breaker: Breaker = Breaker()
    """When to stop calling this upstream for a while."""
    pool: Pool = Pool()
    """Connections kept to this upstream."""

    @model_validator(mode="after")
    def _fields_suit_the_scheme(self) -> Self:
        if self.tls is not None and not self.url.startswith("https://"):
            raise ValueError("tls needs an https:// url")
        if self.credential is not None and self.url.startswith("mock://"):
            raise ValueError("a mock:// upstream takes no credential")
        for name in self.headers or {}:
            if name.lower() in RESERVED_HEADERS:
                raise ValueError(
                    f"headers must not set {name}, which the gateway itself sets; for keys use credential.secretRef"
                )
        return self


class Target(Part):
    upstream: Label
    """Name of an upstream of this route."""
    model: ModelName | None = None
    """The upstream's name for the model. Default: the name that the client asked for."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Share of the traffic, relative to the model's other targets; 0: only when the others fail."""


class Retry(Part):
    attempts: Annotated[int, Field(ge=1, le=5)] = 1
    """Tries per target, the first one included."""
    backoff: Annotated[float, DurationBetween("0ms", "1m")] = 0.2
    """Wait before the second try; doubled for each further one, with jitter."""


class Model(Part):
    name: ModelMatch
    """What clients ask for: an exact name, or with a trailing `*` a prefix. The longest match wins."""
    targets: Annotated[list[Target], Field(min_length=1, max_length=16)]
    """Where the model goes."""
    fallbacks: Annotated[list[ModelName], Field(min_length=1, max_length=16)] | None = None
    """Other models of this gateway, tried in order (with their own fallbacks) once every target has failed."""
    retry: Retry = Retry()
    """Tries at the same target before the next one."""


class Budget(Part):
    usd: Usd
    """US dollars, as a decimal text."""
    period: Literal["Hour", "Day", "Week", "Month"]
    """Calendar period in UTC after which the budget starts anew."""


class Limit(Part):
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "(has(self.requests)?1:0) + (has(self.tokens)?1:0) + (has(self.concurrency)?1:0) + (has(self.budget)?1:0) == 1",
                    "exactly one of requests, tokens, concurrency and budget must be set",
                ),
                cel(
                    "!has(self.window) || has(self.requests) || has(self.tokens)",
                    "window belongs to requests and tokens only",
                ),
            ]
        }
    )

    name: Label
    """The limit's name, told to a client that reaches it."""
    per: Literal["Client", "Model", "Upstream", "Gateway"]
    """What is counted apart: each client, each model asked for, each upstream that served, or all of the route's
    calls together."""
    requests: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Requests per window."""
    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None
    """Tokens, in and out, per window."""
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests at the same time."""
    budget: Budget | None = None
    """Money per calendar period."""
    window: Annotated[float, DurationBetween("1s", "24h")] | None = None
    """Length of the sliding window of `requests` and `tokens`. Default: 60s."""
    scope: Literal["Pod", "Gateway"] = "Pod"
    """`Pod`: counted in each gateway process. `Gateway`: the sum over all pods of the gateway."""

    @model_validator(mode="after")
    def _counts_exactly_one_thing(self) -> Self:
        counted = [self.requests, self.tokens, self.concurrency, self.budget]
        if sum(value is not None for value in counted) != 1:
            raise ValueError("exactly one of requests, tokens, concurrency and budget must be set")
        if self.window is not None and self.requests is None and self.tokens is None:
            raise ValueError("window belongs to requests and tokens only")
        return self


class LogSample(Part):
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "has(self.status) || has(self.client) || has(self.model)",
                    "at least one of status, client and model must be set",
                )
            ]
        }
    )

    status: Annotated[str, StringConstraints(pattern=r"^([1-5]xx|[1-5][0-9][0-9])$", max_length=3)] | None = None
    """A status (`429`) or a class of them (`2xx`)."""
    client: ClientName | None = None
    """A client's name."""
    model: ModelMatch | None = None
    """A model; a trailing `*` matches a prefix."""
    rate: Annotated[float, Field(ge=0, le=1)]
    """Share of the matching requests that are logged. Errors are logged always."""

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if self.status is None and self.client is None and self.model is None:
            raise ValueError("at least one of status, client and model must be set")
        return self


class Logging(Part):
    sample: Annotated[list[LogSample], Field(min_length=1, max_length=32)]
    """The first rule that matches a request decides; without a match it is logged."""


class LLMRouteSpec(Part):
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(
                    "has(self.models) || has(self.defaultUpstream)",
                    "models or defaultUpstream must be set, or the route serves nothing",
                ),
                cel(
                    "!has(self.defaultUpstream) || self.upstreams.exists(u, u.name == self.defaultUpstream)",
                    "defaultUpstream must name one of the upstreams",
                ),
            ]
        }
    )

    gateway: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=40)
    ] = "default"
    """The gateway that serves this route: pods choose one by name."""
    auth: Auth
    """Who may call."""
    upstreams: Annotated[list[Upstream], Field(min_length=1, max_length=64)]
    """The provider endpoints that this route uses."""
    models: Annotated[list[Model], Field(min_length=1, max_length=1000)] | None = None
    """The models that this route serves."""
    default_upstream: Label | None = None
    """Upstream for models that no route of the gateway names; the model's name is passed on as it is."""
    limits: Annotated[list[Limit], Field(min_length=1, max_length=64)] | None = None
    """Limits on the calls to this route's models. All that apply must hold."""
    logging: Logging | None = None
    """Which requests are logged."""

    @model_validator(mode="after")
    def _serves_something(self) -> Self:
        if self.models is None and self.default_upstream is None:
            raise ValueError("models or defaultUpstream must be set, or the route serves nothing")
        return self


class Metadata(BaseModel):
    """Of Kubernetes' ObjectMeta, what a route needs. Other fields are Kubernetes' own and let through."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=100)]
    namespace: Label = "default"
    generation: int = 0
    creation_timestamp: Instant | None = None


class Condition(Part):
    """A condition as Kubernetes' own types have it (`metav1.Condition`)."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """Accepted, ResolvedRefs, Programmed or Synced."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    observed_generation: int = 0
    """The generation of the spec that this was said of."""
    last_transition_time: Instant
    """When `status` last changed."""
    reason: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", min_length=1, max_length=1024),
    ]
    """One word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)]
    """Sentences for people, naming the field."""


class SidecarSample(Part):
    pod: Annotated[str, StringConstraints(max_length=253)]
    """The pod's name."""
    revision: Annotated[str, StringConstraints(max_length=64)] = ""
    """The revision that it serves."""
    reason: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Why it is not the gateway's."""


class Sidecars(Part):
    total: int = 0
    """Pods that serve this gateway."""
    synced: int = 0
    """Those that serve its current revision."""
    samples: Annotated[list[SidecarSample], Field(max_length=5)] | None = None
    """Up to five that do not."""


class LLMRouteStatus(Part):
    observed_generation: int = 0
    """The newest generation that the controller has looked at."""
    conditions: Annotated[list[Condition], Field(max_length=16)] | None = None
    """Accepted, ResolvedRefs, Programmed and Synced."""
    revision: Annotated[str, StringConstraints(max_length=64)] = ""
    """Content digest of the gateway's compiled configuration, as the gateways' /status shows it."""
    sidecars: Sidecars | None = None
    """Which pods serve the revision."""


class LLMRoute(BaseModel):
    """LLMRoute says which LLM models the gateways in this namespace's pods serve: where each goes, what it falls back
    to, and who may use how much of it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    api_version: Literal["llmroute.dev/v1alpha1"]
    kind: Literal["LLMRoute"]
    metadata: Metadata
    spec: LLMRouteSpec
    status: Any = None


def parse_spec(document: object, prefix: str = "spec") -> LLMRouteSpec | tuple[Problem, ...]:
    """A route's `spec` as read from YAML or the API server, or what is wrong with it."""
    try:
        return LLMRouteSpec.model_validate(document)
    except ValidationError as error:
        return problems_of(error, prefix)


def parse_route(document: object) -> LLMRoute | tuple[Problem, ...]:
    """A whole LLMRoute document, or what is wrong with it."""
    try:
        return LLMRoute.model_validate(document)
    except ValidationError as error:
        return problems_of(error)

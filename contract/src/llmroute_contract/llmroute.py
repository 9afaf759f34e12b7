"""The LLMRoute resource (`llmroute.dev/v1alpha1`), typed: what a platform team writes.

Owns every field's type, bound, default, description and the rules that can be checked within one object (upstreams
are in `upstream.py`, the status in `status.py`); the CRD is generated from here (`crd.py`). Names that must exist
elsewhere in the route or gateway are checked in `references.py`. CEL rules stand beside the Python checks of the same
thing: the API server refuses early, `llmroute validate` refuses the same.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from llmroute_contract.fields import (
    ClientName,
    DurationBetween,
    Instant,
    KubernetesTime,
    Label,
    ModelMatch,
    ModelName,
    Usd,
)
from llmroute_contract.part import Part, SecretSource, cel, rules
from llmroute_contract.problem import Problem, WrongField, problems_of
from llmroute_contract.scalars import LABEL_PATTERN, SUBDOMAIN_PATTERN
from llmroute_contract.status import Condition, LLMRouteStatus
from llmroute_contract.upstream import HeaderName, Upstream

GROUP = "llmroute.dev"
VERSION = "v1alpha1"
KIND = "LLMRoute"
PLURAL = "llmroutes"
API_VERSION = f"{GROUP}/{VERSION}"
NAME_MAX_LENGTH = 100
"""Of a route: its name is part of a ConfigMap's key and of an upstream's id, `<route>/<name>`."""


class Client(Part):
    name: ClientName
    """The client's name: the key of its entry in the Secret of `keysFrom`."""
    models: Annotated[list[ModelMatch], Field(min_length=1, max_length=256)] | None = None
    """Models that this client may use; a trailing `*` matches a prefix. Default: all of the route."""
    expires_at: Instant | None = None
    """From when on the client's key is refused (RFC 3339)."""


class Auth(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "self.mode != 'Keys' || has(self.keysFrom)",
                "is required when mode is Keys",
                field="keysFrom",
                reason="FieldValueRequired",
            ),
            cel("self.mode != 'None' || !has(self.keysFrom)", "has no effect when mode is None", field="keysFrom"),
            cel("self.mode != 'None' || !has(self.clients)", "has no effect when mode is None", field="clients"),
        )
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
            raise WrongField("is required when mode is Keys", "keysFrom")
        for field, value in (("keysFrom", self.keys_from), ("clients", self.clients)):
            if self.mode == "None" and value is not None:
                raise WrongField("has no effect when mode is None", field)
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


class Sticky(Part):
    header: HeaderName
    """Requests with the same value of this header go to the same target while it can serve, in every pod. Those
    without the header are shared out by weight."""


class KeepAlive(Part):
    after: Annotated[float, DurationBetween("100ms", "1h")] = 20.0
    """Silence after which a streamed answer is begun with a sign of life. That ends the time for fallbacks: what fails
    later is told within the stream."""
    every: Annotated[float, DurationBetween("100ms", "1h")] = 15.0
    """Silence after which the next sign of life is sent."""


class Model(Part):
    name: ModelMatch
    """What clients ask for: an exact name, or with a trailing `*` a prefix. The longest match wins."""
    targets: Annotated[list[Target], Field(min_length=1, max_length=16)]
    """Where the model goes."""
    fallbacks: Annotated[list[ModelName], Field(min_length=1, max_length=16)] | None = None
    """Other models of this gateway, tried in order (with their own fallbacks) once every target has failed."""
    retry: Retry = Retry()
    """Tries at the same target before the next one."""
    sticky: Sticky | None = None
    """Which requests belong together. Default: each one goes where the weights say."""
    keep_alive: KeepAlive | None = None
    """Signs of life (SSE comments, or pings as Anthropic has them) in streams that are silent, for proxies that would
    cut them. Default: none."""


class Budget(Part):
    usd: Usd
    """US dollars, as a decimal text."""
    period: Literal["Hour", "Day", "Week", "Month"]
    """Calendar period in UTC after which the budget starts anew."""


class Queue(Part):
    size: Annotated[int, Field(ge=1, le=10_000)]
    """Calls that may wait, for each key that is counted apart."""
    timeout: Annotated[float, DurationBetween("1ms", "10m")]
    """How long each of them waits, at most."""


_LIMIT_KINDS = ("requests", "tokens", "concurrency", "budget")
_ONE_KIND = "exactly one of requests, tokens, concurrency and budget must be set"
_NO_LINE = "is not for a limit per Upstream: the targets of one that is used up are passed over"


class Limit(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(" + ".join(f"(has(self.{kind}) ? 1 : 0)" for kind in _LIMIT_KINDS) + " == 1", _ONE_KIND),
            cel(
                "!has(self.window) || has(self.requests) || has(self.tokens)",
                "belongs to requests and tokens only",
                field="window",
            ),
            cel("!has(self.queue) || has(self.concurrency)", "belongs to concurrency only", field="queue"),
            cel("!has(self.queue) || self.per != 'Upstream'", _NO_LINE, field="queue"),
        )
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
    queue: Queue | None = None
    """A line for the slots of `concurrency`, first come, first served. Default: none; a call without a slot is
    refused."""
    budget: Budget | None = None
    """Money per calendar period."""
    window: Annotated[float, DurationBetween("1s", "24h")] | None = None
    """Length of the sliding window of `requests` and `tokens`. Default: 60s."""
    scope: Literal["Pod", "Gateway"] = "Pod"
    """`Pod`: counted in each gateway process. `Gateway`: the sum over all pods of the gateway."""

    @model_validator(mode="after")
    def _counts_exactly_one_thing(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in _LIMIT_KINDS) != 1:
            raise ValueError(_ONE_KIND)
        if self.window is not None and self.requests is None and self.tokens is None:
            raise WrongField("belongs to requests and tokens only", "window")
        if self.queue is not None and self.concurrency is None:
            raise WrongField("belongs to concurrency only", "queue")
        if self.queue is not None and self.per == "Upstream":
            raise WrongField(_NO_LINE, "queue")
        return self


class ModelPrice(Part):
    model: ModelMatch
    """The upstream's name for the model, as in a target; a trailing `*` matches a prefix."""
    input_per_million: Usd
    """US dollars for a million tokens in, as a decimal text."""
    output_per_million: Usd
    """US dollars for a million tokens out."""


_ONE_CHOICE = "at least one of status, client and model must be set"


class LogSample(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(cel("has(self.status) || has(self.client) || has(self.model)", _ONE_CHOICE))
    )

    status: Annotated[str, StringConstraints(pattern=r"^([1-5]xx|[1-5][0-9][0-9])$", max_length=3)] | None = None
    """A status (`429`) or a class of them (`2xx`)."""
    client: ClientName | None = None
    """A client's name."""
    model: ModelMatch | None = None
    """A model; a trailing `*` matches a prefix."""
    rate: Annotated[float, Field(ge=0, le=1)]
    """Share of the matching requests that are logged. What the gateway or an upstream broke (5xx, broken streams) is
    logged always; other errors are, unless the rule names their status."""

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if self.status is None and self.client is None and self.model is None:
            raise ValueError(_ONE_CHOICE)
        return self


class Logging(Part):
    sample: Annotated[list[LogSample], Field(min_length=1, max_length=32)]
    """The first rule that matches a request decides; without a match it is logged. Requests of one trace are logged all
    or none."""


_SERVES_NOTHING = "models or defaultUpstream must be set, or the route serves nothing"


class SharedState(Part):
    when_unavailable: Literal["FailOpen", "FailClosed"] = "FailOpen"
    """`FailOpen`: limits of scope Gateway are counted in each pod meanwhile. `FailClosed`: calls that such a limit
    applies to are refused with 503."""


class LLMRouteSpec(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("has(self.models) || has(self.defaultUpstream)", _SERVES_NOTHING),
            cel(
                "!has(self.defaultUpstream) || self.upstreams.exists(u, u.name == self.defaultUpstream)",
                "no upstream of this route has that name",
                field="defaultUpstream",
            ),
        )
    )

    gateway: Annotated[str, StringConstraints(pattern=LABEL_PATTERN, min_length=1, max_length=40)] = "default"
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
    shared_state: SharedState | None = None
    """What becomes of limits of scope Gateway while the server that counts them cannot be reached. Default:
    FailOpen."""
    prices: Annotated[list[ModelPrice], Field(min_length=1, max_length=256)] | None = None
    """What models cost, for budgets. They count before the gateway's own table of known models."""
    logging: Logging | None = None
    """Which requests are logged."""

    @model_validator(mode="after")
    def _serves_something(self) -> Self:
        if self.models is None and self.default_upstream is None:
            raise ValueError(_SERVES_NOTHING)
        return self


class Metadata(Part):
    """Of Kubernetes' ObjectMeta, what a route needs. Other fields are Kubernetes' own and let through."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, StringConstraints(pattern=SUBDOMAIN_PATTERN, min_length=1, max_length=NAME_MAX_LENGTH)]
    namespace: Label = "default"
    generation: int = 0
    creation_timestamp: KubernetesTime | None = None


class LLMRoute(Part):
    """LLMRoute says which LLM models the gateways in this namespace's pods serve: where each goes, what it falls back
    to, and who may use how much of it."""

    api_version: Literal["llmroute.dev/v1alpha1"]
    kind: Literal["LLMRoute"]
    metadata: Metadata
    spec: LLMRouteSpec
    """What the gateway is to serve."""
    status: Any = None
    """What the controller found, and how far the pods have come. Not for people to write."""


def parse_spec(document: object, prefix: str = "spec") -> LLMRouteSpec | tuple[Problem, ...]:
    """A route's `spec` as read from YAML or the API server, or what is wrong with it."""
    try:
        return LLMRouteSpec.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        return problems_of(error, LLMRouteSpec, prefix)


def parse_route(document: object) -> LLMRoute | tuple[Problem, ...]:
    """A whole LLMRoute document, or what is wrong with it."""
    try:
        return LLMRoute.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        return problems_of(error, LLMRoute)


__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "NAME_MAX_LENGTH",
    "PLURAL",
    "VERSION",
    "Auth",
    "Client",
    "Condition",
    "LLMRoute",
    "LLMRouteSpec",
    "LLMRouteStatus",
    "Limit",
    "Model",
    "Upstream",
    "parse_route",
    "parse_spec",
]

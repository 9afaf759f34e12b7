"""`spec.upstreams`: one provider endpoint each. Owns the rules of its URL and of the headers it may be sent."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from llmroute_contract.fields import DurationBetween, Label
from llmroute_contract.part import Part, SecretEntrySource, SecretSource, cel, rules
from llmroute_contract.problem import WrongField
from llmroute_contract.scalars import HOST_PATTERN, PATH_PATTERN, PORT_PATTERN, URL_MAX_LENGTH
from llmroute_contract.upstream_url import (
    LITELLM_URL_EXPECTED,
    LITELLM_URL_PATTERN,
    PARAMETERS,
    check_upstream_url,
)

TOKEN_PATTERN = r"^[!#$%&*+.^_`|~0-9A-Za-z-]+$"  # noqa: S105 - RFC 9110 §5.6.2 `token` without its apostrophe
HEADER_VALUE_PATTERN = r"^[\x20-\x7e]*$"
HEADER_NAME_MAX_LENGTH = 128
RESERVED_HEADERS = (
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
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-request-id",
    "x-trace-id",
)
"""What the gateway itself sets or must not forward; in lower case, sorted."""
_RESERVED_MESSAGE = "must not set a header that the gateway itself sets; for keys use credential.secretRef"


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
    scope: Literal["Pod", "Gateway"] = "Pod"
    """`Pod`: each gateway process finds out for itself. `Gateway`: one that opens tells the others of its gateway,
    through the shared state."""


class RetryBudget(Part):
    percent: Annotated[int, Field(ge=0, le=400)] = 20
    """Retries for each hundred first tries, at most. With 5 tries per target 400 sets no bound."""
    burst: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Retries beyond that, for when there is little traffic."""


class Pool(Part):
    max_connections: Annotated[int, Field(ge=1, le=10000)] = 100
    """Connections to the upstream, at most, per gateway; more requests wait, within `timeouts.connect`."""


def _url(text: str) -> str:
    check_upstream_url(text)
    return text


_MOCK_PARAMETER = "|".join(f"{name}=({pattern})" for name, (pattern, _) in PARAMETERS.items())
# `check_upstream_url` in CEL, so that `kubectl apply` tells. Each rule lets through what another one refuses.
_ANY_URL_RULES = (
    cel("!self.matches('^[a-z]+://[^/?#]*@')", "must not hold a user or password; use credential.secretRef"),
    cel(
        f"!self.contains('://') || self.matches(r'^[^:]*://([^/?#]*@)?{HOST_PATTERN}(:{PORT_PATTERN})?([/?#].*)?$')",
        "must name a host after ://, and no port or one from 1 to 65535",
    ),
    cel("!self.contains('#')", "must not have a #fragment"),
    cel(
        "self.startsWith('mock://') || !self.contains('?')",
        "must not have a ?query; it is a base to which paths are added",
    ),
    cel(r"self.matches(r'^[\x21-\x7e]+$')", "must be printable ASCII without spaces"),
    cel(
        "!self.contains('%') && !self.matches('/[.][.]?(/|$)') && "
        f"self.matches('^[^:]*:(//[^/?#]*)?{PATH_PATTERN}([?#].*)?$')",
        "must have a plain path: no %-escapes, no dot segments, none of the characters that URLs escape",
    ),
)
_URL_RULES = rules(
    cel("self.matches('^(http|https|mock|litellm)://')", "must begin with http://, https://, mock:// or litellm://"),
    *_ANY_URL_RULES,
    cel(
        f"!self.startsWith('mock://') || "
        f"self.matches('^[^?#]*([?]({_MOCK_PARAMETER})?(&({_MOCK_PARAMETER})?)*)?([#].*)?$')",
        "as parameters mock:// has " + ", ".join(f"{name} ({form})" for name, (_, form) in PARAMETERS.items()),
    ),
    cel(f"!self.startsWith('litellm://') || self.matches('{LITELLM_URL_PATTERN}')", LITELLM_URL_EXPECTED),
)
Url = Annotated[
    str,
    StringConstraints(min_length=8, max_length=URL_MAX_LENGTH),
    AfterValidator(_url),
    Field(json_schema_extra=_URL_RULES),
]


_HTTP_URL_EXPECTED = "must begin with http:// or https://"


def _http_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(_HTTP_URL_EXPECTED)
    check_upstream_url(text)
    return text


HttpUrl = Annotated[
    str,
    StringConstraints(min_length=8, max_length=URL_MAX_LENGTH),
    AfterValidator(_http_url),
    Field(json_schema_extra=rules(cel("self.matches('^https?://')", _HTTP_URL_EXPECTED), *_ANY_URL_RULES)),
]
_LITELLM_PROTOCOL = "must be OpenAI: that is what litellm:// speaks, whatever the provider does"


def _none_reserved(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() in RESERVED_HEADERS:
            raise WrongField(_RESERVED_MESSAGE, name)
    return headers


HeaderName = Annotated[str, StringConstraints(pattern=TOKEN_PATTERN, min_length=1, max_length=HEADER_NAME_MAX_LENGTH)]
HeaderValue = Annotated[str, StringConstraints(pattern=HEADER_VALUE_PATTERN, max_length=1024)]
# A structural schema says nothing of a map's keys, so CEL does.
_HEADER_RULES = rules(
    cel(
        f"self.all(name, name.size() <= {HEADER_NAME_MAX_LENGTH} && name.matches('{TOKEN_PATTERN}'))",
        f"names must be header names (RFC 9110 tokens) of at most {HEADER_NAME_MAX_LENGTH} characters",
    ),
    cel(f"self.all(name, !(name.lowerAscii() in {list(RESERVED_HEADERS)!r}))", _RESERVED_MESSAGE),
)
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    Field(min_length=1, max_length=32, json_schema_extra=_HEADER_RULES),
    AfterValidator(_none_reserved),
]


class Litellm(Part):
    api_base: HttpUrl | None = None
    """The base URL of a deployment of one's own (Azure, a self-hosted server) instead of the provider's public one."""
    api_version: Annotated[str, StringConstraints(pattern=r"^[-A-Za-z0-9.]+$", max_length=64)] | None = None
    """The version of the provider's API, where it has several (Azure)."""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=64)] | None = None
    """The provider's region, where it has several (AWS)."""
    drop_params: bool = False
    """Whether parameters that the provider does not know are dropped instead of refused with 400."""


class Upstream(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("!has(self.tls) || self.url.startsWith('https://')", "needs an https:// url", field="tls"),
            cel(
                "!has(self.credential) || !self.url.startsWith('mock://')",
                "has no effect: a mock:// upstream takes no credential",
                field="credential",
            ),
            cel("!has(self.litellm) || self.url.startsWith('litellm://')", "needs a litellm:// url", field="litellm"),
            cel(
                "!self.url.startsWith('litellm://') || !has(self.protocol) || self.protocol == 'OpenAI'",
                _LITELLM_PROTOCOL,
                field="protocol",
            ),
        )
    )

    name: Label
    """The upstream's name, by which targets, `/v1/circuit-breakers` and metrics know it."""
    url: Url
    """The provider's base URL, as an SDK's base_url: http(s)://host[:port][/path] (no path means /v1),
    mock://local?latency=200ms, mock://fail, or litellm://provider/model."""
    protocol: Literal["OpenAI", "Anthropic"] = "OpenAI"
    """Which provider's API the upstream speaks: decides the credential's header and the paths it is sent."""
    credential: SecretEntrySource | None = None
    """The provider's API key."""
    tls: Tls | None = None
    """How to trust and be trusted by an https:// upstream."""
    headers: Headers | None = None
    """Headers added to each request to this upstream. Not for keys: those belong in `credential`."""
    litellm: Litellm | None = None
    """What litellm needs to know of the provider beside its name and the model, for a litellm:// upstream."""
    timeouts: Timeouts = Timeouts()
    """Limits in time for one attempt."""
    breaker: Breaker = Breaker()
    """When to stop calling this upstream for a while."""
    retry_budget: RetryBudget = RetryBudget()
    """How much of this upstream's traffic may be retries, so that they do not add to its trouble."""
    pool: Pool = Pool()
    """Connections kept to this upstream."""

    @model_validator(mode="after")
    def _fields_suit_the_scheme(self) -> Self:
        if self.tls is not None and not self.url.startswith("https://"):
            raise WrongField("needs an https:// url", "tls")
        if self.credential is not None and self.url.startswith("mock://"):
            raise WrongField("has no effect: a mock:// upstream takes no credential", "credential")
        if self.litellm is not None and not self.url.startswith("litellm://"):
            raise WrongField("needs a litellm:// url", "litellm")
        if self.protocol != "OpenAI" and self.url.startswith("litellm://"):
            raise WrongField(_LITELLM_PROTOCOL, "protocol")
        return self

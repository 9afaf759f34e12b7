"""The compiled configuration: what the controller writes into the ConfigMap and a gateway serves from.

Owns its types, its schema version, its canonical bytes and the revision. Files of one gateway:
`gateway.json` (a `CompiledGateway`: revision and the list of routes) and one `route.<name>.json` (a `CompiledRoute`)
each. Unknown fields are let through within one schema version, so that an older gateway can read a newer operator's
files. Durations are seconds. Secrets are named, never held.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from llmroute_contract.scalars import USD_PATTERN
from llmroute_contract.upstream_url import check_upstream_url

SCHEMA_VERSION = 1
GATEWAY_FILE = "gateway.json"
CONFIGMAP_PREFIX = "llmroute-gateway-"
CONFIGMAP_MAX_BYTES = 1024 * 1024 - 16 * 1024
"""Kubernetes refuses a ConfigMap above 1 MiB; the margin is for its metadata and managedFields."""

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Usd = Annotated[str, msgspec.Meta(pattern=USD_PATTERN)]


class Compiled(msgspec.Struct, frozen=True, rename="camel", omit_defaults=False):
    """Base of the compiled types: immutable, camelCase outside."""


class SecretEntry(Compiled, frozen=True):
    name: str
    key: str


class CompiledClient(Compiled, frozen=True):
    name: str
    models: tuple[str, ...] | None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None


class CompiledAuth(Compiled, frozen=True):
    mode: Literal["Keys", "None"]
    keys_secret: str | None
    clients: tuple[CompiledClient, ...]


class CompiledTls(Compiled, frozen=True):
    ca: SecretEntry | None
    client_cert_secret: str | None


class CompiledLitellm(Compiled, frozen=True):
    api_base: str | None
    api_version: str | None
    region: str | None
    drop_params: bool


class CompiledUpstream(Compiled, frozen=True):
    name: str
    url: str
    protocol: Literal["OpenAI", "Anthropic"]
    credential: SecretEntry | None
    tls: CompiledTls | None
    headers: dict[str, str]
    connect_timeout: _Positive
    first_token_timeout: _Positive
    idle_timeout: _Positive
    request_timeout: _Positive
    breaker_max_failures: _Count
    breaker_reset: _Positive
    pool_max_connections: _Count
    retry_percent: Annotated[int, msgspec.Meta(ge=0)] = 20
    retry_burst: Annotated[int, msgspec.Meta(ge=0)] = 10
    """The defaults are for files that an operator without these fields wrote."""
    breaker_scope: Literal["Gateway"] | msgspec.UnsetType = msgspec.UNSET
    """Left out for Pod."""
    litellm: CompiledLitellm | msgspec.UnsetType = msgspec.UNSET
    """Left out where it is not set, so that routes without it keep their bytes and their revision."""


class CompiledTarget(Compiled, frozen=True):
    upstream: str
    model: str | None
    weight: Annotated[int, msgspec.Meta(ge=0)]


class CompiledModel(Compiled, frozen=True):
    name: str
    targets: Annotated[tuple[CompiledTarget, ...], msgspec.Meta(min_length=1)]
    fallbacks: tuple[str, ...]
    retry_attempts: _Count
    retry_backoff: Annotated[float, msgspec.Meta(ge=0)]
    sticky_header: str | None = None
    """In lower case."""
    keep_alive_after: _Positive | None = None
    keep_alive_every: _Positive | None = None


class CompiledBudget(Compiled, frozen=True):
    usd: _Usd
    period: Literal["Hour", "Day", "Week", "Month"]


class CompiledQueue(Compiled, frozen=True):
    size: _Count
    timeout: _Positive


class CompiledLimit(Compiled, frozen=True):
    name: str
    per: Literal["Client", "Model", "Upstream", "Gateway"]
    scope: Literal["Pod", "Gateway"]
    window: _Positive | None
    requests: _Count | None
    tokens: _Count | None
    concurrency: _Count | None
    budget: CompiledBudget | None
    queue: CompiledQueue | msgspec.UnsetType = msgspec.UNSET
    """Left out where it is not set, as in CompiledUpstream.litellm."""


class CompiledLogSample(Compiled, frozen=True):
    status: str | None
    client: str | None
    model: str | None
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)]


class CompiledRoute(Compiled, frozen=True):
    schema_version: int
    name: str
    namespace: str
    gateway: str
    generation: int
    auth: CompiledAuth
    upstreams: tuple[CompiledUpstream, ...]
    models: tuple[CompiledModel, ...]
    default_upstream: str | None
    limits: tuple[CompiledLimit, ...]
    log_sample: tuple[CompiledLogSample, ...]
    prices: dict[str, tuple[_Usd, _Usd]] | msgspec.UnsetType = msgspec.UNSET
    """Model of an upstream, or a prefix with a trailing `*` -> US dollars for a million tokens, in and out."""
    when_unavailable: Literal["FailClosed"] | msgspec.UnsetType = msgspec.UNSET
    """Of the shared state. Left out for FailOpen."""


class RouteEntry(Compiled, frozen=True):
    """A route in `gateway.json`. `digest` is the SHA-256 of its file's bytes, in hex."""

    name: str
    file: str
    digest: str
    generation: int


class CompiledSharedState(Compiled, frozen=True):
    """Where limits of scope Gateway are counted. `secret` names a Secret with SECRET_ENTRIES (shared_state.py)."""

    url: str
    secret: str | None


class CompiledShares(Compiled, frozen=True):
    """By how many pods limits of scope Gateway are divided, and who has what is left over (shares.py)."""

    pods: _Count
    first: tuple[str, ...]
    """Names of pods, the oldest first."""


class CompiledGateway(Compiled, frozen=True):
    """`gateway.json`. Routes stand in order of precedence: the older first."""

    schema_version: int
    namespace: str
    gateway: str
    revision: str
    routes: tuple[RouteEntry, ...]
    shared_state: CompiledSharedState | msgspec.UnsetType = msgspec.UNSET
    """Left out where there is none, so that gateways without one keep their bytes."""
    shares: CompiledShares | msgspec.UnsetType = msgspec.UNSET
    """Left out where nothing is shared out."""


T = TypeVar("T", CompiledRoute, CompiledGateway)


class Unreadable(ValueError):
    """A compiled file that cannot be used; the text says which field and why."""


def configmap_name(gateway: str) -> str:
    return f"{CONFIGMAP_PREFIX}{gateway}"


def route_file(name: str) -> str:
    return f"route.{name}.json"


def encode(value: CompiledRoute | CompiledGateway) -> bytes:
    """Canonical bytes: sorted keys, no white space, one line end. Equal values, equal bytes."""
    return msgspec.json.encode(value, order="sorted") + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """The value of a compiled file. Raises Unreadable for another schema version, broken JSON or a wrong field."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise Unreadable(
                f"schemaVersion {version} is not {SCHEMA_VERSION}, which this gateway reads; upgrade the older side"
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from None
    except RecursionError:
        raise Unreadable("is nested too deep") from None


class _Versioned(Compiled, frozen=True):
    schema_version: int


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def revision_of(
    entries: Iterable[RouteEntry],
    shared_state: CompiledSharedState | msgspec.UnsetType = msgspec.UNSET,
    shares: CompiledShares | msgspec.UnsetType = msgspec.UNSET,
) -> str:
    """The revision of a gateway: 16 hex digits over the digests of its routes, in order of precedence, and its shared
    state and shares, if it has them."""
    lines = "".join(f"{entry.file} {entry.digest}\n" for entry in entries)
    if shared_state:
        lines += f"sharedState {msgspec.json.encode(shared_state, order='sorted').decode()}\n"
    if shares:
        lines += f"shares {msgspec.json.encode(shares, order='sorted').decode()}\n"
    return digest(f"{SCHEMA_VERSION}\n{lines}".encode())[:16]


def index_of(
    namespace: str,
    gateway: str,
    entries: Iterable[RouteEntry],
    shared_state: CompiledSharedState | msgspec.UnsetType = msgspec.UNSET,
    shares: CompiledShares | msgspec.UnsetType = msgspec.UNSET,
) -> CompiledGateway:
    """What `gateway.json` says, from its entries in order of precedence."""
    entries = tuple(entries)
    revision = revision_of(entries, shared_state, shares)
    return CompiledGateway(SCHEMA_VERSION, namespace, gateway, revision, entries, shared_state, shares)


def _entry_of(route: CompiledRoute, data: bytes) -> RouteEntry:
    return RouteEntry(route.name, route_file(route.name), digest(data), route.generation)


def size_of(route: CompiledRoute, data: bytes) -> int:
    """What a route with these bytes takes of the ConfigMap: its file, and its entry in `gateway.json` with a comma."""
    return len(data) + len(msgspec.json.encode(_entry_of(route, data))) + 1


def gateway_files(
    namespace: str,
    gateway: str,
    routes: Iterable[tuple[CompiledRoute, bytes]],
    shared_state: CompiledSharedState | msgspec.UnsetType = msgspec.UNSET,
    shares: CompiledShares | msgspec.UnsetType = msgspec.UNSET,
) -> tuple[CompiledGateway, Mapping[str, bytes]]:
    """All files of a gateway, from its routes with their bytes, in order of precedence; and what the index says."""
    routes = list(routes)
    index = index_of(namespace, gateway, (_entry_of(route, data) for route, data in routes), shared_state, shares)
    files = {entry.file: data for entry, (_, data) in zip(index.routes, routes, strict=True)}
    files[GATEWAY_FILE] = encode(index)
    return index, files


def check_url(upstream: CompiledUpstream) -> None:
    """Raises ValueError where an upstream's URL cannot be parsed (a file from another hand than the compiler's)."""
    try:
        check_upstream_url(upstream.url)
    except ValueError as error:
        raise ValueError(f"the url of upstream {upstream.name!r} {error}") from None

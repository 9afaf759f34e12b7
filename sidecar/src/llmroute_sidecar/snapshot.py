"""The snapshot: the immutable compiled configuration that requests are served from.

Owns the types of the request path and their making from compiled routes and secrets (`build`). Reading files,
watching them and keeping the last good version is `config/`'s work. A request holds one snapshot from its first to
its last byte.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import msgspec

from llmroute_contract import compiled as c
from llmroute_contract.scalars import UpstreamUrl, microdollars, parse_upstream_url
from llmroute_sidecar.policy.keys import Client, KeyRing, parse_keys
from llmroute_sidecar.policy.limits.rules import (
    PICODOLLARS,
    BudgetLimit,
    ConcurrencyLimit,
    Limit,
    RequestLimit,
    TokenLimit,
)
from llmroute_sidecar.policy.plan import ModelEntry, ModelTable, Target
from llmroute_sidecar.policy.prices import NO_PRICES, Price, PriceList
from llmroute_sidecar.policy.sampling import SampleRule

LITELLM_START_SECONDS = 30.0
"""What a call waits for a litellm worker at least: importing litellm takes longer than any connection."""


class Secrets(Protocol):
    """Where secret values come from: mounted files, or the Secret manifests of a local run."""

    def read(self, secret: str, key: str) -> bytes | None:
        """The value of one entry, or None where it is missing."""
        ...

    def entries(self, secret: str) -> Mapping[str, bytes] | None:
        """All entries of a Secret, or None where it is missing."""
        ...


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM texts for an https upstream; None means the system's trust, or no client certificate."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SharedState:
    """Where limits of scope Gateway are counted, and of which gateway."""

    url: str
    namespace: str
    gateway: str
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    tls: TlsMaterial | None


@dataclass(frozen=True, slots=True)
class Upstream:
    """One provider endpoint, ready to be called. `id` is `<route>/<name>`; times are seconds."""

    id: str
    name: str
    route: str
    url: UpstreamUrl
    protocol: Literal["OpenAI", "Anthropic"]
    credential: str | None = field(repr=False)
    tls: TlsMaterial | None
    headers: tuple[tuple[str, str], ...]
    connect_timeout: float
    first_token_timeout: float
    idle_timeout: float
    request_timeout: float
    breaker_max_failures: int
    breaker_reset: float
    pool_max_connections: int
    limits: tuple[RequestLimit, ...]
    """On requests, `per: Upstream`."""
    unavailable: str | None
    """Why it cannot be called at all (a Secret is missing, a scheme is not served), in a word for `attempts`."""
    retry_percent: int = 20
    retry_burst: int = 10
    metered: tuple[Limit, ...] = field(default=(), compare=False)
    """All `per: Upstream`, where any is on more than requests; else none."""
    shared: tuple[Limit, ...] = field(default=(), compare=False)
    """`per: Upstream` and of scope Gateway, where there is a shared state; such are in neither of the others."""
    fail_closed: bool = field(default=False, compare=False)
    """What becomes of these while it is away (`Route.fail_closed`)."""
    breaker_shared: bool = field(default=False, compare=False)
    """Whether its openings are told to the gateway's other pods."""
    prices: PriceList = field(default=NO_PRICES, compare=False)
    litellm: c.CompiledLitellm | None = None
    fixed_headers: tuple[tuple[bytes, bytes], ...] = field(init=False, repr=False, compare=False)
    """What every request to it carries: its own headers, and its credential as its protocol has it."""
    fixed_names: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fixed = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        if self.credential is not None:
            as_anthropic = self.protocol == "Anthropic"
            name, prefix = (b"x-api-key", b"") if as_anthropic else (b"authorization", b"Bearer ")
            fixed.append((name, prefix + self.credential.encode()))
        object.__setattr__(self, "fixed_headers", tuple(fixed))
        object.__setattr__(self, "fixed_names", frozenset(name for name, _ in fixed))


@dataclass(frozen=True, slots=True)
class Route:
    """What the request path needs to know of a route."""

    name: str
    generation: int
    open: bool
    """auth.mode None: whoever calls is the pod itself."""
    limits: tuple[RequestLimit, ...]
    """On requests, per Client, Model and Gateway."""
    log_sample: tuple[SampleRule, ...] = ()
    metered: tuple[Limit, ...] = ()
    """All per Client, Model and Gateway, where any is on more than requests; else none."""
    shared: tuple[Limit, ...] = ()
    """Those of scope Gateway, where there is a shared state; such are in neither of the others."""
    fail_closed: bool = False
    """Whether a call is refused that one of these applies to while the shared state is away."""


@dataclass(frozen=True, slots=True)
class MissingSecret:
    """A Secret (or an entry of it) that the configuration names and that is not there, an entry of client keys that
    holds none, or a credential that no header can hold. `field` says who names it."""

    route: str
    field: str
    secret: str
    key: str | None
    trouble: Literal["is not there", "holds no key", "is not usable"] = "is not there"

    def __str__(self) -> str:
        what = f"entry {self.key!r} of Secret {self.secret!r}" if self.key else f"Secret {self.secret!r}"
        return f"{self.field}: {what} {self.trouble}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    revision: str
    namespace: str
    gateway: str
    routes: Mapping[str, Route]
    upstreams: Mapping[str, Upstream]
    models: ModelTable
    keys: KeyRing
    open: bool
    """Whether a call without a key may go on: a route asks for none, or there is no route, and then no key that could
    be right; such a call is to hear that its model is not here, not that its key is wrong."""
    missing_secrets: tuple[MissingSecret, ...]
    model_names: frozenset[str]
    """The configured model names, which metrics may use as labels."""
    meters_upstreams: bool = False
    """Whether any upstream has limits of its own on more than requests, or shared ones."""
    shared_state: SharedState | None = None

    def shared_limits(self) -> Iterator[Limit]:
        """Those that are counted together with other pods."""
        for route in self.routes.values():
            yield from route.shared
        for upstream in self.upstreams.values():
            yield from upstream.shared

    def limits(self) -> Iterator[Limit]:
        """All of them; one may come more than once."""
        for route in self.routes.values():
            yield from route.limits
            yield from route.metered
        for upstream in self.upstreams.values():
            yield from upstream.limits
            yield from upstream.metered
        yield from self.shared_limits()


def build(
    index: c.CompiledGateway, routes: Sequence[c.CompiledRoute], secrets: Secrets, revision: str | None = None
) -> Snapshot:
    """A snapshot of `routes`, in order of precedence. Where two claim a model (one of them a last good version), the
    first has it.

    `revision` is told where the routes are not the ones that `index` lists (some kept their last good version).
    Raises ValueError where an upstream's URL cannot be parsed, which compiled routes never cause.
    """
    missing: list[MissingSecret] = []
    upstreams: dict[str, Upstream] = {}
    entries: list[ModelEntry] = []
    keys: list[tuple[bytes, Client]] = []
    default: tuple[str, str] | None = None
    default_model: str | None = None
    together = bool(index.shared_state)
    for route in routes:
        limits, metered, shared = _limits(route, lambda limit: limit.per == "Upstream", together=together)
        prices = _prices(route)
        for upstream in route.upstreams:
            made = replace(
                _upstream(route.name, upstream, limits, secrets, missing),
                metered=metered,
                shared=shared,
                fail_closed=route.when_unavailable == "FailClosed",
                breaker_shared=together and upstream.breaker_scope == "Gateway",
                prices=prices,
            )
            upstreams[made.id] = made
        own = _own_models(route.upstreams)
        entries += [_entry(route.name, model, own) for model in route.models]
        if default is None and route.default_upstream is not None:
            default = (route.name, f"{route.name}/{route.default_upstream}")
            default_model = own.get(route.default_upstream)
        keys += _keys(route, secrets, missing)
    return Snapshot(
        revision=revision or index.revision,
        namespace=index.namespace,
        gateway=index.gateway,
        routes={route.name: _route(route, together=together) for route in routes},
        upstreams=upstreams,
        models=ModelTable(_first_of_each_name(entries), default, default_model),
        keys=KeyRing.build(keys),
        open=not routes or any(route.auth.mode == "None" for route in routes),
        shared_state=_shared_state(index, secrets, missing),
        missing_secrets=tuple(missing),
        model_names=frozenset(entry.name for entry in entries),
        meters_upstreams=any(upstream.metered or upstream.shared for upstream in upstreams.values()),
    )


def _first_of_each_name(entries: Iterable[ModelEntry]) -> list[ModelEntry]:
    first: dict[str, ModelEntry] = {}
    for entry in entries:
        first.setdefault(entry.name, entry)
    return list(first.values())


def _shared_state(index: c.CompiledGateway, secrets: Secrets, missing: list[MissingSecret]) -> SharedState | None:
    """Of its Secret each entry may be missing; that all of it is, is told."""
    config = index.shared_state
    if not config:
        return None
    entries = secrets.entries(config.secret) if config.secret is not None else {}
    if entries is None:
        missing.append(MissingSecret("", "--shared-state-secret", config.secret or "", None))
        entries = {}
    tls = TlsMaterial(entries.get("ca.crt"), entries.get("tls.crt"), entries.get("tls.key"))
    username, password = (_one_line(entries.get(name)) for name in ("username", "password"))
    return SharedState(config.url, index.namespace, index.gateway, username, password, tls)


def _one_line(value: bytes | None) -> str | None:
    """Without the newline that files end in; None where nothing is left."""
    return None if value is None else value.decode("utf-8", "surrogateescape").rstrip("\r\n") or None


def _route(route: c.CompiledRoute, *, together: bool) -> Route:
    limits, metered, shared = _limits(route, lambda limit: limit.per != "Upstream", together=together)
    rules = tuple(SampleRule(rule.status, rule.client, rule.model, rule.rate) for rule in route.log_sample)
    return Route(
        route.name,
        route.generation,
        route.auth.mode == "None",
        limits,
        rules,
        metered,
        shared,
        route.when_unavailable == "FailClosed",
    )


def _limits(
    route: c.CompiledRoute, chosen: Callable[[c.CompiledLimit], bool], *, together: bool
) -> tuple[tuple[RequestLimit, ...], tuple[Limit, ...], tuple[Limit, ...]]:
    """Of those counted in the pod, those on requests, and all of them, where there are others; and those counted
    together, where there is a state to share (`together`)."""
    picked = [limit for limit in route.limits if chosen(limit)]
    every = tuple(_limit(route.name, limit) for limit in picked if not together or limit.scope == "Pod")
    requests = tuple(limit for limit in every if isinstance(limit, RequestLimit))
    shared = tuple(_limit(route.name, limit) for limit in picked if together and limit.scope == "Gateway")
    return requests, () if len(requests) == len(every) else every, shared


def _limit(route: str, limit: c.CompiledLimit) -> Limit:
    id_, window = f"{route}/{limit.name}", limit.window or 60.0
    if limit.tokens is not None:
        return TokenLimit(id_, limit.name, limit.per, limit.tokens, window)
    if limit.concurrency is not None:
        queue = limit.queue or None
        size, timeout = (queue.size, queue.timeout) if queue is not None else (0, 0.0)
        return ConcurrencyLimit(id_, limit.name, limit.per, limit.concurrency, size, timeout)
    if limit.budget is not None:
        amount = microdollars(limit.budget.usd) * (PICODOLLARS // 1_000_000)
        return BudgetLimit(id_, limit.name, limit.per, amount, limit.budget.period)
    return RequestLimit(id_, limit.name, limit.per, limit.requests or 0, window)


def _prices(route: c.CompiledRoute) -> PriceList:
    """Microdollars for a million tokens are picodollars for one."""
    prices = route.prices or {}
    return PriceList({model: Price(microdollars(given), microdollars(made)) for model, (given, made) in prices.items()})


def _entry(route: str, model: c.CompiledModel, own: Mapping[str, str]) -> ModelEntry:
    """`own` are the models that upstreams name themselves."""
    targets = tuple(
        Target(f"{route}/{target.upstream}", target.model or own.get(target.upstream), target.weight)
        for target in model.targets
    )
    keep_alive: tuple[float, float] | None = None
    if model.keep_alive_after is not None and model.keep_alive_every is not None:
        keep_alive = (model.keep_alive_after, model.keep_alive_every)
    return ModelEntry(
        model.name,
        route,
        targets,
        model.fallbacks,
        model.retry_attempts,
        model.retry_backoff,
        model.sticky_header,
        keep_alive,
    )


def _own_models(upstreams: Iterable[c.CompiledUpstream]) -> dict[str, str]:
    """Of upstreams whose URL names a model, as `litellm://provider/model` does, that model."""
    urls = {upstream.name: upstream.url for upstream in upstreams if upstream.url.startswith("litellm://")}
    return {name: parse_upstream_url(url).path[1:] for name, url in urls.items() if parse_upstream_url(url).path}


def _keys(route: c.CompiledRoute, secrets: Secrets, missing: list[MissingSecret]) -> list[tuple[bytes, Client]]:
    if route.auth.keys_secret is None:
        return []
    entries = secrets.entries(route.auth.keys_secret)
    if entries is None:
        missing.append(MissingSecret(route.name, "spec.auth.keysFrom.secretRef", route.auth.keys_secret, None))
        return []
    known = {client.name: client for client in route.auth.clients}
    keys = {name: parse_keys(content) for name, content in entries.items()}
    named = dict(_clients_named(route)).values()
    for where, name in _clients_named(route):
        if not keys.get(name):
            trouble: Literal["is not there", "holds no key"] = "holds no key" if name in keys else "is not there"
            missing.append(MissingSecret(route.name, where, route.auth.keys_secret, name, trouble))
    found = []
    for name in sorted(keys):
        rule = known.get(name)
        expires = rule.expires_at.timestamp() if rule and rule.expires_at else None
        client_of_key = Client(name, route.name, rule.models if rule else None, expires)
        found += [(key, client_of_key) for key in keys[name]]
        if not entries[name].strip() and name not in named:
            where = "spec.auth.keysFrom.secretRef"
            missing.append(MissingSecret(route.name, where, route.auth.keys_secret, name, "holds no key"))
    return found


def _clients_named(route: c.CompiledRoute) -> Iterator[tuple[str, str]]:
    """Fields of the route that name a client, and the names."""
    for index, client in enumerate(route.auth.clients):
        yield f"spec.auth.clients[{index}].name", client.name
    for index, rule in enumerate(route.log_sample):
        if rule.client is not None:
            yield f"spec.logging.sample[{index}].client", rule.client


def _upstream(
    route: str,
    upstream: c.CompiledUpstream,
    limits: tuple[RequestLimit, ...],
    secrets: Secrets,
    missing: list[MissingSecret],
) -> Upstream:
    field = f"spec.upstreams[{upstream.name}]"

    def secret(entry: c.SecretEntry, where: str) -> bytes | None:
        value = secrets.read(entry.name, entry.key)
        if value is None:
            missing.append(MissingSecret(route, f"{field}.{where}", entry.name, entry.key))
        return value

    unavailable: str | None = None
    credential: str | None = None
    if upstream.credential is not None:
        raw = secret(upstream.credential, "credential.secretRef")
        credential = None
        if raw is not None:
            credential = _header_text(_on_one_line(raw) if upstream.url.startswith("litellm://") else raw)
        if credential is None:
            unavailable = "credential_missing"
            if raw is not None:
                entry = upstream.credential
                where = f"{field}.credential.secretRef"
                missing.append(MissingSecret(route, where, entry.name, entry.key, "is not usable"))
    tls: TlsMaterial | None = None
    if upstream.tls is not None:
        ca = secret(upstream.tls.ca, "tls.caFrom.secretRef") if upstream.tls.ca else None
        cert = key = None
        if upstream.tls.client_cert_secret is not None:
            where = "tls.clientCertFrom.secretRef"
            cert = secret(c.SecretEntry(upstream.tls.client_cert_secret, "tls.crt"), where)
            key = secret(c.SecretEntry(upstream.tls.client_cert_secret, "tls.key"), where)
        tls = TlsMaterial(ca, cert, key)
        if (upstream.tls.ca and ca is None) or (upstream.tls.client_cert_secret and (cert is None or key is None)):
            unavailable = "tls_secret_missing"
    url = parse_upstream_url(upstream.url)
    connect_timeout = upstream.connect_timeout
    if url.scheme == "litellm":
        connect_timeout = max(connect_timeout, LITELLM_START_SECONDS)
    return Upstream(
        id=f"{route}/{upstream.name}",
        name=upstream.name,
        route=route,
        url=url,
        protocol=upstream.protocol,
        credential=credential,
        tls=tls,
        headers=tuple(upstream.headers.items()),
        connect_timeout=connect_timeout,
        first_token_timeout=upstream.first_token_timeout,
        idle_timeout=upstream.idle_timeout,
        request_timeout=upstream.request_timeout,
        breaker_max_failures=upstream.breaker_max_failures,
        breaker_reset=upstream.breaker_reset,
        pool_max_connections=upstream.pool_max_connections,
        limits=limits,
        unavailable=unavailable,
        retry_percent=upstream.retry_percent,
        retry_burst=upstream.retry_burst,
        litellm=upstream.litellm or None,
    )


def _on_one_line(value: bytes) -> bytes:
    """A credential of several parts (AWS's) is a JSON object, which people write over several lines."""
    try:
        parts = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return msgspec.json.encode(parts) if isinstance(parts, dict) else value


def _header_text(value: bytes) -> str | None:
    """A credential as it may stand in a header: stripped (files end in a newline), ASCII, no control characters."""
    try:
        text = value.decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    return text if text and text.isprintable() else None

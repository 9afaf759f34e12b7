"""compile(routes) -> the configuration of one gateway, and a verdict on each route. Pure and order-free.

How it decides, in this order:
1. Each route is checked alone, then against the gateway's other routes. A refusing problem (`references.REFUSING`)
keeps its new
   generation out; the last accepted compilation, where there is one, stays in its stead, byte for byte.
2. Routes are ranked by age: creation time, then name. Of two that name the same model (or both a default upstream) the
   older keeps it; the other is served without it, and told so.
3. What would burst the ConfigMap is refused, youngest first; a route that was served before stays as it was.
Same routes, whatever their order: same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from llmroute_contract import compiled as c
from llmroute_contract.llmroute import LLMRouteSpec, Upstream
from llmroute_contract.problem import Problem
from llmroute_contract.references import (
    REFUSING,
    ModelFinder,
    check_client_models,
    check_fallbacks,
    check_route,
)

DEFAULT_WINDOW = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class RouteSource:
    """One route as it stands: its typed spec, or why it has none."""

    name: str
    spec: LLMRouteSpec | tuple[Problem, ...]
    generation: int = 0
    created: datetime | None = None  # None: younger than all that have one
    last_accepted: c.CompiledRoute | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one route."""

    accepted: bool
    problems: tuple[Problem, ...]
    serving: int | None
    """The generation in the configuration; None where the route is not in it."""
    inactive: tuple[str, ...] = ()
    """Fields that this version carries but does not act on yet, each with why."""


@dataclass(frozen=True, slots=True)
class Compilation:
    revision: str
    files: Mapping[str, bytes]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    source: RouteSource
    compiled: c.CompiledRoute | None
    problems: list[Problem]
    inactive: tuple[str, ...] = ()


def compile_gateway(namespace: str, gateway: str, sources: Iterable[RouteSource]) -> Compilation:
    """The files of `gateway` and a verdict on each of `sources` (all of its routes, in any order)."""
    drafts = [_draft(namespace, gateway, source) for source in sorted(sources, key=_age)]
    _refuse_bad_fallbacks(drafts)
    _settle_conflicts(drafts)
    _tell_unknown_client_models(drafts)
    served = _within_size(namespace, gateway, drafts)
    files = c.gateway_files(namespace, gateway, served)
    revision = c.decode(files[c.GATEWAY_FILE], c.CompiledGateway).revision
    serving = {route.name: route.generation for route, _ in served}
    return Compilation(revision, files, {draft.source.name: _verdict(draft, serving) for draft in drafts})


def _age(source: RouteSource) -> tuple[datetime, str]:
    return (source.created or datetime.max.replace(tzinfo=UTC), source.name)


def _verdict(draft: _Draft, serving: Mapping[str, int]) -> Verdict:
    return Verdict(
        accepted=not any(problem.reason != "UnknownModel" for problem in draft.problems),
        problems=tuple(draft.problems),
        serving=serving.get(draft.source.name),
        inactive=draft.inactive,
    )


def _draft(namespace: str, gateway: str, source: RouteSource) -> _Draft:
    if isinstance(source.spec, tuple):
        return _Draft(source, source.last_accepted, list(source.spec))
    problems = check_route(source.spec)
    if problems:
        return _Draft(source, source.last_accepted, list(problems))
    route = compile_route(namespace, gateway, source.name, source.generation, source.spec)
    return _Draft(source, route, [], inactive_fields(source.spec))


def _claims(drafts: Sequence[_Draft]) -> dict[str, tuple[str, ...]]:
    """Every model of the gateway with its fallbacks; the older route's where two name the same."""
    claims: dict[str, tuple[str, ...]] = {}
    for draft in drafts:
        for model in draft.compiled.models if draft.compiled else ():
            claims.setdefault(model.name, model.fallbacks)
    return claims


def _refuse_bad_fallbacks(drafts: Sequence[_Draft]) -> None:
    """A route that is refused takes its models away (or brings older ones back), which may leave another's fallback
    unknown: so from the top, until nothing more is refused. Each round refuses at least one route."""
    refused = True
    while refused:
        refused = False
        claims = _claims(drafts)
        for draft in drafts:
            if draft.problems or isinstance(draft.source.spec, tuple):
                continue
            problems = check_fallbacks(draft.source.spec, claims)
            if problems:
                draft.problems += problems
                draft.compiled = draft.source.last_accepted
                refused = True


def _settle_conflicts(drafts: Sequence[_Draft]) -> None:
    owners: dict[str, str] = {}
    default_owner: str | None = None
    for draft in drafts:
        if draft.compiled is None:
            continue
        route = draft.compiled
        kept = []
        for index, model in enumerate(route.models):
            owner = owners.setdefault(model.name, draft.source.name)
            if owner == draft.source.name:
                kept.append(model)
            else:
                draft.problems.append(
                    Problem(
                        f"spec.models[{index}].name",
                        "ModelConflict",
                        f"model {model.name!r} belongs to the older route {owner!r}; the other models of this route are served",
                    )
                )
        default = route.default_upstream
        if default is not None and default_owner is not None:
            draft.problems.append(
                Problem(
                    "spec.defaultUpstream",
                    "DefaultUpstreamConflict",
                    f"the default upstream is set by the older route {default_owner!r}; the models of this route are served",
                )
            )
            default = None
        elif default is not None:
            default_owner = draft.source.name
        if len(kept) != len(route.models) or default != route.default_upstream:
            draft.compiled = msgspec.structs.replace(route, models=tuple(kept), default_upstream=default)


def _tell_unknown_client_models(drafts: Sequence[_Draft]) -> None:
    models = tuple(_claims(drafts))
    for draft in drafts:
        if isinstance(draft.source.spec, LLMRouteSpec) and not any(p.reason in REFUSING for p in draft.problems):
            draft.problems += check_client_models(draft.source.spec, models)


def _within_size(namespace: str, gateway: str, drafts: Sequence[_Draft]) -> list[tuple[c.CompiledRoute, bytes]]:
    room = c.CONFIGMAP_MAX_BYTES - 512
    served: list[tuple[c.CompiledRoute, bytes]] = []
    for draft in drafts:
        if draft.compiled is None:
            continue
        data = c.encode(draft.compiled)
        size = len(data) + 512  # its entry in gateway.json
        if size > room:
            draft.problems.append(
                Problem(
                    "spec",
                    "ConfigMapTooLarge",
                    f"compiles to {len(data)} bytes, and the ConfigMap of gateway {gateway!r} has room for {max(room - 512, 0)}; "
                    "split the route over several gateways",
                )
            )
            draft.compiled = draft.source.last_accepted
            data = c.encode(draft.compiled) if draft.compiled else b""
            size = len(data) + 512
            if draft.compiled is None or size > room:
                draft.compiled = None
                continue
        room -= size
        served.append((draft.compiled, data))
    return served


def compile_route(namespace: str, gateway: str, name: str, generation: int, spec: LLMRouteSpec) -> c.CompiledRoute:
    """One route, defaults filled in, ready for `compiled.encode`."""
    auth = spec.auth
    return c.CompiledRoute(
        schema_version=c.SCHEMA_VERSION,
        name=name,
        namespace=namespace,
        gateway=gateway,
        generation=generation,
        auth=c.CompiledAuth(
            mode=auth.mode,
            keys_secret=auth.keys_from.secret_ref.name if auth.keys_from else None,
            clients=tuple(
                c.CompiledClient(entry.name, tuple(entry.models) if entry.models else None, entry.expires_at)
                for entry in auth.clients or ()
            ),
        ),
        upstreams=tuple(_upstream(upstream) for upstream in spec.upstreams),
        models=tuple(
            c.CompiledModel(
                name=model.name,
                targets=tuple(c.CompiledTarget(t.upstream, t.model, t.weight) for t in model.targets),
                fallbacks=tuple(model.fallbacks or ()),
                retry_attempts=model.retry.attempts,
                retry_backoff=model.retry.backoff,
            )
            for model in spec.models or ()
        ),
        default_upstream=spec.default_upstream,
        limits=tuple(
            c.CompiledLimit(
                name=limit.name,
                per=limit.per,
                scope=limit.scope,
                window=(limit.window or DEFAULT_WINDOW) if limit.requests or limit.tokens else None,
                requests=limit.requests,
                tokens=limit.tokens,
                concurrency=limit.concurrency,
                budget=c.CompiledBudget(limit.budget.usd, limit.budget.period) if limit.budget else None,
            )
            for limit in spec.limits or ()
        ),
        log_sample=tuple(
            c.CompiledLogSample(rule.status, rule.client, rule.model, rule.rate)
            for rule in (spec.logging.sample if spec.logging else ())
        ),
    )


def _upstream(upstream: Upstream) -> c.CompiledUpstream:
    credential = upstream.credential.secret_ref if upstream.credential else None
    tls = upstream.tls
    ca = tls.ca_from.secret_ref if tls and tls.ca_from else None
    return c.CompiledUpstream(
        name=upstream.name,
        url=upstream.url,
        protocol=upstream.protocol,
        credential=c.SecretEntry(credential.name, credential.key) if credential else None,
        tls=c.CompiledTls(
            ca=c.SecretEntry(ca.name, ca.key) if ca else None,
            client_cert_secret=tls.client_cert_from.secret_ref.name if tls.client_cert_from else None,
        )
        if tls
        else None,
        headers=dict(upstream.headers or {}),
        connect_timeout=upstream.timeouts.connect,
        first_token_timeout=upstream.timeouts.first_token,
        idle_timeout=upstream.timeouts.idle,
        request_timeout=upstream.timeouts.request,
        breaker_max_failures=upstream.breaker.max_failures,
        breaker_reset=upstream.breaker.reset,
        pool_max_connections=upstream.pool.max_connections,
    )


def inactive_fields(spec: LLMRouteSpec) -> tuple[str, ...]:
    """Fields that are carried but not acted on by this version, so that nothing is silently inactive."""
    found = []
    for index, limit in enumerate(spec.limits or ()):
        for kind in ("tokens", "concurrency", "budget"):
            if getattr(limit, kind) is not None:
                found.append(f"spec.limits[{index}].{kind} is not enforced by this version")
        if limit.requests is not None and limit.scope == "Gateway":
            found.append(f"spec.limits[{index}].scope Gateway is counted in each pod by this version")
    for index, upstream in enumerate(spec.upstreams):
        if upstream.url.startswith("litellm://"):
            found.append(f"spec.upstreams[{index}].url litellm:// is not served by this version")
    for index, model in enumerate(spec.models or ()):
        if len({target.weight for target in model.targets}) > 1:
            found.append(
                f"spec.models[{index}].targets weights are not applied by this version; targets are tried in order"
            )
    if spec.logging is not None:
        found.append("spec.logging.sample is not applied by this version; every request is logged")
    return tuple(found)


__all__ = [
    "Compilation",
    "ModelFinder",
    "RouteSource",
    "Verdict",
    "compile_gateway",
    "compile_route",
    "inactive_fields",
]

"""One route, translated: typed spec in, compiled form out. Whether it may be served beside the others is `compile.py`'s
to decide.
"""

import msgspec

from llmroute_contract import compiled as c
from llmroute_contract.llmroute import LLMRouteSpec, Upstream
from llmroute_contract.prices import Prices, prices_of, unpriced_models
from llmroute_contract.shares import without_share

DEFAULT_WINDOW = 60.0  # seconds
ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings")
"""Ends of a URL that somebody copied from an example call; the gateway adds the path of each call itself."""


def compile_route(
    namespace: str, gateway: str, name: str, generation: int, spec: LLMRouteSpec, known: Prices
) -> c.CompiledRoute:
    """One route, defaults filled in, ready for `compiled.encode`; `known` are prices of models that it does not state
    itself."""
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
                sticky_header=model.sticky.header.lower() if model.sticky else None,
                keep_alive_after=model.keep_alive.after if model.keep_alive else None,
                keep_alive_every=model.keep_alive.every if model.keep_alive else None,
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
                queue=c.CompiledQueue(limit.queue.size, limit.queue.timeout) if limit.queue else msgspec.UNSET,
            )
            for limit in spec.limits or ()
        ),
        log_sample=tuple(
            c.CompiledLogSample(rule.status, rule.client, rule.model, rule.rate)
            for rule in (spec.logging.sample if spec.logging else ())
        ),
        prices=prices_of(spec, known) or msgspec.UNSET,
        when_unavailable="FailClosed"
        if spec.shared_state is not None and spec.shared_state.when_unavailable == "FailClosed"
        else msgspec.UNSET,
    )


def _upstream(upstream: Upstream) -> c.CompiledUpstream:
    credential = upstream.credential.secret_ref if upstream.credential else None
    tls = upstream.tls
    ca = tls.ca_from.secret_ref if tls and tls.ca_from else None
    litellm = upstream.litellm
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
        retry_percent=upstream.retry_budget.percent,
        retry_burst=upstream.retry_budget.burst,
        litellm=c.CompiledLitellm(litellm.api_base, litellm.api_version, litellm.region, litellm.drop_params)
        if litellm
        else msgspec.UNSET,
        breaker_scope="Gateway" if upstream.breaker.scope == "Gateway" else msgspec.UNSET,
    )


def inactive_fields(
    spec: LLMRouteSpec, known: Prices, *, shared_state: bool, shares: c.CompiledShares | None = None
) -> tuple[str, ...]:
    """Fields that are carried but not acted on as they say, so that nothing is silently inactive. `shared_state`:
    whether the gateway has one; `shares`: how its limits are shared out."""
    found: list[str] = [] if shared_state else _without_shared_state(spec, shares)
    budget = next((index for index, limit in enumerate(spec.limits or ()) if limit.budget is not None), None)
    if budget is not None:
        found += [
            f"spec.limits[{budget}].budget counts nothing of model {name!r} ({field}): its price is not known; "
            "state it in spec.prices"
            for field, name in unpriced_models(spec, known)
        ]
    for index, upstream in enumerate(spec.upstreams):
        end = next((end for end in ENDPOINTS if upstream.url.rstrip("/").endswith(end)), None)
        if end is not None and upstream.url.startswith("http"):
            found.append(
                f"spec.upstreams[{index}].url ends with {end}, and each call's own path is added to it; most likely "
                f"the url is to end before {end}"
            )
    for index, rule in enumerate(spec.logging.sample if spec.logging else ()):
        if rule.status is not None and rule.status.startswith("5"):
            found.append(f"spec.logging.sample[{index}] has no effect: requests that end with a 5xx are always logged")
    return tuple(found)


def _without_shared_state(spec: LLMRouteSpec, shares: c.CompiledShares | None) -> list[str]:
    found = []
    for index, limit in enumerate(spec.limits or ()):
        if limit.scope != "Gateway":
            continue
        if shares is None:
            found.append(
                f"spec.limits[{index}].scope Gateway is counted in each pod: there is no shared state "
                "(--shared-state-url), and nobody who shares it out"
            )
        elif (nothing := without_share(limit, shares)) > 0:
            found.append(
                f"spec.limits[{index}] is too small for {shares.pods} pods: {nothing} of them have no share of it and "
                "refuse every call; raise it, or count it in a shared state (--shared-state-url)"
            )
    found += [
        f"spec.upstreams[{index}].breaker.scope Gateway has no effect: there is no shared state (--shared-state-url)"
        for index, upstream in enumerate(spec.upstreams)
        if upstream.breaker.scope == "Gateway"
    ]
    if spec.shared_state is not None:
        found.append("spec.sharedState has no effect: there is no shared state (--shared-state-url)")
    return found

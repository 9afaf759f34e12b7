"""What lives on while snapshots come and go: each upstream's connections, breaker and retry budget, and whose turn it
is among a model's targets.

State is carried over by identity: the same route, name and URL keep breaker and budget; the same TLS and pool size keep
the connections too; a model whose targets stay keeps its turns. A request finishes on the states it began with; what
nobody refers to any more is closed once its last request has ended (a client cache that closed connections in use cost
LiteLLM 40 % of calls).
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from llmroute_sidecar.policy.breaker import Breaker
from llmroute_sidecar.policy.retry_budget import RetryBudget
from llmroute_sidecar.policy.turns import Turns
from llmroute_sidecar.snapshot import Snapshot, Upstream
from llmroute_sidecar.upstream.exchange import Caller
from llmroute_sidecar.upstream.litellm import LitellmCaller
from llmroute_sidecar.upstream.mock import MockCaller
from llmroute_sidecar.upstream.pool import HttpCaller
from llmroute_sidecar.upstream.worker import Workers


@dataclass(frozen=True, slots=True)
class LiveUpstream:
    """An upstream's configuration with its running parts. `caller` is None where it cannot be called: `unavailable`
    says why."""

    config: Upstream
    breaker: Breaker
    caller: Caller | None
    unavailable: str | None
    retries: RetryBudget


@dataclass(frozen=True, slots=True)
class Serving:
    """A snapshot with the live parts that it runs on. A request holds one from its head to its last byte."""

    snapshot: Snapshot
    live: Mapping[str, LiveUpstream]
    turns: Mapping[str, Turns]


def adopt(
    previous: Mapping[str, LiveUpstream], snapshot: Snapshot, workers: Workers, loop: asyncio.AbstractEventLoop
) -> dict[str, LiveUpstream]:
    """The live upstreams of `snapshot`, with what can be carried over from `previous`; closes what is not needed any
    more."""
    live = {config.id: _adopt(previous.get(config.id), config, workers, loop) for config in snapshot.upstreams.values()}
    kept = {id(upstream.caller) for upstream in live.values()}
    for old in previous.values():
        if old.caller is not None and id(old.caller) not in kept:
            old.caller.close()
    return live


def _adopt(
    old: LiveUpstream | None, config: Upstream, workers: Workers, loop: asyncio.AbstractEventLoop
) -> LiveUpstream:
    if old is not None and old.config.url == config.url:
        breaker = old.breaker
        breaker.reconfigure(config.breaker_max_failures, config.breaker_reset)
        retries = old.retries
        retries.reconfigure(config.retry_percent, config.retry_burst)
    else:
        breaker = Breaker(config.breaker_max_failures, config.breaker_reset)
        retries = RetryBudget(config.retry_percent, config.retry_burst)
    unavailable = config.unavailable
    if unavailable is None and config.url.scheme == "litellm" and not workers.available:
        unavailable = "litellm_not_installed"
    if unavailable is not None:
        return LiveUpstream(config, breaker, None, unavailable, retries)
    if old is not None and old.caller is not None and _same_connections(old.config, config):
        return LiveUpstream(config, breaker, old.caller, None, retries)
    try:
        caller = _caller(config, workers, loop)
    except (ssl.SSLError, ValueError):
        reason = "tls_secret_invalid" if config.url.scheme == "https" else "url_invalid"
        return LiveUpstream(config, breaker, None, reason, retries)
    return LiveUpstream(config, breaker, caller, None, retries)


def _caller(config: Upstream, workers: Workers, loop: asyncio.AbstractEventLoop) -> Caller:
    match config.url.scheme:
        case "mock":
            return MockCaller(config.url)
        case "litellm":
            return LitellmCaller(config, workers, loop)
        case "http" | "https":
            return HttpCaller(config, loop)


def _same_connections(old: Upstream, new: Upstream) -> bool:
    if new.url.scheme == "litellm":
        return old == new  # a new caller takes over the old one's worker, which is what must live on
    return old.url == new.url and old.tls == new.tls and old.pool_max_connections == new.pool_max_connections

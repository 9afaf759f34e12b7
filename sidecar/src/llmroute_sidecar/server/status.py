"""What `/status` of the admin port tells: what is served, since when, and what is wrong with it."""

import msgspec

from llmroute_sidecar.config.reload import ReloadStatus
from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.telemetry.log import timestamp
from llmroute_sidecar.upstream.worker import Workers


class RouteState(msgspec.Struct, frozen=True):
    name: str
    accepted: bool
    """False: its newest version was rejected, and the last good one (if there is one) is served."""
    generation: int | None
    """The LLMRoute's generation that is served; null where none is."""
    reason: str
    since: str


class UnavailableUpstream(msgspec.Struct, frozen=True):
    route: str
    upstream: str
    reason: str


class MissingSecretEntry(msgspec.Struct, frozen=True):
    """What the controller tells in the route's conditions. `key` is null where the whole Secret is missing;
    `trouble` is "is not there", "holds no key" of an entry of client keys, "is not usable" of a credential."""

    route: str
    field: str
    secret: str
    key: str | None
    trouble: str


class LitellmWorker(msgspec.Struct, frozen=True):
    """The process behind a litellm:// upstream."""

    route: str
    upstream: str
    state: str
    """not_started, starting, ready, or resting after it died."""
    pid: int | None
    restarts: int
    resident_bytes: int


class SharedStateState(msgspec.Struct, frozen=True):
    """The server that counts limits of scope Gateway."""

    address: str
    state: str
    """connecting, up or down."""
    reason: str | None
    """Why it is down, in a word."""
    since: str


class Status(msgspec.Struct, frozen=True):
    """What this gateway serves from."""

    version: str
    ready: bool
    draining: bool
    namespace: str | None
    gateway: str | None
    revision: str | None
    """The revision that is served; the route's `status.revision` names the newest one."""
    wanted_revision: str | None
    """The newest revision seen; differs from `revision` while a route of it is rejected."""
    since: str | None
    healthy: bool
    error: str | None
    routes: list[RouteState]
    models: list[str]
    missing_secrets: list[str]
    missing_secret_entries: list[MissingSecretEntry]
    """The same, for programs."""
    unavailable_upstreams: list[UnavailableUpstream]
    litellm_workers: list[LitellmWorker]
    shared_state: SharedStateState | None
    """Null where none is configured."""
    problems: list[str]


def status_of(gateway: Gateway, reload: ReloadStatus, version: str, workers: Workers) -> Status:
    serving = gateway.serving
    snapshot = serving.snapshot if serving else None
    unavailable = [
        UnavailableUpstream(route=live.config.route, upstream=live.config.name, reason=live.unavailable)
        for live in (serving.live.values() if serving else ())
        if live.unavailable is not None
    ]
    return Status(
        version=version,
        ready=gateway.ready,
        draining=gateway.draining,
        namespace=snapshot.namespace if snapshot else None,
        gateway=snapshot.gateway if snapshot else None,
        revision=snapshot.revision if snapshot else None,
        wanted_revision=reload.wanted_revision,
        since=timestamp(reload.since) if reload.since else None,
        healthy=reload.healthy and snapshot is not None,
        error=reload.error,
        routes=[
            RouteState(
                name=route.name,
                accepted=route.accepted,
                generation=route.generation,
                reason=route.reason,
                since=timestamp(route.since),
            )
            for route in reload.routes
        ],
        models=sorted(snapshot.model_names) if snapshot else [],
        missing_secrets=list(reload.missing_secrets),
        missing_secret_entries=[
            MissingSecretEntry(one.route, one.field, one.secret, one.key, one.trouble)
            for one in (snapshot.missing_secrets if snapshot else ())
        ],
        unavailable_upstreams=unavailable,
        litellm_workers=[
            LitellmWorker(
                route=worker.route,
                upstream=worker.name,
                state=worker.state,
                pid=worker.pid,
                restarts=worker.restarts,
                resident_bytes=worker.resident_bytes,
            )
            for worker in workers
        ],
        shared_state=_shared_state(gateway),
        problems=list(reload.problems),
    )


def _shared_state(gateway: Gateway) -> SharedStateState | None:
    if gateway.shared_state is None:
        return None
    standing = gateway.shared_state.standing
    return SharedStateState(
        address=standing.address, state=standing.state, reason=standing.reason, since=timestamp(standing.since)
    )

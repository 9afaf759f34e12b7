"""What the admin port lists beside `/status`: models and where they go, what is left of the limits, the last calls.

Each is a view for a person or a program that looks. Of a call there is what its log line has and nothing of what it
said.
"""

import msgspec

from llmroute_sidecar.pipeline.serve import Gateway
from llmroute_sidecar.pipeline.tell import Ended, log_line
from llmroute_sidecar.policy.limits.rules import (
    PICODOLLARS,
    BudgetLimit,
    ConcurrencyLimit,
    Kind,
    Limit,
    Per,
    Period,
    RequestLimit,
    TokenLimit,
)
from llmroute_sidecar.policy.plan import DEFAULT_NAME, ModelEntry
from llmroute_sidecar.telemetry.metrics import LimitStanding


class ModelTarget(msgspec.Struct, frozen=True):
    upstream: str
    model: str | None
    """What the upstream calls it; null where that is what the client said."""
    weight: int


class Model(msgspec.Struct, frozen=True):
    """One entry of the models, and where it goes."""

    name: str | None
    """Exact, or with a trailing `*` a prefix; null for all that no entry names (the default upstream)."""
    route: str
    targets: list[ModelTarget]
    fallbacks: list[str]


class Models(msgspec.Struct, frozen=True):
    models: list[Model]


class LimitState(msgspec.Struct, frozen=True):
    """One limit, by the client, model or upstream that has the least left of it."""

    name: str
    route: str
    kind: Kind
    per: Per
    limit: float
    """Requests, tokens, calls at a time or US dollars."""
    remaining: float
    window_seconds: float | None
    """Of a limit on requests or tokens."""
    period: Period | None
    """Of a budget."""
    waiting: int
    """Calls in line."""


class Limits(msgspec.Struct, frozen=True):
    limits: list[LimitState]


class TokensUsed(msgspec.Struct, frozen=True):
    input: int
    output: int
    estimated: bool


class FinishedRequest(msgspec.Struct, frozen=True):
    """A call that is over. A client that left has status 499."""

    timestamp: str
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    client: str | None
    model: str | None
    upstream: str | None
    fallback_model: str | None
    attempts: int
    tried: list[str]
    """Each candidate and what came of it, where there was more than one, or the answer broke off."""
    tokens: TokensUsed | None
    code: str | None
    """Why the gateway itself said no (docs/errors.md)."""
    limit: str | None
    """The limit that refused it."""


class Requests(msgspec.Struct, frozen=True):
    requests: list[FinishedRequest]


def models(gateway: Gateway) -> Models:
    """Each model and where it goes."""
    serving = gateway.serving
    return Models([_model(entry) for entry in serving.snapshot.models.entries()] if serving else [])


def limits(gateway: Gateway) -> Limits:
    """What is left of each limit."""
    return Limits([_limit(limit, standing) for limit, standing in gateway.limit_standings()])


def requests(gateway: Gateway) -> Requests:
    """The last hundred calls, newest first, without their content."""
    return Requests([_request(call) for call in reversed(gateway.finished)])


def _model(entry: ModelEntry) -> Model:
    targets = [
        ModelTarget(upstream=target.upstream.partition("/")[2], model=target.model, weight=target.weight)
        for target in entry.targets
    ]
    name = None if entry.name == DEFAULT_NAME else entry.name
    return Model(name=name, route=entry.route, targets=targets, fallbacks=list(entry.fallbacks))


def _limit(limit: Limit, standing: LimitStanding) -> LimitState:
    kind: Kind
    amount: float
    window: float | None = None
    period: Period | None = None
    match limit:
        case RequestLimit():
            kind, amount, window = "requests", limit.requests, limit.window
        case TokenLimit():
            kind, amount, window = "tokens", limit.tokens, limit.window
        case ConcurrencyLimit():
            kind, amount = "concurrency", limit.concurrency
        case BudgetLimit():
            kind, amount, period = "budget", limit.amount / PICODOLLARS, limit.period
    return LimitState(
        name=limit.name,
        route=standing.route,
        kind=kind,
        per=limit.per,
        limit=amount,
        remaining=standing.remaining,
        window_seconds=window,
        period=period,
        waiting=standing.waiting,
    )


def _request(call: Ended) -> FinishedRequest:
    line = log_line(call)  # as the log has it, or would have it
    tokens = line.tokens
    return FinishedRequest(
        timestamp=line.timestamp,
        request_id=line.request_id,
        method=line.method,
        path=line.path,
        status=line.status,
        duration_ms=line.duration_ms,
        client=line.client,
        model=line.model,
        upstream=line.upstream,
        fallback_model=line.fallback_model,
        attempts=line.attempts,
        tried=line.tried or [],
        tokens=None if tokens is None else TokensUsed(tokens.input, tokens.output, tokens.estimated),
        code=line.code,
        limit=line.limit,
    )

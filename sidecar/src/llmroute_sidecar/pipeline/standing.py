"""How a limit stands, as clients and metrics are told: headers, a sentence, a gauge."""

from typing import assert_never

from llmroute_sidecar.pipeline.together import Together
from llmroute_sidecar.policy.limits.ledger import Ledger, Moment
from llmroute_sidecar.policy.limits.rules import (
    PICODOLLARS,
    BudgetLimit,
    ConcurrencyLimit,
    Kind,
    Limit,
    Refused,
    RequestLimit,
    Standing,
    TokenLimit,
)
from llmroute_sidecar.policy.retry import format_reset
from llmroute_sidecar.telemetry.metrics import LimitStanding
from llmroute_sidecar.upstream.exchange import Headers

_NAMES: dict[Kind, tuple[bytes, bytes, bytes]] = {
    "requests": (
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-reset-requests",
    ),
    "tokens": (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
}
"""OpenAI's; there are none for the other kinds."""


def standing_headers(standing: Standing) -> Headers:
    names = _NAMES.get(standing.kind)
    if names is None:
        return []
    limit, remaining, reset = names
    return [
        (limit, b"%d" % standing.limit),
        (remaining, b"%d" % standing.remaining),
        (reset, format_reset(standing.reset).encode()),
    ]


def refusal_text(refused: Refused) -> str:
    """Which limit said no, and what to do."""
    standing = refused.standing
    wait = f"try again in {format_reset(refused.retry_after)}"
    match standing.kind:
        case "requests":
            return f"the limit {standing.name!r} of {standing.limit} requests is reached; {wait}"
        case "tokens":
            left = f"has {standing.remaining} left, too few for this request"
            return f"the limit {standing.name!r} of {standing.limit} tokens {left}; {wait}"
        case "concurrency":
            return f"the limit {standing.name!r} of {standing.limit} requests at a time is reached; {wait}"
        case "budget":
            dollars = _dollars(standing.limit)
            return f"the budget {standing.name!r} of {dollars} US dollars has no room for this request; {wait}"
        case never:
            assert_never(never)


def _dollars(picodollars: int) -> str:
    text = f"{picodollars // PICODOLLARS}.{picodollars % PICODOLLARS:012d}"
    return text.rstrip("0").rstrip(".")


def standing_of(ledger: Ledger, limit: Limit, now: Moment) -> LimitStanding:
    """For the gauges."""
    waiting = ledger.slots.waiting(limit) if isinstance(limit, ConcurrencyLimit) else 0
    return _told(limit, ledger.remaining(limit, now), waiting)


def standing_together(together: Together, limit: Limit) -> LimitStanding:
    """For the gauges, of a limit that other pods count too: what was heard of it last, and this pod's line."""
    assert together.state is not None
    return _told(limit, together.state.remaining(limit), together.waiting(limit.id))


def _told(limit: Limit, remaining: float, waiting: int) -> LimitStanding:
    kind: Kind
    match limit:
        case RequestLimit():
            kind = "requests"
        case TokenLimit():
            kind = "tokens"
        case ConcurrencyLimit():
            kind = "concurrency"
        case BudgetLimit():
            kind, remaining = "budget", remaining / PICODOLLARS
    return LimitStanding(limit.id.partition("/")[0], limit.name, kind, remaining, waiting)

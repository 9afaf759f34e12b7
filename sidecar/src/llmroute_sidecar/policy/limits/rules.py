"""Limits as values, and what is said of a call that meets them."""

from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["requests", "tokens", "concurrency", "budget"]
Per = Literal["Client", "Model", "Upstream", "Gateway"]
Period = Literal["Hour", "Day", "Week", "Month"]

PICODOLLARS = 10**12
"""A dollar in the unit that money is counted in: a price has up to six decimals for a million tokens, so that each
token costs a whole number of these, and no cost is ever rounded."""


@dataclass(frozen=True, slots=True)
class RequestLimit:
    """A rule: at most `requests` in any `window` seconds, counted apart `per` what it says."""

    id: str
    """Identity over reloads: `<route>/<limit>`."""
    name: str
    per: Per
    requests: int
    window: float


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """At most `tokens`, in and out, in any `window` seconds."""

    id: str
    name: str
    per: Per
    tokens: int
    window: float


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """At most `concurrency` calls at a time; up to `queue_size` more wait, each up to `queue_timeout` seconds."""

    id: str
    name: str
    per: Per
    concurrency: int
    queue_size: int
    queue_timeout: float


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """At most `amount` picodollars in each calendar `period`, in UTC."""

    id: str
    name: str
    per: Per
    amount: int
    period: Period


Limit = RequestLimit | TokenLimit | ConcurrencyLimit | BudgetLimit


class Standing(msgspec.Struct, frozen=True):
    """How a key stands with a limit, for the `x-ratelimit-*` headers."""

    name: str
    limit: int
    remaining: int
    reset: float
    """Seconds until the limit is whole again if nothing more comes: OpenAI's "time until the limit resets to its
    initial state"."""
    kind: Kind = "requests"


class Admitted(msgspec.Struct, frozen=True):
    standing: Standing | None
    """Of the strictest limit: the least remaining, then the longest reset. None where no limit applies."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was counted. Where several limits refuse, it is the one with the longest wait."""

    standing: Standing
    retry_after: float
    """Seconds until a request of this kind may be admitted, if nothing else takes its place."""


def longer(one: Refused | None, other: Refused | None) -> Refused | None:
    """The refusal with the longer wait; the first where they are alike."""
    if one is None or other is None:
        return other if one is None else one
    return other if other.retry_after > one.retry_after else one

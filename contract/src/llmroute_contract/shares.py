"""Limits over all pods of a gateway without a server that counts: each pod has a share of them. Pure.

The controller counts the pods and writes the number into `gateway.json`; each gateway takes its own share of every
limit of scope Gateway. A share is the whole part of limit / pods; what is left over, one each, is for the pods that
have been there longest, by name. So the sum of all shares is never more than the limit, and it is the limit where what
is left over is for no more than FIRST_MAX pods.

A limit that is smaller than the number of pods leaves some of them with nothing: they refuse every call. That is told
in the route's status. A gateway that has just begun is not counted yet, nor named: until it is, a moment later, it has
a hundredth of the limit (and 1 at least), so that a Deployment that grows from 2 pods to 50 does not take 25 limits.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from llmroute_contract import compiled as c
from llmroute_contract.scalars import microdollars

if TYPE_CHECKING:  # a gateway that serves loads this file, and not pydantic
    from llmroute_contract.llmroute import Limit

FIRST_MAX = 100
"""Names in `gateway.json`: it changes with each pod, and every gateway reads it."""


def shares_among(pods: Sequence[str]) -> c.CompiledShares:
    """`pods` are the names of all, the oldest first."""
    return c.CompiledShares(max(1, len(pods)), tuple(pods[:FIRST_MAX]))


def are_shared_out(routes: Iterable[c.CompiledRoute]) -> bool:
    """Whether any limit is to be: only such a gateway pays for it with revisions that change as pods come and go."""
    return any(limit.scope == "Gateway" for route in routes for limit in route.limits)


def share_of(amount: int, shares: c.CompiledShares, pod: str) -> int:
    """Of a limit of `amount`, what `pod` may do."""
    whole, left = divmod(amount, shares.pods)
    if shares.pods <= len(shares.first) and pod not in shares.first:  # all that are counted are named
        return min(whole, max(1, amount // FIRST_MAX))
    return whole + (1 if pod in shares.first[:left] else 0)


def own_share(route: c.CompiledRoute, shares: c.CompiledShares, pod: str) -> c.CompiledRoute:
    """`route` with the numbers of its limits of scope Gateway as they are for `pod`; 0 admits nothing."""
    limits = tuple(_own(limit, shares, pod) if limit.scope == "Gateway" else limit for limit in route.limits)
    return msgspec.structs.replace(route, limits=limits) if limits != route.limits else route


def _own(limit: c.CompiledLimit, shares: c.CompiledShares, pod: str) -> c.CompiledLimit:
    def share(amount: int | None) -> int | None:
        return None if amount is None else share_of(amount, shares, pod)

    budget = limit.budget
    if budget is not None:
        budget = msgspec.structs.replace(budget, usd=_usd(share_of(microdollars(budget.usd), shares, pod)))
    return msgspec.structs.replace(
        limit,
        requests=share(limit.requests),
        tokens=share(limit.tokens),
        concurrency=share(limit.concurrency),
        budget=budget,
    )


def _usd(amount: int) -> str:
    return f"{amount // 1_000_000}.{amount % 1_000_000:06d}"


# --- in words


def say_shares(limit: "Limit", shares: c.CompiledShares) -> str:
    """`6000 tokens/60s, 4 pods, 1500 each`."""
    pods = "1 pod" if shares.pods == 1 else f"{shares.pods} pods"
    if limit.budget is not None:
        each = _usd(microdollars(limit.budget.usd) // shares.pods).rstrip("0").rstrip(".")
        return f"{limit.budget.usd} US dollars/{limit.budget.period}, {pods}, {each} each"
    amount, unit = _amount(limit)
    whole, left = divmod(amount, shares.pods)
    left = min(left, len(shares.first))
    if whole == 0:
        each = f"1 each for the {left} oldest, nothing for {shares.pods - left}"
    elif left == 0:
        each = f"{whole} each"
    else:
        each = f"{whole + 1} each for the {left} oldest, {whole} each for {shares.pods - left}"
    return f"{amount} {unit}, {pods}, {each}"


def without_share(limit: "Limit", shares: c.CompiledShares) -> int:
    """How many pods a limit leaves with nothing."""
    amount = microdollars(limit.budget.usd) if limit.budget is not None else _amount(limit)[0]
    return max(0, shares.pods - min(amount, len(shares.first))) if amount < shares.pods else 0


def _amount(limit: "Limit") -> tuple[int, str]:
    if limit.concurrency is not None:
        return limit.concurrency, "at the same time"
    window = f"{limit.window or 60.0:g}s"
    if limit.tokens is not None:
        return limit.tokens, f"tokens/{window}"
    return limit.requests or 0, f"requests/{window}"

"""Which requests leave a log line.

Theory of operation
===================

A route's rules are looked at in order; the first one that matches a request decides, by its rate. A request that no
rule matches is logged.

    what became of the request      is logged
    5xx, a broken stream, a fault   always, whatever the rules say
    other errors (4xx)              always, unless a rule that names their status says otherwise
    all else                        as the first matching rule says

A rule without a status says how much of a client's or a model's traffic is of interest. That it should hide the 401 or
the 429 that somebody is looking for is never what its writer meant, so it does not match errors.

The decision is made from the trace id: every line of a request, those of an SDK's further tries and those of other
gateways on its way have the same one, and so are all there or all missing. The id is hashed, since clients make ids as
they like (counters, dates), and a share of those would be no share at all.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SampleRule:
    """One of a route's rules; None matches everything."""

    status: str | None
    """A status (`429`) or a class of them (`2xx`)."""
    client: str | None
    model: str | None
    """A trailing `*` matches a prefix."""
    rate: float


def is_logged(
    rules: Sequence[SampleRule], status: int, client: str | None, model: str, trace_id: str, *, broken: bool
) -> bool:
    """Whether a request leaves a line. `broken`: it did not end well, whatever its status."""
    if broken or status >= 500:
        return True
    for rule in rules:
        if _matches(rule, status, client, model):
            return _is_in_share(trace_id, rule.rate)
    return True


def _matches(rule: SampleRule, status: int, client: str | None, model: str) -> bool:
    if rule.status is None:
        if status >= 400:
            return False
    elif rule.status != f"{status // 100}xx" and rule.status != str(status):
        return False
    if rule.client is not None and rule.client != client:
        return False
    if rule.model is None or rule.model == model:
        return True
    return rule.model.endswith("*") and model.startswith(rule.model[:-1])


def _is_in_share(trace_id: str, rate: float) -> bool:
    if rate >= 1:
        return True
    digest = hashlib.blake2b(trace_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < rate * 2**64

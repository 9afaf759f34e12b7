"""What to do next about the webhook's certificate: a table over what is there, and two waits.

Theory of operation
-------------------
Three parties hold a copy each, and none is told when another has a new one. The Secret holds the certificate that is
served (`served`) and the one that will be (`next`); the injectors serve what their volume of the Secret shows, which
kubelet refreshes within a minute or two; the API servers trust the webhook configuration's bundle, which each watches.
One rule keeps every admission whole: **what any injector may serve, every API server trusts**. So a renewal is walked
in an order in which each step is safe whenever the one before it has reached everybody:

    stage     a new certificate goes into the Secret as `next`; nobody serves it
    publish   its authority is added to the bundle
              wait PUBLISH: every API server has the bundle
    promote   `next` becomes `served`; injectors take it over one by one, each whenever its kubelet comes to it
              wait RETIRE: every injector has it
    retire    authorities of neither `served` nor `next` leave the bundle

- To add an authority is always safe, so one that is missing from the bundle comes before everything else.
- The two waits are not clock times that are stored. They count, on the monotonic clock of this process, for how long
  neither object has changed (`unchanged_for`). A restart, another controller's write, a hand edit begin them again: a
  wait can become longer, never shorter, and no step of a clock moves it.
- Whether a certificate has begun or ended is judged by the API server's clock (the `Date` of its answers), which is
  the one that will judge it in earnest. The clock of the controller's node plays no part.
- Where the bundle trusts nothing else than `next`, nothing that is served can be lost: there is no wait. That is the
  first installation.
- Writes are conditional on the version of the object that was read, and the webhook configuration is read before the
  Secret. So of two controllers one write wins and the other looks again, and no authority that is in a bundle is
  mistaken for a stranger's: if ours put it there, the Secret has known it since before.
- A `next` that is not good any more (it lay there for long, other names are asked for) leaves the Secret first; so what
  is retired can be promoted by nobody.
- Where somebody else makes the certificates (cert-manager), theirs is `offered`, in a Secret of its own. It is staged
  in place of one that we make, and it is due when another is offered. All else is the same, so that a change of who
  makes them is a renewal like any other: what is served stays until its successor is trusted.
- What cannot be read (a hand edit) counts as not there. Its authority, if the bundle still has it, is a stranger and
  stays for RETIRE: injectors go on with what they have loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from llmroute_operator.certificates.certificate import Authority, ServingCertificate

RENEWED_WITH_LEFT = 1 / 3
"""Of its life, when a certificate is due."""
STRANGERS_MOST = 16
"""Authorities in a bundle beside our own, so that no quarrel over an object makes it grow for ever."""


@dataclass(frozen=True, slots=True)
class Terms:
    names: frozenset[str]
    lifetime: timedelta
    publish: timedelta
    retire: timedelta
    made_elsewhere: bool = False
    """Whether what is staged is what somebody else offers."""


@dataclass(frozen=True, slots=True)
class Found:
    """The two objects, as read."""

    served: ServingCertificate | None
    next: ServingCertificate | None
    bundles: Sequence[tuple[Authority, ...] | None]
    """Of each webhook of the configuration, one at least; None where it cannot be read."""
    unchanged_for: timedelta
    now: datetime
    """By the API server's clock."""
    offered: ServingCertificate | None = None
    """What somebody else has made."""

    @property
    def trusted_by_all(self) -> frozenset[Authority]:
        first, *others = (frozenset(bundle or ()) for bundle in self.bundles)
        return first.intersection(*others)

    @property
    def trusted_by_any(self) -> frozenset[Authority]:
        return frozenset(authority for bundle in self.bundles for authority in bundle or ())


class WriteSecret(Enum):
    STAGE = "stage"
    """Make a certificate (or take what is offered) and put it in as `next`."""
    PROMOTE = "promote"
    """`next` becomes `served`."""
    DISCARD = "discard"
    """Take out a `next` that is too old by now, has other names, or is offered no more."""


@dataclass(frozen=True, slots=True)
class WriteBundle:
    """Every webhook is to trust exactly these."""

    authorities: tuple[Authority, ...]
    is_retirement: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so long, if nobody changes anything."""

    time: timedelta


Decision = WriteSecret | WriteBundle | Wait


def decide(found: Found, terms: Terms) -> Decision:
    served, following = found.served, found.next
    ours = [one.authority for one in (served, following) if one is not None]
    strangers = sorted(found.trusted_by_any - set(ours), key=lambda one: (one.not_before, one.pem), reverse=True)
    if not found.trusted_by_all.issuperset(ours) or None in found.bundles:
        return WriteBundle((*ours, *strangers[:STRANGERS_MOST]), is_retirement=False)
    if following is not None:
        if not _is_good(following, found, terms):
            return WriteSecret.DISCARD
        alone = found.trusted_by_any == {following.authority}
        left = timedelta(0) if alone else terms.publish - found.unchanged_for
        return Wait(left) if left > timedelta(0) else WriteSecret.PROMOTE
    if served is None and terms.made_elsewhere and found.offered is None:
        return Wait(timedelta.max)
    if served is None or not _is_good(served, found, terms):
        return WriteSecret.STAGE
    due = timedelta.max if terms.made_elsewhere else _due(served, terms) - found.now
    left = terms.retire - found.unchanged_for
    if not strangers:
        return Wait(due)
    if left > timedelta(0):
        return Wait(min(left, due))
    return WriteBundle((served.authority,), is_retirement=True)


def _is_good(certificate: ServingCertificate, found: Found, terms: Terms) -> bool:
    """Whether it can be served, and is not due."""
    if terms.made_elsewhere:
        return found.offered is None or certificate.pem == found.offered.pem
    return certificate.not_before <= found.now < _due(certificate, terms) and certificate.names >= terms.names


def _due(certificate: ServingCertificate, terms: Terms) -> datetime:
    return certificate.not_after - terms.lifetime * RENEWED_WITH_LEFT

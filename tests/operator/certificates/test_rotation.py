"""The steps of a renewal, and what holds over any of their orders: nothing is served that is not trusted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from llmroute_operator.certificates.certificate import Authority, ServingCertificate
from llmroute_operator.certificates.rotation import (
    STRANGERS_MOST,
    Decision,
    Found,
    Terms,
    Wait,
    WriteBundle,
    WriteSecret,
    decide,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = frozenset({"llmroute-injector.llmroute-system.svc"})
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
TERMS = Terms(NAMES, lifetime=90 * DAY, publish=30 * SECOND, retire=timedelta(hours=1))


def certificate(
    name: str = "a", made: datetime = NOW, lifetime: timedelta = TERMS.lifetime, names: frozenset[str] = NAMES
) -> ServingCertificate:
    start = made - DAY
    return ServingCertificate(b"", b"", Authority(name.encode(), start), names, start, made + lifetime)


A, B = certificate("a"), certificate("b")
STRANGER = Authority(b"stranger", NOW - 400 * DAY)
LATER = NOW + 61 * DAY
"""A is due."""
C = certificate("c", LATER)


def found(
    served: ServingCertificate | None = A,
    following: ServingCertificate | None = None,
    bundle: Sequence[Authority] | None = (A.authority,),
    unchanged_for: timedelta = timedelta(days=9),
    now: datetime = NOW,
) -> Found:
    return Found(served, following, [None if bundle is None else tuple(bundle)] * 2, unchanged_for, now)


def publish(*authorities: Authority) -> WriteBundle:
    return WriteBundle(authorities, is_retirement=False)


def retire(authority: Authority) -> WriteBundle:
    return WriteBundle((authority,), is_retirement=True)


TABLE: list[tuple[str, Found, Decision]] = [
    ("nothing is there", found(None, None, ()), WriteSecret.STAGE),
    ("the first one is made", found(None, A, ()), publish(A.authority)),
    (
        "the first one is published, and nothing else is trusted",
        found(None, A, (A.authority,), 0 * DAY),
        WriteSecret.PROMOTE,
    ),
    ("all is well", found(), Wait(60 * DAY)),
    ("two thirds of its life are over", found(now=LATER), WriteSecret.STAGE),
    ("its successor is made", found(A, C, now=LATER), publish(A.authority, C.authority)),
    ("just published", found(A, C, (A.authority, C.authority), 10 * SECOND, LATER), Wait(20 * SECOND)),
    ("published for long enough", found(A, C, (A.authority, C.authority), 30 * SECOND, LATER), WriteSecret.PROMOTE),
    ("just promoted", found(C, None, (A.authority, C.authority), 60 * SECOND, LATER), Wait(timedelta(minutes=59))),
    ("promoted for long enough", found(C, None, (A.authority, C.authority), TERMS.retire, LATER), retire(C.authority)),
    ("the bundle was emptied by hand", found(bundle=()), publish(A.authority)),
    ("the bundle is not PEM", found(bundle=None), publish(A.authority)),
    ("somebody put an authority in", found(bundle=(A.authority, STRANGER), unchanged_for=0 * DAY), Wait(TERMS.retire)),
    ("the Secret was emptied", found(None), WriteSecret.STAGE),
    ("the Secret was emptied, a new one is made", found(None, B), publish(B.authority, A.authority)),
    (
        "the Secret was emptied, the new one is published, injectors may still serve the old one",
        found(None, B, (A.authority, B.authority), 0 * DAY),
        Wait(TERMS.publish),
    ),
    ("an old Secret was put back", found(A, None, (C.authority,)), publish(A.authority, C.authority)),
    ("it has other names", found(certificate("a", names=frozenset({"elsewhere.svc"}))), WriteSecret.STAGE),
    ("it has ended", found(now=NOW + 91 * DAY), WriteSecret.STAGE),
    ("the clock was set back to before it begins", found(now=NOW - 2 * DAY), WriteSecret.STAGE),
    (
        "its successor lay there until it is due itself",
        found(A, B, (A.authority, B.authority), now=LATER),
        WriteSecret.DISCARD,
    ),
]


def offered(there: Found, one: ServingCertificate | None) -> Found:
    return replace(there, offered=one)


OLD = certificate("ours", NOW - 20 * DAY)
X, Y = replace(certificate("x"), pem=b"x"), replace(certificate("y"), pem=b"y")
"""Of cert-manager's making."""
ELSEWHERE_TABLE: list[tuple[str, Found, Decision]] = [
    ("nothing is there and nothing is offered", found(None, None, ()), Wait(timedelta.max)),
    ("the first one is offered", offered(found(None, None, ()), X), WriteSecret.STAGE),
    ("the first one is taken", offered(found(None, X, ()), X), publish(X.authority)),
    ("the first one is trusted alone", offered(found(None, X, (X.authority,), 0 * DAY), X), WriteSecret.PROMOTE),
    ("all is well", offered(found(X, None, (X.authority,)), X), Wait(timedelta.max)),
    ("it is old, and no other is offered", offered(found(X, None, (X.authority,), now=LATER), X), Wait(timedelta.max)),
    ("cert-manager's Secret is gone", found(X, None, (X.authority,)), Wait(timedelta.max)),
    ("it takes over from us, and offers nothing yet", found(OLD, None, (OLD.authority,)), Wait(timedelta.max)),
    ("it takes over from us", offered(found(OLD, None, (OLD.authority,)), X), WriteSecret.STAGE),
    ("what it offers is taken", offered(found(OLD, X, (OLD.authority,)), X), publish(OLD.authority, X.authority)),
    ("just published", offered(found(OLD, X, (OLD.authority, X.authority), 10 * SECOND), X), Wait(20 * SECOND)),
    ("published for long enough", offered(found(OLD, X, (OLD.authority, X.authority)), X), WriteSecret.PROMOTE),
    ("ours is retired", offered(found(X, None, (OLD.authority, X.authority)), X), retire(X.authority)),
    ("it has renewed it", offered(found(X, None, (X.authority,)), Y), WriteSecret.STAGE),
    ("it has renewed it once more", offered(found(OLD, X, (OLD.authority, X.authority)), Y), WriteSecret.DISCARD),
]


@pytest.mark.parametrize(
    ("there", "decision"), [row[1:] for row in ELSEWHERE_TABLE], ids=[row[0] for row in ELSEWHERE_TABLE]
)
def test_what_is_done_when_somebody_else_makes_them(there: Found, decision: Decision) -> None:
    assert decide(there, replace(TERMS, made_elsewhere=True)) == decision


def test_what_somebody_else_has_made_is_served_on_until_it_is_due() -> None:
    there = found(X, None, (X.authority,))
    assert decide(there, TERMS) == Wait(60 * DAY)
    assert decide(replace(there, now=LATER), TERMS) == WriteSecret.STAGE


@pytest.mark.parametrize(("there", "decision"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_done_when(there: Found, decision: Decision) -> None:
    assert decide(there, TERMS) == decision


def test_webhooks_that_trust_different_things_come_to_trust_the_same() -> None:
    there = Found(A, C, [(A.authority,), (A.authority, C.authority)], timedelta(days=9), LATER)
    assert decide(there, TERMS) == publish(A.authority, C.authority)


def test_a_bundle_does_not_grow_for_ever() -> None:
    crowd = [Authority(str(number).encode(), NOW + number * SECOND) for number in range(50)]
    decision = decide(found(bundle=crowd), TERMS)
    assert isinstance(decision, WriteBundle)
    assert len(decision.authorities) == 1 + STRANGERS_MOST
    assert crowd[-1] in decision.authorities, "the newest are the likeliest to be in use"


@dataclass
class Controller:
    """What one process knows. Each of its steps may be its last."""

    versions: tuple[int, int] | None = None
    since: float = 0.0
    webhook_read: "tuple[float, int, tuple[Authority, ...]] | None" = None
    decided: "tuple[Decision, Found, int, int] | None" = None


KUBELET_SECONDS = 3000.0
"""Within which an injector has what is in the Secret; less than TERMS.retire."""
WATCH_SECONDS = 20.0
"""Within which an API server has the bundle; less than TERMS.publish."""


class Renewals(RuleBasedStateMachine):
    """Two controllers that read and write in any order, restart at any step, over any steps of the API server's clock,
    with injectors and API servers that lag behind by as much as they may."""

    terms = TERMS

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.clock_offset = timedelta(0)
        self.made = 0
        self.served, self.next, self.secret_version = A, None, 1
        self.trusted, self.webhook_version = (A.authority,), 1
        self.served_until: list[tuple[float, ServingCertificate]] = []
        self.trusted_until: list[tuple[float, tuple[Authority, ...]]] = []
        self.controllers = [Controller(), Controller()]

    served: ServingCertificate
    next: ServingCertificate | None
    trusted: tuple[Authority, ...]

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.time) + self.clock_offset

    @rule(seconds=st.sampled_from([1.0, 15.0, 31.0, 600.0, 3601.0, 86400.0 * 61]))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    @rule(days=st.sampled_from([-400.0, -70.0, -0.5, -0.01, 0.01, 0.5, 70.0, 400.0]))
    def the_clock_is_set(self, days: float) -> None:
        self.clock_offset += timedelta(days=days)

    @rule(who=st.integers(0, 1))
    def a_controller_restarts(self, who: int) -> None:
        self.controllers[who] = Controller()

    @rule(who=st.integers(0, 1))
    def it_reads_the_webhooks(self, who: int) -> None:
        self.controllers[who].webhook_read = (self.time, self.webhook_version, self.trusted)

    @precondition(lambda self: any(one.webhook_read for one in self.controllers))
    @rule(who=st.integers(0, 1))
    def it_reads_the_secret_and_decides(self, who: int) -> None:
        controller = self.controllers[who]
        if controller.webhook_read is None:
            return
        began, version, bundle = controller.webhook_read
        versions = (version, self.secret_version)
        if controller.versions != versions:
            controller.versions, controller.since = versions, self.time
        unchanged_for = timedelta(seconds=max(0.0, began - controller.since))
        there = Found(self.served, self.next, [bundle], unchanged_for, self.now)
        controller.webhook_read = None
        controller.decided = (decide(there, self.terms), there, *versions)

    @precondition(lambda self: any(one.decided for one in self.controllers))
    @rule(who=st.integers(0, 1))
    def it_writes(self, who: int) -> None:
        controller = self.controllers[who]
        if controller.decided is None:
            return
        decision, there, webhook_version, secret_version = controller.decided
        controller.decided = None
        match decision:
            case WriteBundle(authorities=authorities) if webhook_version == self.webhook_version:
                self._write_bundle(authorities)
            case WriteSecret() if secret_version == self.secret_version:
                self._write_secret(decision, there)

    @rule(who=st.integers(0, 1))
    def it_makes_a_whole_look(self, who: int) -> None:
        self.it_reads_the_webhooks(who)
        self.it_reads_the_secret_and_decides(who)
        self.it_writes(who)

    @rule()
    def somebody_puts_an_authority_in(self) -> None:
        self._write_bundle((*self.trusted, STRANGER) if STRANGER not in self.trusted else self.trusted)

    def _write_bundle(self, authorities: tuple[Authority, ...]) -> None:
        self.trusted_until.append((self.time, self.trusted))
        self.trusted, self.webhook_version = authorities, self.webhook_version + 1

    def _write_secret(self, decision: WriteSecret, there: Found) -> None:
        self.secret_version += 1
        match decision:
            case WriteSecret.STAGE:
                self.made += 1
                self.next = certificate(f"made {self.made}", there.now)
            case WriteSecret.PROMOTE:
                assert self.next is not None
                self.served_until.append((self.time, self.served))
                self.served, self.next = self.next, None
            case WriteSecret.DISCARD:
                self.next = None

    @invariant()
    def whatever_may_be_served_is_trusted_by_whatever_may_be_in_use(self) -> None:
        served = [self.served, *(one for until, one in self.served_until if self.time - until <= KUBELET_SECONDS)]
        trusted = [self.trusted, *(one for until, one in self.trusted_until if self.time - until <= WATCH_SECONDS)]
        for one in served:
            for bundle in trusted:
                assert one.authority in bundle

    def teardown(self) -> None:
        """Left alone, one controller comes to rest: one good certificate, its authority alone, and nothing to write."""
        self.controllers = [Controller(), Controller()]
        for _ in range(40):
            self.it_makes_a_whole_look(0)
            self.whatever_may_be_served_is_trusted_by_whatever_may_be_in_use()
            self.time += 601.0
        versions = (self.secret_version, self.webhook_version)
        self.it_makes_a_whole_look(0)
        assert (self.secret_version, self.webhook_version) == versions
        assert self.next is None
        assert self.trusted == (self.served.authority,)
        assert self.served.not_before <= self.now < self.served.not_after


Renewals.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestRenewals = Renewals.TestCase


class HastyRenewals(Renewals):
    terms = replace(TERMS, publish=timedelta(0), retire=timedelta(0))


def test_the_machine_finds_steps_that_come_too_early() -> None:
    """Otherwise it would prove nothing."""
    few = settings(Renewals.TestCase.settings, print_blob=False, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(HastyRenewals, settings=few)

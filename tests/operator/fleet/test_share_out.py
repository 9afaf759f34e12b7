"""When limits are shared out anew, and what is admitted in sum while a Deployment scales from 2 pods to 50 and back.

The scaling is simulated: the real policy on both sides (when the controller writes, what each gateway admits) under a
clock of the test's, with pods that come over ten seconds and read a new revision after up to a second. On a real node
`python -m bench.scaling` has it.
"""

from dataclasses import dataclass, field
from itertools import takewhile

from llmroute_contract import compiled as c
from llmroute_contract.shares import own_share, shares_among
from llmroute_operator.controller.fleet.shares import GROWTH, SHRINKING, ShareOut
from llmroute_operator.controller.route import GatewayKey
from llmroute_sidecar.policy.limits.requests import Limiter
from llmroute_sidecar.policy.limits.rules import Admitted, RequestLimit

KEY = GatewayKey("shop", "default")


def pods(count: int) -> list[str]:
    return [f"pod-{number:02}" for number in range(count)]


def test_the_first_count_is_written_at_once() -> None:
    assert ShareOut().settle(KEY, None, shares_among(pods(3)), 0) == (shares_among(pods(3)), None)


def test_growth_is_written_after_a_quiet_moment() -> None:
    share_out, two, three = ShareOut(), shares_among(pods(2)), shares_among(pods(3))
    assert share_out.settle(KEY, two, three, 10) == (two, GROWTH.quiet)
    assert share_out.settle(KEY, two, three, 10 + GROWTH.quiet) == (three, None)


def test_growth_that_does_not_end_is_written_all_the_same() -> None:
    share_out, two = ShareOut(), shares_among(pods(2))
    written = [
        now
        for now in (tenth / 10 for tenth in range(100))
        if share_out.settle(KEY, two, shares_among(pods(3 + int(now * 10))), now)[0] != two
    ]
    assert written[0] == GROWTH.most


def test_pods_that_went_are_waited_for_longer() -> None:
    share_out, three, two = ShareOut(), shares_among(pods(3)), shares_among(pods(2))
    assert share_out.settle(KEY, three, two, 0) == (three, SHRINKING.quiet)
    assert share_out.settle(KEY, three, two, 5) == (three, SHRINKING.quiet - 5)
    assert share_out.settle(KEY, three, three, 6) == (three, None)  # it came back: nothing was written
    assert share_out.settle(KEY, three, two, 7) == (three, SHRINKING.quiet)


def test_what_another_controller_has_written_is_kept() -> None:
    share_out, two, three = ShareOut(), shares_among(pods(2)), shares_among(pods(3))
    assert share_out.settle(KEY, two, three, 0)[0] == two
    assert share_out.settle(KEY, three, three, 0.1) == (three, None)


LIMIT = 1000  # requests in 60 s, over all pods
WINDOW = 60.0


@dataclass
class Gateway:
    """One pod's: the real limiter, and the shares that it has read so far."""

    name: str
    shares: c.CompiledShares
    limiter: Limiter = field(default_factory=Limiter)
    reads_at: float = 0.0

    def asks(self, now: float) -> bool:
        route = c.CompiledRoute(
            1, "r", "shop", "default", 1, c.CompiledAuth("None", None, ()), (), (), None, (_LIMIT,), ()
        )
        share = own_share(route, self.shares, self.name).limits[0].requests or 0
        rule = RequestLimit("r/all", "all", "Gateway", share, WINDOW)
        return isinstance(self.limiter.admit([(rule, "")], now), Admitted)


_LIMIT = c.CompiledLimit("all", "Gateway", "Gateway", WINDOW, LIMIT, None, None, None)


def test_scaling_from_2_to_50_pods_and_back_writes_little_and_stays_near_the_limit() -> None:
    share_out = ShareOut()
    written = shares_among(pods(2))
    writes: list[tuple[float, int]] = []
    gateways = {name: Gateway(name, written) for name in pods(2)}
    admitted: list[float] = []
    settled_since, highest_settled, highest = 0.0, 0, 0
    for tick in range(4800):  # a tenth of a second each, eight minutes
        now = tick / 10
        wanted = 2 if now < 120 else min(50, 2 + int((now - 120) * 4.8)) if now < 300 else 2
        for name in pods(wanted):
            if name not in gateways:
                gateways[name] = Gateway(name, written)  # it reads the ConfigMap as it is
        for name in set(gateways) - set(pods(wanted)):
            del gateways[name]
        present, written = written, share_out.settle(KEY, written, shares_among(pods(wanted)), now)[0]
        if written != present:
            writes.append((now, written.pods))
        for place, gateway in enumerate(gateways.values()):
            if gateway.shares != written:
                gateway.reads_at = gateway.reads_at or now + 1 + (place % 10) / 10
                if now >= gateway.reads_at:
                    gateway.shares, gateway.reads_at = written, 0.0
            calls = sum(1 for _ in takewhile(bool, (gateway.asks(now) for _ in range(30))))
            admitted += [now] * calls  # far more are asked for than the limit allows
        if any(gateway.shares.pods != len(gateways) for gateway in gateways.values()):
            settled_since = now
        admitted = [then for then in admitted if then + WINDOW > now]
        highest = max(highest, len(admitted))
        if now >= settled_since + WINDOW:
            highest_settled = max(highest_settled, len(admitted))
    assert highest_settled == LIMIT  # all run the revision that counts them, a window long: never more, and all of it
    # Without a server there is no promise while pods come: what old pods counted stays theirs, new ones begin at 0.
    assert LIMIT < highest <= 2.5 * LIMIT
    assert [count for _, count in writes][-1] == 2
    assert len(writes) <= 5  # not 48

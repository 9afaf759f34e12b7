"""All pods with a gateway, and what each has told of itself. Sans-IO: fed by the watch and by those who ask.

A pod's state belongs to its uid. What is older than what is known is passed over, for the watch and the answers to our
own patches may cross.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llmroute_operator.controller.fleet import pace
from llmroute_operator.controller.fleet.pod import GatewayPod, PodId
from llmroute_operator.controller.fleet.report import Report
from llmroute_operator.controller.route import GatewayKey, is_older

FAILURES_BELIEVED = 3


@dataclass(slots=True)
class Member:
    """A pod and what is known of its gateway. `report` outlives failures: it is what it last said."""

    pod: GatewayPod
    is_first: bool
    """It was there when the controller began, and nobody has asked it since: nothing is known yet."""
    report: Report | None = None
    since: float = 0.0
    """When it first said that."""
    failure: str = ""
    """Why the last questions got no answer, once that is to be believed."""
    failures: int = 0
    """Questions without an answer, in a row."""
    touched_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one serving pod stands, for its routes' conditions."""

    pod: GatewayPod
    report: Report | None
    failure: str


class Roster:
    def __init__(self) -> None:
        self._members: dict[PodId, Member] = {}
        self._by_gateway: dict[GatewayKey, dict[PodId, Member]] = {}
        self._wanted: dict[GatewayKey, tuple[str, float]] = {}
        """The revision in the ConfigMap of each gateway, and since when it has been that."""
        self._unlisted: set[str | None] = set()

    def __len__(self) -> int:
        return len(self._members)

    def expect(self, scopes: Iterable[str | None]) -> None:
        """Nothing is known of pods before those of each of `scopes` were listed."""
        self._unlisted.update(scopes)

    @property
    def is_listed(self) -> bool:
        return not self._unlisted

    def _is_unlisted(self, namespace: str) -> bool:
        return None in self._unlisted or namespace in self._unlisted

    # --- the watch

    def put(self, pod: GatewayPod) -> bool:
        """Whether there is something new to do: it has to be asked, or its gateway's routes have something to tell."""
        known = self._members.get(pod.id)
        if known is None:
            self._add(Member(pod, is_first=self._is_unlisted(pod.id.namespace) and pod.is_serving))
            return True
        before = known.pod
        if is_older(pod.version, before.version):
            return False
        if before.key != pod.key:
            self.remove(pod.id)
            self._add(Member(pod, is_first=False))
            return True
        known.pod = pod
        if (before.address, before.port) != (pod.address, pod.port):
            known.report, known.failure, known.failures = None, "", 0
        return (before.is_serving, before.url, before.secrets) != (pod.is_serving, pod.url, pod.secrets)

    def remove(self, id_: PodId) -> GatewayKey | None:
        """The gateway that has lost it."""
        known = self._members.pop(id_, None)
        if known is None:
            return None
        key = known.pod.key
        pods = self._by_gateway[key]
        del pods[id_]
        if not pods:
            del self._by_gateway[key]
        return key

    def listed(self, scope: str | None, found: Iterable[PodId]) -> frozenset[GatewayKey]:
        """`found` are all of a scope. The answer: gateways that have lost one while nobody watched; the first time,
        all that there is something to say of now."""
        there = set(found)
        gone = [id_ for id_ in self._members if id_ not in there and scope in (None, id_.namespace)]
        lost = frozenset(key for id_ in gone if (key := self.remove(id_)) is not None)
        if scope in self._unlisted:
            self._unlisted.discard(scope)
            return lost | self._by_gateway.keys() | self._wanted.keys()
        return lost

    def _add(self, member: Member) -> None:
        self._members[member.pod.id] = member
        self._by_gateway.setdefault(member.pod.key, {})[member.pod.id] = member

    # --- what they should serve

    def want(self, key: GatewayKey, revision: str, now: float) -> tuple[PodId, ...]:
        """The ConfigMap holds `revision`. The answer: pods that may have to be brought to it, where it is a new one."""
        known = self._wanted.get(key)
        if known is not None and known[0] == revision:
            return ()
        self._wanted[key] = (revision, now)
        return tuple(id_ for id_ in self._by_gateway.get(key, ()) if self.is_behind(id_))

    def forget(self, key: GatewayKey) -> None:
        """The gateway is no more."""
        self._wanted.pop(key, None)

    def wanted(self, key: GatewayKey) -> str:
        return self._wanted.get(key, ("", 0.0))[0]

    def is_behind(self, id_: PodId) -> bool:
        """Whether it is not known to serve what it should."""
        member = self._members.get(id_)
        if member is None or not member.pod.is_serving:
            return False
        wanted = self.wanted(member.pod.key)
        return bool(wanted) and (member.report is None or member.report.revision != wanted)

    def is_complete(self, key: GatewayKey) -> bool:
        """Whether no pod of the gateway is behind."""
        return not any(self.is_behind(id_) for id_ in self._by_gateway.get(key, ()))

    def touch_for(self, id_: PodId) -> str | None:
        """The revision to touch a pod for; None where that would do nothing: it serves it, or was touched for it."""
        if not self.is_behind(id_):
            return None
        pod = self._members[id_].pod
        wanted = self.wanted(pod.key)
        return wanted if pod.annotated != wanted else None

    def touched(self, pod: GatewayPod, now: float) -> None:
        """`pod` is as it was after a touch: from now on it should not take long."""
        self.put(pod)
        if (member := self._members.get(pod.id)) is not None:
            member.touched_at = now

    # --- asking

    def pod(self, id_: PodId) -> GatewayPod | None:
        """One that is to be asked."""
        member = self._members.get(id_)
        return member.pod if member is not None and member.pod.is_serving else None

    def answered(self, pod: GatewayPod, report: Report, now: float, dice: float) -> tuple[bool, float | None]:
        """Whether that is news, and in how many seconds to ask again."""
        member = self._members.get(pod.id)
        if member is None or member.pod.url != pod.url:
            return False, None
        is_news = member.is_first or member.report != report or bool(member.failure)
        if is_news:
            member.since = now
        member.is_first, member.report, member.failure, member.failures = False, report, "", 0
        wanted, since = self._wanted.get(pod.key, (report.revision, now))
        is_current = report.revision == wanted
        so_long = now - (member.since if is_current else max(since, member.touched_at))
        return is_news, pace.ask_again_in(
            is_current=is_current, is_whole=report.is_whole, for_seconds=so_long, dice=dice
        )

    def failed(self, pod: GatewayPod, failure: str, dice: float) -> tuple[bool, float | None]:
        """The same, for a question without an answer."""
        member = self._members.get(pod.id)
        if member is None or member.pod.url != pod.url:
            return False, None
        member.failures += 1
        is_news = False
        if member.failures >= self._believed_after(member):
            is_news = member.is_first or member.failure != failure
            member.is_first, member.failure = False, failure
        return is_news, pace.ask_unreachable_in(member.failures, dice)

    @staticmethod
    def _believed_after(member: Member) -> int:
        """One lost answer is no news of a pod that has answered before, or may have told another controller."""
        return FAILURES_BELIEVED if member.is_first or member.report is not None else 1

    # --- telling

    def is_known(self, key: GatewayKey) -> bool:
        """Whether enough is known of its pods to say anything: a controller that has just begun must not tell that
        nobody serves anything."""
        members = self._by_gateway.get(key, {}).values()
        return not self._is_unlisted(key.namespace) and not any(
            member.is_first and member.pod.is_serving for member in members
        )

    def standings(self, key: GatewayKey) -> tuple[Standing, ...] | None:
        """Of each serving pod, in order of names; None while too little is known."""
        if not self.is_known(key):
            return None
        members = [member for member in self._by_gateway.get(key, {}).values() if member.pod.is_serving]
        members.sort(key=lambda member: member.pod.id.name)
        return tuple(Standing(member.pod, member.report, member.failure) for member in members)

    def sharers(self, key: GatewayKey) -> tuple[str, ...] | None:
        """Names of the pods that a limit is shared out to, the oldest first: all that serve or may still do."""
        if self._is_unlisted(key.namespace):
            return None
        pods = [member.pod for member in self._by_gateway.get(key, {}).values() if member.pod.address]
        return tuple(pod.id.name for pod in sorted(pods, key=lambda pod: (pod.created, pod.id.name)))

    def counts(self) -> Mapping[str, int]:
        """Of all serving pods: those that serve what they should, those that do not, those that do not answer."""
        counts = {"synced": 0, "behind": 0, "unreachable": 0}
        for member in self._members.values():
            if member.pod.is_serving:
                word = "unreachable" if member.failure else "behind" if self.is_behind(member.pod.id) else "synced"
                counts[word] += 1
        return counts

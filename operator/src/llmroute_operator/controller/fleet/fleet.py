"""The fleet, put together: watches, those who ask, those who touch, and what a reconcile is told.

A reconcile says which revision a ConfigMap holds (`holds`) and reads the facts for the conditions (`facts`). What is
learned in between has the gateway looked at again, soon, and not again and again (`_tell`).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from llmroute_contract.compiled import CompiledShares
from llmroute_contract.shares import shares_among
from llmroute_operator.controller.api_server import ApiServer, ClusterError, Refused
from llmroute_operator.controller.fleet import pace
from llmroute_operator.controller.fleet.ask import AT_ONCE, Asker, NoAnswer
from llmroute_operator.controller.fleet.conditions import Facts
from llmroute_operator.controller.fleet.pod import GatewayPod, PodId, read_pod
from llmroute_operator.controller.fleet.requests import PodRequests
from llmroute_operator.controller.fleet.roster import Roster
from llmroute_operator.controller.fleet.shares import ShareOut
from llmroute_operator.controller.fleet.watch_pods import PodWatch
from llmroute_operator.controller.fleet.without import Without, find_without
from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.controller.workers import Workers

_logger = logging.getLogger(__name__)

TOUCHES_AT_ONCE = 32
"""How many a second is the pace's to say; this is for an API server whose answers take a while: with eight at once the
median touch took five seconds on a busy machine, and kubelet a tenth of one after it."""
TELL_SOON_SECONDS = 0.2
TELL_EVERY_SECONDS = 3.0
"""At most one write of a route's status in that time, while its pods come one by one."""
WITHOUT_SECONDS = 20.0
"""Between two looks for pods that ask and have none, at the least."""
WITHOUT_SHARE = 0.05
"""Of the time, that is spent on them: with hundreds of labelled namespaces, each a list, a look takes its while."""
FIRST_LIST_SECONDS = 10.0
FORBIDDEN_REST_SECONDS = 300.0
_FORBIDDEN = 403

LookAt = Callable[[Iterable[GatewayKey], float], None]


class Fleet:
    def __init__(
        self,
        api: ApiServer,
        metrics: Metrics,
        life: SignsOfLife,
        scopes: Sequence[str | None],
        touches_per_second: float,
        state_secret: str | None,
        look_at: LookAt,
    ) -> None:
        self._requests = PodRequests(api)
        self._metrics = metrics
        self._scopes = scopes
        self._touches = touches_per_second > 0
        self._state_secret = state_secret
        self._look_at = look_at
        self._roster = Roster()
        self._roster.expect(scopes)
        self._share_out = ShareOut()
        self._touches_again_at = 0.0
        self._pace = pace.Pace(touches_per_second or 1.0, time.monotonic())
        self._without: dict[str | None, dict[GatewayKey, Without]] = {}
        self._told_at: dict[GatewayKey, float] = {}
        self._asker = Asker()
        self._askers: Workers[PodId] = Workers("asking a pod", self._ask)
        self._touchers: Workers[PodId] = Workers("touching a pod", self._touch)
        self._listed = asyncio.Event()
        self._watches = [
            PodWatch(self._requests, scope, watch_name(scope), life, self._there, self._gone, self._listed_all)
            for scope in scopes
        ]
        metrics.show_pods(self._roster.counts, self._without_by_namespace)

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """All that runs for as long as the controller does."""
        watches = [watch.run() for watch in self._watches]
        looks = [self._look_for_pods_without(scope) for scope in self._scopes]
        return [*watches, *looks, self._askers.run(AT_ONCE), self._touchers.run(TOUCHES_AT_ONCE)]

    async def close(self) -> None:
        await self._asker.close()

    async def until_listed(self) -> None:
        """Or for a while: a controller that may not list pods still does all else."""
        try:
            async with asyncio.timeout(FIRST_LIST_SECONDS):
                await self._listed.wait()
        except TimeoutError:
            _logger.warning("pods could not be listed yet; routes are told nothing of them until they are")

    # --- what a reconcile says and hears

    def holds(self, key: GatewayKey, revision: str) -> None:
        """The gateway's ConfigMap holds `revision` now."""
        behind = self._roster.want(key, revision, time.monotonic())
        if not self._touches:
            self._askers.add(behind, pace.UNTOUCHED_SECONDS)
            return
        touched = [id_ for id_ in behind if self._roster.touch_for(id_)]
        self._touchers.add(touched)
        self._askers.add(touched, pace.AFTER_LOST_TOUCH_SECONDS)
        self._askers.add(set(behind) - set(touched))

    def shares(self, key: GatewayKey, present: CompiledShares | None) -> tuple[CompiledShares | None, float | None]:
        """How limits are to be shared out now, and in how many seconds to look again. While pods are unknown, as they
        are shared out."""
        pods = self._roster.sharers(key)
        if pods is None:
            return present, None
        return self._share_out.settle(key, present, shares_among(pods), time.monotonic())

    def forget(self, key: GatewayKey) -> None:
        self._roster.forget(key)
        self._share_out.forget(key)
        self._told_at.pop(key, None)

    def facts(self, key: GatewayKey) -> Facts | None:
        """None while too little is known to say anything."""
        standings = self._roster.standings(key)
        if standings is None:
            return None
        self._told_at[key] = time.monotonic()
        found = (without[key] for without in self._without.values() if key in without)
        return Facts(standings, next(found, Without()), self._state_secret)

    def _tell(self, key: GatewayKey) -> None:
        if not self._roster.is_known(key):
            return
        soon = TELL_SOON_SECONDS
        if not self._roster.is_complete(key):
            soon = max(soon, self._told_at.get(key, 0.0) + TELL_EVERY_SECONDS - time.monotonic())
        self._look_at([key], soon)

    # --- the watch

    def _there(self, pod: GatewayPod) -> None:
        if self._roster.put(pod):
            if pod.is_serving:
                self._askers.add([pod.id], pace.jittered(pace.AFTER_TOUCH_SECONDS, random.random()))  # noqa: S311
            self._tell(pod.key)

    def _gone(self, id_: PodId) -> None:
        key = self._roster.remove(id_)
        if key is not None:
            self._tell(key)

    def _listed_all(self, scope: str | None, found: list[PodId]) -> None:
        for key in self._roster.listed(scope, found):
            self._tell(key)
        if self._roster.is_listed:
            self._listed.set()

    # --- asking and touching

    async def _ask(self, id_: PodId) -> float | None:
        pod = self._roster.pod(id_)
        if pod is None:
            return None
        try:
            report = await self._asker.ask(pod)
        except NoAnswer as error:
            self._metrics.asked("error")
            is_news, again = self._roster.failed(pod, str(error), random.random())  # noqa: S311 - jitter
        else:
            self._metrics.asked("success")
            is_news, again = self._roster.answered(pod, report, time.monotonic(), random.random())  # noqa: S311
        if is_news:
            self._tell(pod.key)
        return again

    async def _touch(self, id_: PodId) -> None:
        """One that serves the revision meanwhile, or was touched for it, is left alone."""
        if self._roster.touch_for(id_) is None or time.monotonic() < self._touches_again_at:
            return
        await asyncio.sleep(self._pace.wait(time.monotonic()))
        pod, revision = self._roster.pod(id_), self._roster.touch_for(id_)
        if pod is None or revision is None:
            return
        try:
            document = await self._requests.touch(pod, revision)
        except Refused as error:
            if error.status != _FORBIDDEN:
                raise
            self._touches_again_at = time.monotonic() + FORBIDDEN_REST_SECONDS
            _logger.warning(
                "pods may not be touched: changes reach them with kubelet's own look, within a minute and a half",
                extra={"fields": {"error": str(error)}},
            )
            return
        if document is None:
            return
        self._metrics.wrote("PodStatus")
        touched = read_pod(document)
        if touched is not None:
            self._roster.touched(touched, time.monotonic())
        self._askers.add([id_], pace.jittered(pace.AFTER_TOUCH_SECONDS, random.random() / 2))  # noqa: S311 - jitter

    # --- pods that ask for a gateway and have none

    async def _look_for_pods_without(self, scope: str | None) -> None:
        while True:
            began = time.monotonic()
            try:
                found = dict(find_without(await self._requests.pods_without(scope)))
            except ClusterError as error:
                _logger.warning("pods without a gateway cannot be looked for", extra={"fields": {"error": str(error)}})
            else:
                before = self._without.get(scope, {})
                self._without[scope] = found
                changed = {key for key in before.keys() | found.keys() if before.get(key) != found.get(key)}
                self._look_at(changed, TELL_SOON_SECONDS)
            rest = max(WITHOUT_SECONDS, (time.monotonic() - began) / WITHOUT_SHARE)
            await asyncio.sleep(pace.jittered(rest, random.random()))  # noqa: S311 - jitter

    def _without_by_namespace(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for found in self._without.values():
            for key, without in found.items():
                counts[key.namespace] = counts.get(key.namespace, 0) + without.count
        return counts


def watch_name(scope: str | None) -> str:
    return f"pods/{scope}" if scope else "pods"

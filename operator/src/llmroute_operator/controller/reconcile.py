"""Brings one gateway to what its routes say: reads the world, compiles, writes what differs, tells each route.

Level-based: called with a key, never with an event, and as often as anybody likes. Where all is as it should be it
reads one ConfigMap and writes nothing. Who calls when is the queue's; every decision is in the pure modules
(`compile`, `configmap`, `conditions`).

    routes of the key ─► compile, with the forms last accepted ─► ConfigMap ─► status of each route
                                                                      └─► the fleet: pods that are behind
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from llmroute_contract.compile import Compilation, RouteSource, compile_gateway
from llmroute_contract.compiled import CompiledRoute, CompiledSharedState, CompiledShares
from llmroute_operator.controller import conditions
from llmroute_operator.controller.api_server import ClusterError, Refused
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.conditions import NotWritten, Written
from llmroute_operator.controller.configmap import (
    Present,
    Remove,
    Served,
    Wanted,
    foreign,
    holds,
    manifest,
    read_present,
    retire,
    served_from,
    want,
)
from llmroute_operator.controller.fleet.conditions import Facts
from llmroute_operator.controller.fleet.fleet import Fleet
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.moved import Moved
from llmroute_operator.controller.route import GatewayKey, Route
from llmroute_operator.controller.store import RouteStore

_logger = logging.getLogger(__name__)

ERROR_TOLD_MAX = 500  # characters of an API server's message in a condition


@dataclass(frozen=True, slots=True)
class _Memory:
    """What was written last: so that a person's edit takes nothing away that only the ConfigMap remembered."""

    served: Served
    uids: Mapping[str, str]

    def last_accepted(self, route: Route) -> CompiledRoute | None:
        uid = self.uids.get(route.name.name)
        return self.served.routes.get(route.name.name) if uid in (None, route.uid) else None


class Reconciler:
    def __init__(
        self,
        store: RouteStore,
        cluster: Cluster,
        metrics: Metrics,
        fleet: Fleet,
        now: Callable[[], datetime],
        remove_empty_after: timedelta,
        status_writes: int,
        look_again: Callable[[frozenset[GatewayKey]], None],
        shared_state: CompiledSharedState | None = None,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._metrics = metrics
        self._fleet = fleet
        self._now = now
        self._remove_empty_after = remove_empty_after
        self._status_writes = asyncio.Semaphore(status_writes)
        self._look_again = look_again
        """For routes that turn out to have changed while their status was written."""
        self._shared_state = shared_state
        self._memories: dict[GatewayKey, _Memory] = {}
        self._moved = Moved(store)
        self._versions: dict[GatewayKey, str] = {}

    def knows(self, key: GatewayKey, resource_version: str) -> bool:
        """Whether the gateway's ConfigMap in this version is what a reconcile has seen or made."""
        return self._versions.get(key) == resource_version

    async def reconcile(self, key: GatewayKey) -> float | None:
        """In how many seconds it wants to be called again, if not for a change. Raises ClusterError."""
        found = await self._cluster.read_configmap(key)
        present = self._see(key, read_present(found)) if found is not None else None
        routes = self._store.routes_of(key)  # after the read: what comes later is a change, and calls again
        served = served_from(key, present.data) if present is not None else Served()
        memory = self._memories.get(key) or _Memory(served, {})
        kept = self._moved.kept(key, memory.served, memory.uids)
        if not routes and not kept:
            return await self._retire(key, present)
        shares, again = self._fleet.shares(key, served.shares or memory.served.shares)
        sources = [*(_source(route, memory) for route in routes), *kept]
        compilation = await asyncio.to_thread(self._compile, key, sources, shares)
        outcome, failure = await self._program(key, present, served, compilation)
        if isinstance(failure, Refused) and failure.namespace_is_going:
            return None  # its routes are going too, and each end of one calls again
        if failure is None:
            files = {name: data.decode() for name, data in compilation.files.items()}
            uids = {name: uid for name, uid in memory.uids.items() if name in {source.name for source in kept}}
            uids |= {route.name.name: route.uid for route in routes}
            self._memories[key] = _Memory(served_from(key, files), uids)
            self._fleet.holds(key, compilation.revision)
            serving = {route.name.name: compilation.verdicts[route.name.name].serving for route in routes}
            self._look_again(self._moved.wrote(key, routes, serving, kept))
        await self._tell(routes, compilation, outcome, self._fleet.facts(key))
        if failure is not None:
            raise failure
        return again if compilation.shares is not None else None

    def _compile(
        self, key: GatewayKey, sources: Sequence[RouteSource], shares: CompiledShares | None = None
    ) -> Compilation:
        return compile_gateway(*key, sources, shared_state=self._shared_state, shares=shares)

    # --- the ConfigMap

    async def _program(
        self, key: GatewayKey, present: Present | None, served: Served, compilation: Compilation
    ) -> tuple[Written | NotWritten, ClusterError | None]:
        try:
            await self._write(present, want(key, compilation.files))
        except ClusterError as error:
            if isinstance(error, Refused) and error.is_conflict:
                raise  # it is looked at again in a moment: nothing to alarm anybody with
            message = f"The ConfigMap cannot be written, and will be tried again: {error}"[:ERROR_TOLD_MAX]
            return NotWritten("Pending" if error.is_transient else "ApplyFailed", f"{message}.", served), error
        return Written(compilation.revision, self._moved.keepers(self._store.routes_of(key))), None

    async def _write(self, present: Present | None, wanted: Wanted) -> None:
        """Makes the ConfigMap what it should be, with no request where it is."""
        if present is not None and present.immutable and not (holds(present, wanted) and not foreign(present, wanted)):
            # A person has frozen it: there is no way back but through a new one.
            await self._delete(wanted.key, present)
            present = None
        if present is None or not holds(present, wanted):
            present = self._wrote(wanted.key, await self._cluster.apply_configmap(wanted.key, manifest(wanted)))
            _logger.info(
                "ConfigMap written",
                extra={"fields": {"gateway": str(wanted.key), "resource_version": present.resource_version}},
            )
        patch = foreign(present, wanted)
        if patch is not None:
            self._wrote(wanted.key, await self._cluster.patch_configmap(wanted.key, patch))
            _logger.info("ConfigMap cleared of foreign keys", extra={"fields": {"gateway": str(wanted.key)}})

    def _wrote(self, key: GatewayKey, document: Mapping[str, object]) -> Present:
        self._metrics.wrote("ConfigMap")
        return self._see(key, read_present(document))

    def _see(self, key: GatewayKey, present: Present) -> Present:
        self._versions[key] = present.resource_version
        return present

    async def _delete(self, key: GatewayKey, present: Present) -> None:
        await self._cluster.delete_configmap(key, present.uid, present.resource_version)
        self._metrics.wrote("ConfigMap")
        self._versions.pop(key, None)

    async def _retire(self, key: GatewayKey, present: Present | None) -> float | None:
        """A gateway without routes: emptied, and later removed."""
        self._memories.pop(key, None)
        self._look_again(self._moved.retire(key))
        if present is None:
            self._versions.pop(key, None)
            self._fleet.forget(key)
            return None
        now = self._now()
        match retire(present, now, self._remove_empty_after):
            case Remove():
                await self._delete(key, present)
                self._fleet.forget(key)
                _logger.info("ConfigMap removed", extra={"fields": {"gateway": str(key)}})
                return None
            case keep:
                empty = self._compile(key, [])
                await self._write(present, want(key, empty.files, keep.emptied_at))
                self._fleet.holds(key, empty.revision)
                return max(0.0, (keep.due - now).total_seconds())

    # --- the routes

    async def _tell(
        self, routes: Sequence[Route], compilation: Compilation, outcome: Written | NotWritten, facts: Facts | None
    ) -> None:
        """All of them, whatever happens to one; then the first failure is raised."""
        done = await asyncio.gather(
            *(self._tell_one(route, compilation, outcome, facts) for route in routes), return_exceptions=True
        )
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure

    async def _tell_one(
        self, route: Route, compilation: Compilation, outcome: Written | NotWritten, facts: Facts | None
    ) -> None:
        verdict = compilation.verdicts[route.name.name]
        status = conditions.status_of(route, verdict, outcome, self._now(), facts, compilation.shares)
        if conditions.says(route.status, status):
            return
        async with self._status_writes:
            answer = await self._cluster.apply_status(route.name, conditions.status_manifest(route, status))
        if answer is not None:
            self._metrics.wrote("LLMRouteStatus")
            self._look_again(self._store.wrote(answer))


def _source(route: Route, memory: _Memory) -> RouteSource:
    last = memory.last_accepted(route)
    if last is not None and last.generation > route.generation:
        last = None  # of an older route of the same name, whose end nobody saw
    return RouteSource(route.name.name, route.spec, route.generation, route.created, last)

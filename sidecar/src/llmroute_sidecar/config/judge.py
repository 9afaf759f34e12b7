"""Judgement of one reading against what is served: which routes, of which version, are served from now on.

Pure: a reading and the served state in, an outcome out; `reload.py` puts it in place. The rules stand in
`reload.py`'s theory of operation; what makes a single file acceptable is `accept.py`'s.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmroute_contract import compiled as c
from llmroute_sidecar.config.accept import Refused, accept_index, accept_route
from llmroute_sidecar.config.secrets import HeldSecrets
from llmroute_sidecar.config.source import Reading
from llmroute_sidecar.config.status import State
from llmroute_sidecar.snapshot import Snapshot, build

logger = logging.getLogger("llmroute.config")


@dataclass(frozen=True, slots=True)
class Good:
    """A version of a route that was accepted."""

    entry: c.RouteEntry
    route: c.CompiledRoute

    def is_of(self, index: c.CompiledGateway) -> bool:
        return (self.route.namespace, self.route.gateway) == (index.namespace, index.gateway)


@dataclass(frozen=True, slots=True)
class Served:
    """What the current snapshot was built from."""

    index: c.CompiledGateway
    routes: tuple[Good, ...]
    secrets: HeldSecrets

    @property
    def revision(self) -> str:
        return c.revision_of(good.entry for good in self.routes)

    def looks_like(self, other: "Served | None") -> bool:
        """Whether both make equal snapshots."""
        return other is not None and self.essence == other.essence

    @property
    def essence(self) -> tuple[object, ...]:
        """What the snapshot is made of."""
        entries = [good.entry for good in self.routes]
        return (self.index.namespace, self.index.gateway, entries, self.secrets.values)

    def by_name(self) -> Mapping[str, Good]:
        return {good.entry.name: good for good in self.routes}

    def build(self) -> Snapshot:
        return build(self.index, [good.route for good in self.routes], self.secrets, self.revision)


@dataclass(frozen=True, slots=True)
class Row:
    """A route's standing, but for since when."""

    name: str
    accepted: bool
    generation: int | None
    wanted_generation: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a reading. None as `served`, `rows` or `wanted_revision`: as it was."""

    state: State
    error: str | None = None
    served: Served | None = None
    snapshot: Snapshot | None = None
    rows: tuple[Row, ...] | None = None
    wanted_revision: str | None = None
    retry: bool = False
    """Whether to read again although the fingerprint stays: the fault may be one that files do not show."""
    fault: Exception | None = None
    """One that nobody foresaw; its type and place are logged."""


def judge(reading: Reading, served: Served | None) -> Outcome:
    """What is to be served after `reading`, where `served` is served now. Raises only what nobody foresaw."""
    retry = bool(reading.unreadable or reading.secrets.unreadable)
    if not (reading.files or reading.unreadable or reading.refused):
        if served is None:
            return Outcome("waiting")
        return _keep(reading, served, "the configuration has vanished", retry)
    try:
        index = accept_index(reading.files, reading.unreadable)
    except Refused as error:
        return _keep(reading, served, str(error), retry)
    routes, rows = _accept(index, reading, served)
    wanted, snapshot, rows = _build(Served(index, routes, reading.secrets), served, rows)
    state: State = "current" if all(row.accepted for row in rows) else "partial"
    return Outcome(state, None, wanted, snapshot, rows, index.revision, retry)


def _keep(reading: Reading, served: Served | None, error: str, retry: bool) -> Outcome:
    """All routes as they are; only secrets follow."""
    if served is None:
        return Outcome("failed", error=error, retry=retry)
    kept = replace(served, secrets=reading.secrets)
    return Outcome("failed", error, kept, None if kept.looks_like(served) else kept.build(), retry=retry)


def _accept(
    index: c.CompiledGateway, reading: Reading, served: Served | None
) -> tuple[tuple[Good, ...], tuple[Row, ...]]:
    """The routes to serve, in order of precedence, and where each route stands."""
    last_good = served.by_name() if served is not None else {}
    routes: list[Good] = []
    rows: list[Row] = []
    for entry in index.routes:
        good = last_good.get(entry.name)
        reason = reading.refused.get(entry.name)
        if good is None or good.entry != entry or not good.is_of(index):
            try:
                good = Good(entry, accept_route(index, entry, reading.files, reading.unreadable))
            except Refused as error:
                reason = str(error)
        if good is not None:
            routes.append(good)
        generation = good.entry.generation if good is not None else None
        rows.append(Row(entry.name, reason is None, generation, entry.generation, reason))
    listed = {entry.name for entry in index.routes}
    rows += [Row(name, False, None, None, why) for name, why in reading.refused.items() if name not in listed]
    return tuple(routes), tuple(rows)


def _build(
    wanted: Served, served: Served | None, rows: tuple[Row, ...]
) -> tuple[Served, Snapshot | None, tuple[Row, ...]]:
    """The snapshot, None where it would equal the current one. A route that cannot be built goes back to its last
    good.
    """
    if wanted.looks_like(served):
        return wanted, None, rows
    try:
        return wanted, wanted.build(), rows
    except Exception:
        logger.exception("a route was accepted that no snapshot can be built from")
        kept, rows = _without_unbuildable(wanted, served, rows)
        if kept.looks_like(wanted):
            raise
        return kept, None if kept.looks_like(served) else kept.build(), rows


def _without_unbuildable(
    wanted: Served, served: Served | None, rows: tuple[Row, ...]
) -> tuple[Served, tuple[Row, ...]]:
    last_good = served.by_name() if served is not None else {}
    kept: list[Good] = []
    refused: dict[str, Row] = {}
    for good in wanted.routes:
        name = good.entry.name
        try:
            replace(wanted, routes=(good,)).build()
            kept.append(good)
        except Exception as error:  # noqa: BLE001 - whatever it is, it takes out this route's version only
            older = last_good.get(name)
            if older is not None and older.entry != good.entry:
                kept.append(older)
            else:
                older = None
            generation = older.entry.generation if older is not None else None
            reason = f"cannot be served: {type(error).__name__}"
            refused[name] = Row(name, False, generation, good.entry.generation, reason)
    return replace(wanted, routes=tuple(kept)), tuple(refused.get(row.name, row) for row in rows)

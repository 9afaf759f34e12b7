"""Taking over a changed configuration: read, check off to the side, swap one reference, keep what is good.

Theory of operation. Once a second the source's fingerprint is compared. Where it has moved, the files are read and
each route is judged by itself: its file is there, its digest is the one that `gateway.json` names, it decodes. A
route that fails keeps its last good version; an index (`gateway.json`) that fails keeps everything. Routes that a
good index does not list are gone. So bad input, in whatever form, never loses what worked before; what is served then
has a revision of its own, and the status says which one was wanted and why it is not served. All of it but the swap
runs off the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmroute_contract import compiled as c
from llmroute_sidecar.config.source import NothingYet, Reading, Source, SourceError
from llmroute_sidecar.snapshot import Snapshot, build

Result = Literal["applied", "partial", "failed"]
logger = logging.getLogger("llmroute.config")


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """How one route stands. `since` in Unix seconds: when this last changed."""

    name: str
    accepted: bool
    generation: int | None
    """The generation that is served; None where none is."""
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """What `/status` tells of the configuration."""

    revision: str | None = None
    wanted_revision: str | None = None
    since: float | None = None
    error: str | None = None
    routes: tuple[RouteStatus, ...] = ()
    missing_secrets: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """The newest configuration is served, whole."""
        return self.error is None and not self.problems and all(route.accepted for route in self.routes)


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a changed configuration."""

    result: Result
    status: ReloadStatus
    snapshot: Snapshot | None
    """The one to serve from now on; None where the old one stays."""


@dataclass(slots=True)
class _Good:
    """The last good version of a route."""

    entry: c.RouteEntry
    route: c.CompiledRoute


@dataclass(slots=True)
class Reloader:
    """Follows one source. `tick` may run in any thread, one at a time."""

    source: Source
    clock: Callable[[], float] = time.time
    status: ReloadStatus = field(default_factory=ReloadStatus)
    _seen: Hashable = field(default_factory=object)
    _good: dict[str, _Good] = field(default_factory=dict)
    _rejections: dict[str, tuple[str, float]] = field(default_factory=dict)
    _served: Hashable = None

    def tick(self) -> Reload | None:
        """Looks once. None where nothing has changed. Never raises."""
        try:
            fingerprint = self.source.fingerprint()
            if fingerprint == self._seen:
                return None
            reload = self._read()
            self._seen = fingerprint
        except Exception as fault:
            logger.exception("reading the configuration failed", exc_info=fault)
            return self._failed(f"reading failed unexpectedly ({type(fault).__name__})")
        return reload

    def _read(self) -> Reload | None:
        try:
            reading = self.source.read()
            index = _index(reading)
        except NothingYet as nothing:
            return self._failed(str(nothing))
        except (SourceError, c.Unreadable) as error:
            return self._failed(str(error))
        good, rejections = self._judge(index, reading.files)
        entries = tuple(found.entry for found in good.values())
        revision = c.revision_of(entries)
        snapshot = build(index, [found.route for found in good.values()], reading.secrets, revision)
        self._good, self._rejections = good, rejections
        status = self._status(index, snapshot, revision, reading.problems)
        result: Result = "applied" if status.healthy else "partial"
        self.status = status
        return Reload(result, status, snapshot)

    def _judge(
        self, index: c.CompiledGateway, files: Mapping[str, bytes]
    ) -> tuple[dict[str, _Good], dict[str, tuple[str, float]]]:
        good: dict[str, _Good] = {}
        rejections: dict[str, tuple[str, float]] = {}
        for entry in index.routes:
            previous = self._good.get(entry.name)
            try:
                found = previous if previous and previous.entry == entry else _Good(entry, _route(entry, files))
            except c.Unreadable as error:
                reason = str(error)
                old_reason, since = self._rejections.get(entry.name, ("", 0.0))
                rejections[entry.name] = (reason, since if reason == old_reason else self.clock())
                if previous is None:
                    continue
                found = previous
            good[entry.name] = found
        return good, rejections

    def _status(
        self, index: c.CompiledGateway, snapshot: Snapshot, revision: str, problems: tuple[str, ...]
    ) -> ReloadStatus:
        before = {route.name: route for route in self.status.routes}
        routes = []
        for entry in index.routes:
            served = self._good.get(entry.name)
            rejection = self._rejections.get(entry.name)
            generation = served.entry.generation if served else None
            reason = rejection[0] if rejection else ""
            old = before.get(entry.name)
            same = old is not None and (old.generation, old.reason) == (generation, reason)
            since = old.since if old is not None and same else self.clock()
            routes.append(RouteStatus(entry.name, rejection is None, generation, reason, since))
        changed = revision != self.status.revision
        return ReloadStatus(
            revision=revision,
            wanted_revision=index.revision,
            since=self.clock() if changed else self.status.since,
            routes=tuple(routes),
            missing_secrets=tuple(str(missing) for missing in snapshot.missing_secrets),
            problems=problems,
        )

    def _failed(self, error: str) -> Reload | None:
        if error == self.status.error:
            return None
        old = self.status
        self.status = ReloadStatus(
            old.revision, old.wanted_revision, old.since, error, old.routes, old.missing_secrets, old.problems
        )
        return Reload("failed", self.status, None)

    async def watch(self, on_reload: Callable[[Reload], None], interval: float = 1.0) -> None:
        """Looks every `interval` seconds, for ever; `on_reload` runs on the event loop."""
        while True:
            reload = await asyncio.to_thread(self.tick)
            if reload is not None:
                on_reload(reload)
            await asyncio.sleep(interval)


def _index(reading: Reading) -> c.CompiledGateway:
    data = reading.files.get(c.GATEWAY_FILE)
    if data is None:
        raise SourceError(f"there is no {c.GATEWAY_FILE}")
    try:
        index = c.decode(data, c.CompiledGateway)
    except c.Unreadable as error:
        raise SourceError(f"{c.GATEWAY_FILE}: {error}") from None
    if (
        len({entry.name for entry in index.routes}) != len(index.routes)
        or c.revision_of(index.routes) != index.revision
    ):
        raise SourceError(f"{c.GATEWAY_FILE}: its revision does not fit its routes; it is half-written or was edited")
    return index


def _route(entry: c.RouteEntry, files: Mapping[str, bytes]) -> c.CompiledRoute:
    data = files.get(entry.file)
    if data is None:
        raise c.Unreadable(f"{entry.file} is missing")
    if c.digest(data) != entry.digest:
        raise c.Unreadable(f"{entry.file} is not the one that {c.GATEWAY_FILE} names; it is half-written or was edited")
    route = c.decode(data, c.CompiledRoute)
    try:
        for upstream in route.upstreams:
            c.check_url(upstream)
    except ValueError as error:
        raise c.Unreadable(f"{entry.file}: {error}") from None
    return route

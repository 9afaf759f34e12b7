"""Taking over a changed configuration: read, check off to the side, swap one reference, keep what is good.

Theory of operation
===================

Once a second, and as soon as kubelet has swapped the ConfigMap's volume, the source's fingerprint is compared. Where it
has moved, the files are read and each route is judged by itself: its file is there, its digest is the one that
`gateway.json` names, it decodes.

    index good, route good               the new version is served
    index good, route bad                its last good version, or none if there never was one
    index good, route not listed         gone
    index bad, or nothing can be read    everything stays

So bad input, in whatever form, never loses what worked before; what is served then has a revision of its own, and the
status says which one was wanted and why it is not served.

A state is told once: a failure again when it is another one, its end when there is something to serve whole again. What
could not be read for a cause that may pass without the files moving (`source.TryAgain`, `Reading.in_trouble`, a fault
nobody foresaw) is read again at each look, in silence while nothing has changed.

All of it but the swap runs off the event loop.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from llmroute_contract import compiled as c
from llmroute_contract.shares import own_share
from llmroute_sidecar.config.source import Reading, Source, SourceError, TryAgain
from llmroute_sidecar.snapshot import Snapshot, build

GLANCE_SECONDS = 0.1
"""Between two looks at the mark."""

Result = Literal["applied", "partial", "failed"]


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
    problems: tuple[str, ...] = ()
    """What is wrong with the newest configuration, one by one, each with its place."""
    fault: Exception | None = None
    """Where reading failed in a way nobody foresaw."""


@dataclass(slots=True)
class _Good:
    """The last good version of a route."""

    entry: c.RouteEntry
    route: c.CompiledRoute


_NEVER: Hashable = object()
"""Equal to no fingerprint."""


@dataclass(slots=True)
class Reloader:
    """Follows one source. `tick` may run in any thread, one at a time."""

    source: Source
    clock: Callable[[], float] = time.time
    shared_state: c.CompiledSharedState | None = None
    """Overrules what the source says."""
    pod: str = ""
    """The name of the pod, by which it knows its share of limits that are shared out."""
    status: ReloadStatus = field(default_factory=ReloadStatus)
    _seen: Hashable = _NEVER
    """The fingerprint that there is nothing more to learn from."""
    _incomplete: Reading | None = None
    """The last reading, while a file of it could not be taken."""
    _good: dict[str, _Good] = field(default_factory=dict)
    _rejections: dict[str, tuple[str, float]] = field(default_factory=dict)

    def tick(self) -> Reload | None:
        """Looks once. None where there is nothing new to tell. Never raises."""
        try:
            fingerprint = self.source.fingerprint()
            if fingerprint == self._seen:
                return None
            self._seen = _NEVER
            return self._read(fingerprint)
        except Exception as fault:  # noqa: BLE001 - whatever it is, what is served goes on
            self._seen = _NEVER
            return self._failed((f"reading failed unexpectedly ({type(fault).__name__})",), fault)

    def _read(self, fingerprint: Hashable) -> Reload | None:
        try:
            reading = self.source.read()
            index = _index(reading)
        except SourceError as error:
            if not isinstance(error, TryAgain):
                self._seen = fingerprint
            return self._failed(error.problems)
        if reading.in_trouble and reading == self._incomplete:
            return None
        good, rejections = self._judge(index, reading)
        revision = c.revision_of((found.entry for found in good.values()), index.shared_state, index.shares)
        if self.shared_state is not None:
            index = msgspec.structs.replace(index, shared_state=self.shared_state)
        routes = [found.route for found in good.values()]
        if index.shares and not index.shared_state:
            routes = [own_share(route, index.shares, self.pod) for route in routes]
        snapshot = build(index, routes, reading.secrets, revision)
        self._good, self._rejections = good, rejections
        self._incomplete = reading if reading.in_trouble else None
        self._seen = _NEVER if reading.in_trouble else fingerprint
        self.status = self._status(index, snapshot, revision, reading.problems)
        problems = (*reading.problems, *(f"route {name}: {reason}" for name, (reason, _) in rejections.items()))
        return Reload("applied" if self.status.healthy else "partial", self.status, snapshot, problems)

    def _judge(
        self, index: c.CompiledGateway, reading: Reading
    ) -> tuple[dict[str, _Good], dict[str, tuple[str, float]]]:
        good: dict[str, _Good] = {}
        rejections: dict[str, tuple[str, float]] = {}
        for entry in index.routes:
            previous = self._good.get(entry.name)
            try:
                found = previous if previous and previous.entry == entry else _Good(entry, _route(entry, reading))
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

    def _failed(self, problems: tuple[str, ...], fault: Exception | None = None) -> Reload | None:
        error = "; ".join(problems)
        self._incomplete = None
        if error == self.status.error:
            return None
        self.status = replace(self.status, error=error)
        return Reload("failed", self.status, None, problems, fault)

    async def watch(self, on_reload: Callable[[Reload], None], interval: float = 1.0) -> None:
        """Looks every `interval` seconds and whenever the source's mark moves, for ever; `on_reload` runs on the event
        loop. Where it raises, it is told so in turn, as of a failed reload, and watching goes on: a gateway that hears
        of no change any more would serve an old policy without a sign.
        """
        while True:
            mark = self.source.mark()
            reload = await asyncio.to_thread(self.tick)
            if reload is not None:
                try:
                    on_reload(reload)
                except Exception as fault:  # noqa: BLE001
                    failed = self._failed((f"taking over failed unexpectedly ({type(fault).__name__})",), fault)
                    if failed is not None:
                        on_reload(failed)
            await self._pause(mark, interval)

    async def _pause(self, mark: Hashable, interval: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + interval
        while (rest := due - loop.time()) > 0 and self.source.mark() == mark:  # noqa: ASYNC110 - a link tells nobody
            await asyncio.sleep(min(rest, GLANCE_SECONDS))


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
        or c.revision_of(index.routes, index.shared_state, index.shares) != index.revision
    ):
        raise SourceError(f"{c.GATEWAY_FILE}: its revision does not fit its routes; it is half-written or was edited")
    return index


def _route(entry: c.RouteEntry, reading: Reading) -> c.CompiledRoute:
    data = reading.files.get(entry.file)
    if data is None:
        if entry.file in reading.unusable:
            raise c.Unreadable(f"{entry.file} {reading.unusable[entry.file]}")
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

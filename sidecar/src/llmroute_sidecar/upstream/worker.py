"""The process behind a `litellm://` upstream: started on first use, watched, and started anew after a rest.

One process an upstream, so that no credential but that upstream's is ever in it. Owns whether there is one; the process
itself is `worker_process.py`'s matter, what is said to it `litellm.py`'s, what it does `litellm_worker/`'s.

    not_started ──first call──► starting ──ready──► ready ──idle for long, or not needed any more──► not_started
                                    └──── died ◄──────┘
                                           └──► resting (calls fail at once) ──time──► not_started

Each end that nobody asked for doubles the rest, from half a second to a minute, with jitter; a worker that lived for a
while begins anew. Calls that come while it starts wait for it, all for the same start, within their own deadlines.

A connection is one end of a socket pair, whose other end goes to the process over its standard input: there is no
address that anybody else could connect to, and no file to make or to clean up.
"""

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.upstream.exchange import UpstreamBroken
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.pool import HttpCaller
from llmroute_sidecar.upstream.worker_process import END_SECONDS, Died, WorkerProcess, logger

START_SECONDS = 90.0
"""A start that takes longer is given up: importing litellm takes seconds, on a busy core without bytecode half a
minute."""
STEADY_SECONDS = 60.0
"""A worker that was ready for so long has not failed before."""
REST_SECONDS = (0.5, 60.0)
"""The first rest and the longest one."""

State = Literal["not_started", "starting", "ready", "resting"]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    python: Path | None = None
    """An interpreter whose environment has litellm; None: there is none, litellm:// upstreams are unavailable."""
    idle: float = 900.0
    """Seconds without a call after which a worker is ended; 0: never."""


class Worker:
    """The worker of one upstream, whether there is a process just now or not."""

    def __init__(self, upstream: Upstream, python: Path, idle: float, loop: asyncio.AbstractEventLoop) -> None:
        self.route = upstream.route
        self.name = upstream.name
        self.restarts = 0
        """Starts after an end that nobody asked for."""
        self.callers: set[HttpCaller] = set()
        """Who calls it: more than one while a reload's older requests end."""
        self._python = python
        self._idle = idle
        self._loop = loop
        self._process: WorkerProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ready_since: float | None = None
        self._failures = 0
        self._not_before = 0.0
        self._last_used = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._random = random.Random()  # noqa: S311 - jitter

    @property
    def state(self) -> State:
        if self._starting is not None:
            return "starting"
        if self._ready_since is not None:
            return "ready"
        return "resting" if self._loop.time() < self._not_before else "not_started"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def resident_bytes(self) -> int:
        """The process's memory; 0 where there is none."""
        return self._process.resident_bytes if self._process is not None else 0

    async def connect(self, make: Callable[[], HttpConnection]) -> HttpConnection:
        """A new connection to the worker, which is started if need be. Raises UpstreamBroken while it rests."""
        process = await self._started()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                process.hand_over(theirs)
            protocol = cast("Callable[[], asyncio.Protocol]", make)
            _, connection = await self._loop.create_unix_connection(protocol, sock=ours)
        except OSError:
            ours.close()
            raise UpstreamBroken("connect_failed") from None
        except BaseException:
            ours.close()
            raise
        return cast("HttpConnection", connection)

    def used(self) -> None:
        """A call has ended."""
        self._last_used = self._loop.time()

    def stop(self) -> None:
        """Ends the process; a later call starts another."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._process is not None:
            self._process.tell_to_end()

    async def end(self) -> None:
        """Stops the process and waits for its end. No call may come after it."""
        self.stop()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._gone()

    # -- the start -----------------------------------------------------------------------------------------------------

    async def _started(self) -> WorkerProcess:
        process = self._process
        if process is not None and self._ready_since is not None and not process.unwanted:
            return process
        if self._starting is None:
            if self._loop.time() < self._not_before:
                raise UpstreamBroken("worker_unavailable")
            self._starting = self._loop.create_task(self._start())
        # Shielded: a client that leaves does not end what others wait for, or will.
        await asyncio.shield(self._starting)
        if self._process is None or self._ready_since is None:
            raise UpstreamBroken("worker_unavailable")
        return self._process

    async def _start(self) -> None:
        """Starts a process and waits until it is ready, or has failed to be; both are told by the state."""
        try:
            await self._gone()  # one that was told to end: not two at a time
            if self._failures:
                self.restarts += 1
            try:
                process = await WorkerProcess.launch(self._python, self._id, self._loop)
            except OSError as error:
                fields = {"upstream": self._id, "error": os.strerror(error.errno or 0)}
                logger.error("litellm worker could not be started", extra={"fields": fields})
                self._rest()
                return
            self._process = process
            self._watching = self._loop.create_task(self._watch(process))
            if not self.callers:
                process.tell_to_end()  # the last one left meanwhile
            try:
                await process.ready(START_SECONDS)
            except TimeoutError:
                late: dict[str, object] = {"upstream": self._id, "seconds": START_SECONDS}
                logger.error("litellm worker was not ready in time", extra={"fields": late})
                process.kill()
                await self._watching
            except Died:
                await self._watching
            else:
                self._ready_since = self._last_used = self._loop.time()
                self._watch_idleness()
        finally:
            self._starting = None

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _watch(self, process: WorkerProcess) -> None:
        """Waits for the process's end and says what it means."""
        code = await process.wait()
        lived = self._loop.time() - self._ready_since if self._ready_since is not None else 0.0
        self._process = self._ready_since = None
        fields: dict[str, object] = {"upstream": self._id, "pid": process.pid, "code": code}
        if process.unwanted:
            level, message = logging.INFO, "litellm worker ended"
        else:
            level, message = logging.ERROR, "litellm worker died"
            if lived > STEADY_SECONDS:
                self._failures = 0
            fields["rest_seconds"] = round(self._rest(), 3)
        logger.log(level, message, extra={"fields": fields})

    def _rest(self) -> float:
        first, longest = REST_SECONDS
        rest = min(longest, first * 2.0**self._failures) * self._random.uniform(0.5, 1.0)
        self._failures += 1
        self._not_before = self._loop.time() + rest
        return rest

    async def _gone(self) -> None:
        """Waits for the end of a process that there may still be."""
        if self._process is None or self._watching is None:
            return
        self._process.tell_to_end()
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(self._watching)
        except TimeoutError:
            self._process.kill()
            await asyncio.shield(self._watching)

    def _watch_idleness(self) -> None:
        """Ends the worker when it has not been used for long; one timer, set anew at most once in that time."""
        self._idle_timer = None
        if not self._idle or self._process is None:
            return
        now = self._loop.time()
        busy = any(caller.busy for caller in self.callers)
        due = (now if busy else self._last_used) + self._idle
        if due <= now:
            self._process.tell_to_end()
        else:
            self._idle_timer = self._loop.call_at(due, self._watch_idleness)

    @property
    def _id(self) -> str:
        return f"{self.route}/{self.name}"


class Workers:
    """All workers of the gateway, by upstream. They outlive snapshots, as connections and breakers do."""

    def __init__(self, settings: WorkerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._workers: dict[tuple[str, str], Worker] = {}

    @property
    def available(self) -> bool:
        """Whether there is an interpreter to run one with."""
        return self._settings.python is not None and os.access(self._settings.python, os.X_OK)

    def of(self, upstream: Upstream) -> Worker:
        """The worker of an upstream, where they are available. One that turns to another provider is another."""
        key = (upstream.id, upstream.url.host)
        worker = self._workers.get(key)
        if worker is None:
            assert self._settings.python is not None
            python = self._settings.python.absolute()  # not resolved: that would lead out of its environment
            worker = self._workers[key] = Worker(upstream, python, self._settings.idle, self._loop)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """Its upstream is gone and its last request has ended."""
        worker.stop()
        self._workers = {key: other for key, other in self._workers.items() if other is not worker}

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._workers.values()))

    async def end(self) -> None:
        """Ends all processes."""
        await asyncio.gather(*(worker.end() for worker in self))

"""The process behind a `litellm://` upstream: started on first use, watched, and started anew after a pause.

One process an upstream, so that no credential but that upstream's is ever in it. Owns its life and the way in: a
connection is one end of a socket pair, whose other end goes to the worker over its standard input. What is said over it
is `litellm.py`'s matter, what the process does is `litellm_worker/`'s.

    not_started ──first call──► starting ──ready──► ready ──idle for long, or not needed any more──► not_started
                                    └──── ended ◄──────┘
                                            └──► resting (calls fail at once) ──time──► not_started

Each end that nobody asked for doubles the rest, from half a second to a minute, with jitter; a worker that lived for a
while begins anew. Calls that come while it starts wait for it, all for the same start, within their own deadlines.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.upstream.exchange import UpstreamBroken
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.pool import HttpCaller

logger = logging.getLogger("llmroute.litellm")

PROGRAM = Path(__file__).resolve().parents[1] / "litellm_worker"
START_SECONDS = 90.0
"""A start that takes longer is given up: importing litellm takes seconds, on a busy core without bytecode half a
minute."""
STEADY_SECONDS = 60.0
"""A worker that was ready for so long has not failed before."""
REST_SECONDS = (0.5, 60.0)
"""The first rest and the longest one."""
END_SECONDS = 2.0
"""For a worker to end by itself once its channel is closed."""
_PASSED_ON = ("LANG", "LC_ALL", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ")
_ENVIRONMENT = {
    "PATH": os.defpath,
    "HOME": "/nonexistent",  # no ~/.aws, no caches
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list from the internet at import
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "WARNING",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
    "AWS_EC2_METADATA_DISABLED": "true",  # credentials come from Secrets, not from whom the pod could ask
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What a worker knows of its surroundings; of the gateway's own environment only `_PASSED_ON`."""

State = Literal["not_started", "starting", "ready", "resting"]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    python: Path | None = None
    """An interpreter whose environment has litellm; None: there is none, litellm:// upstreams are unavailable."""
    idle: float = 900.0
    """Seconds without a call after which a worker is ended; 0: never."""

    @property
    def usable(self) -> bool:
        return self.python is not None and os.access(self.python, os.X_OK)


class _Event(msgspec.Struct):
    """A line of the worker's standard output. What it may hold is fixed here, so that nothing else gets into the
    log."""

    event: Literal["ready", "logged"]
    litellm: str = ""
    seconds: float = 0.0
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    logger: str = ""
    at: str = ""
    exception: str | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class _Running:
    """One process. It has ended once `ended` is done."""

    process: asyncio.subprocess.Process
    channel: socket.socket
    ready: "asyncio.Future[None]"
    ended: "asyncio.Task[None] | None" = None
    ready_since: float | None = None
    unwanted: bool = False
    """It was told to end."""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


class Worker:
    """The worker of one upstream, whether there is a process just now or not."""

    def __init__(self, upstream: Upstream, settings: WorkerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.route = upstream.route
        self.name = upstream.name
        self.restarts = 0
        """Starts after an end that nobody asked for."""
        self.callers: set[HttpCaller] = set()
        """Who calls it: more than one while a reload's older requests end."""
        self._settings = settings
        self._loop = loop
        self._running: _Running | None = None
        self._starting: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._last_used = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._random = random.Random()  # noqa: S311 - jitter

    @property
    def state(self) -> State:
        if self._starting is not None:
            return "starting"
        if self._running is not None and self._running.ready_since is not None:
            return "ready"
        return "resting" if self._loop.time() < self._not_before else "not_started"

    @property
    def pid(self) -> int | None:
        return self._running.process.pid if self._running is not None else None

    @property
    def resident_bytes(self) -> int:
        """The process's resident memory; 0 where there is none."""
        if self.pid is None:
            return 0
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def connect(self, make: Callable[[], HttpConnection]) -> HttpConnection:
        """A new connection to the worker, which is started if need be. Raises UpstreamBroken while it rests."""
        running = await self._started()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                socket.send_fds(running.channel, [b"c"], [theirs.fileno()])
            _, connection = await self._loop.create_unix_connection(make, sock=ours)
        except OSError:
            ours.close()
            raise UpstreamBroken("connect_failed") from None
        except BaseException:
            ours.close()
            raise
        return connection

    def used(self) -> None:
        """A call has ended."""
        self._last_used = self._loop.time()

    async def _started(self) -> _Running:
        running = self._running
        if running is not None and running.ready_since is not None and not running.unwanted:
            return running
        if self._starting is None:
            if self._loop.time() < self._not_before:
                raise UpstreamBroken("worker_unavailable")
            self._starting = self._loop.create_task(self._start())
        # Shielded: a client that leaves does not end what others wait for, or will.
        await asyncio.shield(self._starting)
        if self._running is None or self._running.ready_since is None:
            raise UpstreamBroken("worker_unavailable")
        return self._running

    async def _start(self) -> None:
        """Starts a process and waits until it is ready, or has failed to be; both are told by the state."""
        try:
            if self._running is not None:  # one that was told to end: not two at a time
                await self._end(self._running)
            if self._failures:
                self.restarts += 1
            try:
                running = await self._launch()
            except OSError as error:
                self._log(logging.ERROR, "litellm worker could not be started", error=os.strerror(error.errno or 0))
                self._rest()
                return
            self._running = running
            if not self.callers:
                self._tell_to_end(running)  # the last one left meanwhile
            try:
                async with asyncio.timeout(START_SECONDS):
                    await running.ready
            except TimeoutError:
                self._log(logging.ERROR, "litellm worker was not ready in time", seconds=START_SECONDS)
                self._kill(running)
                assert running.ended is not None
                await running.ended
            except _Ended:
                pass  # `_watch` has told
            else:
                running.ready_since = self._last_used = self._loop.time()
                self._watch_idleness()
        finally:
            self._starting = None

    async def _launch(self) -> _Running:
        python = self._settings.python
        assert python is not None
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    str(python),
                    "-I",
                    str(PROGRAM),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={**_ENVIRONMENT, **environment},
                    cwd="/",
                    start_new_session=True,  # a terminal's Ctrl-C is for the gateway, which drains first
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        running = _Running(process, ours, self._loop.create_future())
        running.tasks = {
            self._loop.create_task(self._follow_events(running)),
            self._loop.create_task(self._drain_errors(running)),
        }
        running.ended = self._loop.create_task(self._watch(running))
        self._log(logging.INFO, "litellm worker starts", pid=process.pid)
        return running

    async def _watch(self, running: _Running) -> None:
        """Waits for the process's end and says what it means."""
        code = await running.process.wait()
        await asyncio.gather(*running.tasks, return_exceptions=True)
        running.channel.close()
        if self._running is running:
            self._running = None
        if running.unwanted:
            self._log(logging.INFO, "litellm worker ended", pid=running.process.pid)
        else:
            if running.ready_since is not None and self._loop.time() - running.ready_since > STEADY_SECONDS:
                self._failures = 0
            self._rest()
            rest = round(self._not_before - self._loop.time(), 3)
            self._log(logging.ERROR, "litellm worker died", pid=running.process.pid, code=code, rest_seconds=rest)
        if not running.ready.done():
            running.ready.set_exception(_Ended())
            running.ready.exception()  # perhaps nobody waits

    def _rest(self) -> None:
        first, longest = REST_SECONDS
        rest = min(longest, first * 2.0**self._failures) * self._random.uniform(0.5, 1.0)
        self._failures += 1
        self._not_before = self._loop.time() + rest

    async def _follow_events(self, running: _Running) -> None:
        stdout = running.process.stdout
        assert stdout is not None
        while line := await _line(stdout):
            try:
                event = _decode_event(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if event.event == "ready" and not running.ready.done():
                running.ready.set_result(None)
                fields = {"pid": running.process.pid, "litellm": event.litellm, "import_seconds": event.seconds}
                self._log(logging.INFO, "litellm worker is ready", **fields)
            elif event.event == "logged":
                level = logging.getLevelName(event.level.upper())
                where = f"{event.logger} {event.at}"[:200]
                self._log(level, "litellm logged something", at=where, exception=event.exception)

    async def _drain_errors(self, running: _Running) -> None:
        """Standard error, with all that is printed. Until it is ready a worker has seen no call: the text is told, as
        it says what keeps it from starting. After that it may quote keys and prompts: only its size is told."""
        stderr = running.process.stderr
        assert stderr is not None
        told = 0
        while data := await stderr.read(16 * 1024):
            if running.ready.done():
                self._log(logging.DEBUG, "litellm printed something", bytes=len(data))
                continue
            for line in data.decode("utf-8", "replace").splitlines():
                if line.strip() and told < 100:
                    told += 1
                    self._log(logging.WARNING, "litellm worker says", text=line[:500])

    def _watch_idleness(self) -> None:
        """Ends the worker when it has not been used for long; one timer, set anew at most once in that time."""
        self._idle_timer = None
        running = self._running
        if not self._settings.idle or running is None or running.unwanted:
            return
        now = self._loop.time()
        busy = any(caller.busy for caller in self.callers)
        due = (now if busy else self._last_used) + self._settings.idle
        if due <= now:
            self._tell_to_end(running)
        else:
            self._idle_timer = self._loop.call_at(due, self._watch_idleness)

    def stop(self) -> None:
        """Ends the process; a later call starts another."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._running is not None:
            self._tell_to_end(self._running)

    async def end(self) -> None:
        """Stops the process and waits for its end. No call may come after it."""
        self.stop()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._running is not None:
            await self._end(self._running)

    def _tell_to_end(self, running: _Running) -> None:
        if not running.unwanted:
            running.unwanted = True
            with contextlib.suppress(OSError):
                running.channel.shutdown(socket.SHUT_RDWR)
            self._loop.call_later(END_SECONDS, self._kill, running)

    async def _end(self, running: _Running) -> None:
        self._tell_to_end(running)
        assert running.ended is not None
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(running.ended)
        except TimeoutError:
            self._kill(running)
            await asyncio.shield(running.ended)

    @staticmethod
    def _kill(running: _Running) -> None:
        if running.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                running.process.kill()

    def _log(self, level: int, message: str, **fields: object) -> None:
        logger.log(level, message, extra={"fields": {"upstream": f"{self.route}/{self.name}", **fields}})


class _Ended(Exception):
    """The process ended before it was ready."""


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line; b"" at the end. One that is longer than any of ours is passed over."""
    while True:
        try:
            return await stream.readline()
        except ValueError:
            continue


class Workers:
    """All workers of the gateway, by upstream. They outlive snapshots, as connections and breakers do."""

    def __init__(self, settings: WorkerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._workers: dict[tuple[str, str], Worker] = {}

    @property
    def available(self) -> bool:
        """Whether there is an interpreter to run one with."""
        return self._settings.usable

    def of(self, upstream: Upstream) -> Worker:
        """The worker of an upstream. One that turns to another provider is another."""
        key = (upstream.id, upstream.url.host)
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = Worker(upstream, self._settings, self._loop)
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

"""The gateway's way to the server: connected or not, and since when and why; nobody waits for long.

Theory of operation
===================

    CONNECTING   a call waits for the connection, within its timeout     -> UP, DOWN
    UP           a call waits for its answer, within its timeout         -> DOWN: TROUBLES_MAX in a row, or the end
    DOWN         nobody waits: `Unavailable` at once                     -> UP: the probe is answered in time

Trouble is an answer that comes late or not at all, or an error of the server's. The probe (a small write, as the script
makes them) goes out each PROBE_SECONDS while up; while down after pauses (pauses.py), but at once when an answer has
come late: the server may have just gone on. A connection that has not answered for DEAD_SECONDS is given up. Connecting
is tried again after such pauses, too.

A change is told once: to the log, to `/status`, to metrics. Texts are words of our own: nothing of what the server, the
resolver or the TLS library says gets out.
"""

import asyncio
import logging
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from llmroute_contract.shared_state import SharedStateUrl, parse_shared_state_url
from llmroute_sidecar.policy.limits.shared import Ask, SharedLimits, Unavailable, Words, script
from llmroute_sidecar.shared.connection import Answer, Connection, ErrorReply, Full, Lost, OnAnswer, connect
from llmroute_sidecar.shared.pauses import pause
from llmroute_sidecar.snapshot import SharedState as SharedStateConfig
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.upstream.tls import shared_state_context

TROUBLES_MAX = 3
PROBE_SECONDS = 1.0
DEAD_SECONDS = 3.0
CONNECT_SECONDS = 3.0
OWED_MAX = 10_000
"""Settlements that are kept while there is no connection."""

_REASONS = {
    "NOAUTH": "password_missing",
    "WRONGPASS": "password_wrong",
    "ERR_AUTH": "password_not_expected",
    "NOPERM": "not_permitted",
    "LOADING": "loading",
    "OOM": "out_of_memory",
    "READONLY": "read_only",
    "MISCONF": "cannot_persist",
    "BUSY": "busy",
    "MASTERDOWN": "primary_down",
    "CLUSTERDOWN": "cluster_down",
    "MOVED": "moved",
}
_ENDS_CONNECTION = frozenset({"READONLY", "MOVED", "NOAUTH", "MASTERDOWN"})
"""Of another server's making, perhaps: the name may lead to the right one meanwhile."""

logger = logging.getLogger("llmroute.shared_state")


class State(StrEnum):
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Standing:
    """What `/status` tells."""

    address: str
    state: State
    reason: str | None
    since: float
    """Unix seconds."""


class Link:
    """One for a configuration of the shared state. `start` begins, `close` ends it."""

    def __init__(self, config: SharedStateConfig, limits: SharedLimits, metrics: Metrics) -> None:
        self.config = config
        self._url: SharedStateUrl = parse_shared_state_url(config.url)
        self._probe = limits.probe()
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._script = script()
        self._sha: str | bytes = b""
        self._connection: Connection | None = None
        self._news = asyncio.Event()
        """The connection has ended, or nobody waits for its answers any more."""
        self._settled = asyncio.Event()
        """Not CONNECTING any more."""
        self._troubles = 0
        self._owed: deque[Ask] = deque()
        self._task: asyncio.Task[None] | None = None
        self._redirect: tuple[str, int] | None = None
        self.on_up: Callable[[], None] = lambda: None
        self.state = State.CONNECTING
        self._reason: str | None = None
        self._since = time.time()
        self._gone_since = self._loop.time()
        """When it was last in time, or began; of no meaning while it is."""
        self._told_of: set[str | None] = set()
        """Reasons that were logged since it was last reached: one that comes and goes is told once."""
        metrics.shared_state_up.value = False

    def inherit(self, other: "Link") -> None:
        """Takes over what `other` still has to tell."""
        self._owed.extend(other._owed)  # noqa: SLF001 - of the same class

    def start(self) -> None:
        self._task = self._loop.create_task(self._live())

    async def close(self, seconds: float) -> None:
        """Ends it, after what was said on the way has been answered, within `seconds`."""
        if self._task is not None:
            if self._connection is not None:
                try:
                    async with asyncio.timeout(seconds):
                        await self._connection.ask(["PING"])
                except (TimeoutError, Lost, Full, ErrorReply):
                    pass
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def standing(self) -> Standing:
        scheme = "rediss" if self._url.tls else "redis"
        host = f"[{self._url.host}]" if ":" in self._url.host else self._url.host
        return Standing(
            f"{scheme}://{host}:{self._url.port}/{self._url.database}", self.state, self._reason, self._since
        )

    # -- asking ------------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Waits for the first connection, within the timeout. Raises Unavailable."""
        if self.state is State.CONNECTING:
            try:
                async with asyncio.timeout(self._url.timeout):
                    await self._settled.wait()
            except TimeoutError:
                raise Unavailable("connecting") from None
        if self.state is not State.UP:
            raise Unavailable(self._reason or "connecting")

    @property
    def timeout(self) -> float:
        return self._url.timeout

    def ask(self, ask: Ask, on_answer: OnAnswer) -> None:
        """Asks the script; `on_answer` is called exactly once. Raises Unavailable where there is no connection."""
        connection = self._connection
        if connection is None:
            raise Unavailable(self._reason or "connecting")

        def answered(answer: Answer) -> None:
            if isinstance(answer, ErrorReply) and answer.code == "NOSCRIPT":  # the server was restarted, or flushed
                try:
                    connection.send(["EVAL", self._script, *ask.words()], on_answer)
                except (Lost, Full):
                    on_answer(Lost())
            else:
                on_answer(answer)

        try:
            connection.send(["EVALSHA", self._sha, *ask.words()], answered)
        except (Lost, Full):
            raise Unavailable("overloaded" if self.state is State.UP else "connection_lost") from None

    def tell(self, ask: Ask) -> None:
        """Asks the script, and nobody waits for the answer. Kept, in bounds, while there is no connection."""
        try:
            self.ask(ask, self._told)
        except Unavailable:
            self._owe(ask)

    def send(self, words: Words, on_answer: OnAnswer) -> None:
        """A command of another kind; nothing happens where there is no connection."""
        if self._connection is not None:
            try:
                self._connection.send(words, on_answer)
            except (Lost, Full):
                on_answer(Lost())

    def trouble(self, reason: str) -> None:
        """An answer did not come in time, or was an error."""
        self._metrics.shared_state_errors.add((reason,))
        self._troubles += 1
        if self._troubles >= TROUBLES_MAX and self.state is State.UP:
            self._set(State.DOWN, reason)
            self._news.set()

    def fine(self, seconds: float) -> None:
        """An answer came in time."""
        self._troubles = 0
        self._metrics.shared_state_round_trip.observe(seconds)

    def heard(self, answer: ErrorReply) -> str:
        """An error reply, as trouble; returns its word."""
        reason = _REASONS.get(answer.code, "server_error")
        self.trouble(reason)
        if answer.code in _ENDS_CONNECTION and self._connection is not None:
            self._connection.abort()
        return reason

    def _told(self, answer: Answer) -> None:
        if isinstance(answer, ErrorReply):
            self.heard(answer)
        elif isinstance(answer, Lost):
            self._metrics.shared_state_lost.add()

    def _owe(self, ask: Ask) -> None:
        if len(self._owed) >= OWED_MAX:
            self._owed.popleft()
            self._metrics.shared_state_lost.add()
        self._owed.append(ask)

    # -- the connection's life ---------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await self._connect()
            except _Failed as failed:
                reason = failed.reason
            except TimeoutError:
                reason = "connect_timeout"
            except Exception:
                logger.exception("connecting to the shared state failed unexpectedly")
                reason = "fault"
            else:
                reason = await self._hold(connection)
            self._metrics.shared_state_errors.add((reason,))
            self._connection = None
            self._set(State.DOWN, reason)
            await asyncio.sleep(self._pause(reason))

    def _pause(self, reason: str) -> float:
        gone = self._loop.time() - self._gone_since
        return pause(gone, reason, random.random())  # noqa: S311 - jitter

    async def _connect(self) -> Connection:
        """A connection that has let us in and takes writes. Raises _Failed."""
        tls: ssl.SSLContext | None = None
        if self._url.tls:
            try:
                tls = shared_state_context(self.config.tls)
            except (ssl.SSLError, ValueError):
                raise _Failed("tls_secret_invalid") from None
        host, port = self._redirect or (self._url.host, self._url.port)
        self._redirect = None
        self._news = asyncio.Event()
        try:
            connection = await connect(host, port, tls, self._news.set)
        except ssl.SSLCertVerificationError:
            raise _Failed("tls_untrusted") from None
        except ssl.SSLError:
            raise _Failed("tls_failed") from None
        except socket.gaierror:
            raise _Failed("name_not_found") from None
        except ConnectionRefusedError:
            raise _Failed("connection_refused") from None
        except OSError:
            raise _Failed("connection_failed") from None
        try:
            await self._enter(connection)
        except ErrorReply as error:
            connection.abort()
            if error.code == "MOVED":  # another node of the cluster has this gateway's slot
                self._redirect = _moved_to(error.text)
            raise _Failed(_REASONS.get(error.code, "server_error")) from None
        except Lost:
            raise _Failed("connection_lost") from None
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _enter(self, connection: Connection) -> None:
        config = self.config
        if config.password is not None:
            words = [word.encode(errors="surrogateescape") for word in (config.username, config.password) if word]
            try:
                await connection.ask(["AUTH", *words])
            except ErrorReply as error:
                raise ErrorReply("ERR_AUTH" if error.code == "ERR" else error.code) from None
        if self._url.database:
            await connection.ask(["SELECT", self._url.database])
        sha = await connection.ask(["SCRIPT", "LOAD", self._script])
        assert isinstance(sha, bytes)
        self._sha = sha
        await connection.ask(["EVALSHA", sha, *self._probe.words()])

    async def _hold(self, connection: Connection) -> str:
        """Until the connection ends: why."""
        self._connection = connection
        self._troubles = 0
        self._set(State.UP, None)
        owed, self._owed = self._owed, deque()
        for ask in owed:
            self.tell(ask)
        self.on_up()
        late = False
        try:
            while (probed := await self._probed()) is not _Probed.DEAD and not connection.ended:
                late = probed is _Probed.LATE and not late  # one late answer after the other is a slow server
                seconds = PROBE_SECONDS if self.state is State.UP else 0.0 if late else self._pause(self._reason or "")
                await _within(self._news.wait(), seconds)
                self._news.clear()
        finally:
            ended = connection.ended
            connection.abort()
        return "connection_lost" if ended else "timeout"

    async def _probed(self) -> "_Probed":
        """Asks whether the server takes writes."""
        answered: asyncio.Future[Answer] = self._loop.create_future()
        began = self._loop.time()

        def on_answer(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        try:
            self.ask(self._probe, on_answer)
        except Unavailable:
            return _Probed.REFUSED  # too many wait already, or it has just ended
        if not await _within(asyncio.shield(answered), self._url.timeout):
            self.trouble("timeout")
            return _Probed.LATE if await _within(asyncio.shield(answered), DEAD_SECONDS) else _Probed.DEAD
        match answered.result():
            case Lost():
                return _Probed.DEAD
            case ErrorReply() as error:
                self.heard(error)
                return _Probed.REFUSED
            case _:
                self.fine(self._loop.time() - began)
                self._set(State.UP, None)
                return _Probed.FINE

    def _set(self, state: State, reason: str | None) -> None:
        self._settled.set()
        if (state, reason) == (self.state, self._reason):
            return
        if self.state is State.UP:
            self._gone_since = self._loop.time()
        self.state, self._reason, self._since = state, reason, time.time()
        self._metrics.shared_state_up.value = state is State.UP
        fields: dict[str, object] = {"address": self.standing.address}
        if state is State.UP:
            self._told_of.clear()
            logger.info("shared state reached", extra={"fields": fields})
        elif reason not in self._told_of:
            self._told_of.add(reason)
            logger.warning("shared state not reached", extra={"fields": {**fields, "reason": reason}})


class _Probed(Enum):
    """What came of a probe."""

    FINE = auto()
    LATE = auto()
    REFUSED = auto()
    DEAD = auto()


class _Failed(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _moved_to(text: str) -> tuple[str, int] | None:
    """`MOVED 3999 10.0.0.1:6381`; an empty host means the one that was asked."""
    host, _, port = text.rpartition(" ")[2].rpartition(":")
    return (host, int(port)) if host and port.isdigit() else None


async def _within(wait: Awaitable[object], seconds: float) -> bool:
    """Whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return False
    return True

"""The connections to one HTTP upstream: kept for reuse, bounded in number, never reused after anything went wrong.

A caller that is cancelled while it waits gives its place back at once; one that is cancelled in an exchange has its
connection closed (httpcore's issue 1093 is what happens otherwise: slots leak for good).
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from llmroute_contract.scalars import UpstreamUrl
from llmroute_sidecar.snapshot import TlsMaterial
from llmroute_sidecar.upstream.exchange import BrokenReason, OutgoingRequest, UpstreamBroken
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.tls import client_context

IDLE_SECONDS = 55.0
"""How long an unused connection is kept. Most providers close theirs after 60 s or more; closing first avoids the
race."""


class Address(Protocol):
    """What must be known to call somebody: an upstream's configuration, or a collector's."""

    @property
    def url(self) -> UpstreamUrl: ...

    @property
    def tls(self) -> TlsMaterial | None: ...

    @property
    def pool_max_connections(self) -> int: ...


class HttpCaller:
    """Calls one http(s) upstream (`Caller` in exchange.py)."""

    def __init__(self, upstream: Address, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._host = upstream.url.host
        self._port = upstream.url.port
        self._ssl = client_context(upstream.tls) if upstream.url.scheme == "https" else None
        self._idle: deque[HttpConnection] = deque()
        self._waiters: deque[asyncio.Future[HttpConnection | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._open = 0
        self._most = upstream.pool_max_connections
        self._closing = False
        self._head_lines = f"host: {upstream.url.authority}\r\naccept-encoding: identity\r\n".encode()
        self._path = upstream.url.path.encode()

    @property
    def open_connections(self) -> int:
        """Connections that exist or are being made."""
        return self._open

    @property
    def busy(self) -> bool:
        """Whether a call is under way, or making its connection."""
        return self._open > len(self._idle)

    async def open(self, request: OutgoingRequest, deadline: float, *, fresh: bool = False) -> HttpConnection:
        connection = self._kept(fresh) or await self._acquire(deadline, fresh)
        try:
            connection.send(self._head(request), request.body)
        except BaseException:
            connection.abort()
            raise
        return connection

    def _head(self, request: OutgoingRequest) -> bytes:
        lines = [b"POST ", self._path, request.path.encode("ascii"), b" HTTP/1.1\r\n", self._head_lines]
        for name, value in request.headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (request.id_lines, b"content-length: %d\r\n\r\n" % len(request.body))
        return b"".join(lines)

    def _kept(self, fresh: bool) -> HttpConnection | None:
        """The connection that was used last; those that are of no use any more are closed."""
        idle = self._idle
        if not idle:
            return None
        oldest = self._loop.time() - IDLE_SECONDS
        while idle:
            connection = idle.pop()
            if not connection.closed and connection.idle_since >= oldest and not fresh:
                return connection
            connection.close()
            self._open -= 1
        return None

    async def _acquire(self, deadline: float, fresh: bool) -> HttpConnection:
        """A new connection, or (unless it is to be `fresh`) one that another call is done with."""
        if self._open < self._most:
            self._open += 1
        else:
            handed = await self._wait_for_place(deadline)
            if handed is not None:
                if not fresh and not handed.closed:
                    return handed
                handed.close()  # it may have ended since it was handed on; its place is ours
        try:
            return await self._connect(deadline)
        except BaseException:
            self._give_place()
            raise

    async def _wait_for_place(self, deadline: float) -> HttpConnection | None:
        """A connection that another call is done with, or None: the place of one, to be filled anew."""
        waiter: asyncio.Future[HttpConnection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException as stopped:
            if waiter.done() and not waiter.cancelled():  # it was handed one in the moment it stopped waiting
                self._hand_on(waiter.result())
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            if isinstance(stopped, TimeoutError):
                raise UpstreamBroken("pool_timeout") from None
            raise

    async def _connect(self, deadline: float) -> HttpConnection:
        made: list[HttpConnection] = []

        def make() -> HttpConnection:
            made.append(HttpConnection(self._loop, self._ended))
            return made[-1]

        try:
            async with asyncio.timeout_at(deadline):
                return await self._dial(make)
        except BaseException as error:
            for connection in made:
                connection.discard()  # it may have come about in the very moment that it was given up
            if isinstance(error, TimeoutError):
                raise UpstreamBroken("connect_timeout") from None
            if isinstance(error, OSError):
                raise UpstreamBroken(_connect_reason(error)) from None
            if isinstance(error, UnicodeError):
                raise UpstreamBroken("dns_failed") from None
            raise

    async def _dial(self, make: Callable[[], HttpConnection]) -> HttpConnection:
        """The way to the upstream, which other kinds of upstreams have in other places."""
        _, connection = await self._loop.create_connection(
            cast("Callable[[], asyncio.Protocol]", make),
            self._host,
            self._port,
            ssl=self._ssl,
            server_hostname=self._host if self._ssl else None,
        )
        return cast("HttpConnection", connection)

    def _ended(self, connection: HttpConnection) -> None:
        """The connection's exchange is over: handed on or kept if it may be, closed otherwise."""
        if connection.reusable and not connection.closed and not self._closing:
            self._hand_on(connection)
        else:
            connection.close()
            self._give_place()

    def _hand_on(self, connection: HttpConnection | None) -> None:
        """Gives a connection, or a place for one, to the call that has waited longest. Nobody overtakes it: a place
        that is handed on was never free."""
        if connection is None or connection.closed:
            self._give_place()
            return
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(IDLE_SECONDS, self._close_stale)

    def _give_place(self) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._open -= 1

    def _next_waiter(self) -> "asyncio.Future[HttpConnection | None] | None":
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _close_stale(self) -> None:
        """Closes connections that have been idle for too long; one timer looks after all."""
        self._sweep = None
        oldest = self._loop.time() - IDLE_SECONDS
        while self._idle and (self._idle[0].closed or self._idle[0].idle_since <= oldest):
            self._idle.popleft().close()
            self._open -= 1
        if self._idle:
            self._sweep = self._loop.call_at(self._idle[0].idle_since + IDLE_SECONDS, self._close_stale)

    def close(self) -> None:
        self._closing = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().close()
            self._open -= 1


def _connect_reason(error: OSError) -> BrokenReason:
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return "tls_failed"
    if isinstance(error, socket.gaierror):
        return "dns_failed"
    return "connect_failed"

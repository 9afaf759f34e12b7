"""The connections to one HTTP upstream: kept for reuse, bounded in number, never reused after anything went wrong.

A caller that is cancelled while it waits gives its place back at once; one that is cancelled in an exchange has its
connection closed (httpcore's issue 1093 is what happens otherwise: slots leak for good).
"""

import asyncio
import socket
import ssl
from collections import deque

from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.upstream.exchange import BrokenReason, OutgoingRequest, UpstreamBroken
from llmroute_sidecar.upstream.http_connection import HttpConnection
from llmroute_sidecar.upstream.tls import client_context

IDLE_SECONDS = 55.0
"""How long an unused connection is kept. Most providers close theirs after 60 s or more; closing first avoids the
race."""


class HttpCaller:
    """Calls one http(s) upstream (`Caller` in exchange.py)."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self._upstream = upstream
        self._loop = loop
        self._host = upstream.url.host
        self._port = upstream.url.port
        self._ssl = client_context(upstream.tls) if upstream.url.scheme == "https" else None
        self._idle: deque[HttpConnection] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._open = 0
        self._most = upstream.pool_max_connections
        self._closing = False
        self._head_lines = f"host: {upstream.url.authority}\r\naccept-encoding: identity\r\n".encode()
        self._path = upstream.url.path.encode()

    @property
    def open_connections(self) -> int:
        """Connections that exist or are being made."""
        return self._open

    async def open(self, request: OutgoingRequest, deadline: float) -> HttpConnection:
        """The exchange for `request`. A kept connection that turns out closed is replaced by a new one, once."""
        connection = await self._acquire(deadline)
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
        lines.append(b"content-length: %d\r\n\r\n" % len(request.body))
        return b"".join(lines)

    async def _acquire(self, deadline: float) -> HttpConnection:
        idle = self._idle
        oldest = self._loop.time() - IDLE_SECONDS
        while True:
            while idle:
                connection = idle.pop()
                if connection.closed:
                    self._dropped()
                elif connection.idle_since < oldest:
                    connection.close()
                    self._dropped()
                else:
                    return connection
            if self._open < self._most:
                self._open += 1
                try:
                    return await self._connect(deadline)
                except BaseException:
                    self._dropped()
                    raise
            await self._wait_for_place(deadline)

    async def _wait_for_place(self, deadline: float) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            raise UpstreamBroken("pool_timeout") from None
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake_one()  # it was told of a place and cannot use it any more: tell the next one
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _connect(self, deadline: float) -> HttpConnection:
        try:
            async with asyncio.timeout_at(deadline):
                _, connection = await self._loop.create_connection(
                    lambda: HttpConnection(self._loop, self._ended),
                    self._host,
                    self._port,
                    ssl=self._ssl,
                    server_hostname=self._host if self._ssl else None,
                )
                return connection
        except TimeoutError:
            raise UpstreamBroken("connect_timeout") from None
        except OSError as error:
            raise UpstreamBroken(_connect_reason(error)) from None
        except UnicodeError:
            raise UpstreamBroken("dns_failed") from None

    def _ended(self, connection: HttpConnection) -> None:
        """The connection's exchange is over: kept if it may be, closed otherwise."""
        if connection.reusable and not connection.closed and not self._closing:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            self._wake_one()
        else:
            connection.close()
            self._dropped()

    def _dropped(self) -> None:
        self._open -= 1
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close_stale(self) -> None:
        """Closes connections that have been idle for too long; called now and then."""
        oldest = self._loop.time() - IDLE_SECONDS
        while self._idle and (self._idle[0].closed or self._idle[0].idle_since < oldest):
            self._idle.popleft().close()
            self._dropped()

    def close(self) -> None:
        self._closing = True
        while self._idle:
            self._idle.pop().close()
            self._dropped()


def _connect_reason(error: OSError) -> BrokenReason:
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return "tls_failed"
    if isinstance(error, socket.gaierror):
        return "dns_failed"
    return "connect_failed"

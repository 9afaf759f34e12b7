"""One HTTP/1.1 connection to an upstream: sends a request, parses the answer, relays its body.

Written on asyncio's protocols and httptools, since each layer between the socket and the client costs throughput on
every request (docs/performance.md has the measurements). Knows nothing of pools (`pool.py`) and of what an answer
means (`pipeline/`).
"""

import asyncio
from collections.abc import Callable

import httptools

from llmroute_sidecar.upstream.exchange import BrokenReason, Headers, Sink, UpstreamBroken

HEAD_MAX_BYTES = 64 * 1024
"""An answer's status line and headers, at most."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
HIGH_WATER = 256 * 1024
"""Unread body bytes above which the upstream is held back."""


class HttpConnection:
    """A connection that serves one exchange at a time (`Exchange` in exchange.py); an asyncio protocol, by form: a base
    class that is not compiled would cost its attributes' speed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[["HttpConnection"], None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._in_exchange = False
        self._awaited = False  # an answer, or more of it
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        """Of all answers on this connection; None before the first request and after the end."""
        self._waiter: asyncio.Future[str | None] | None = None
        """Resolved with None by news, with why by a timer."""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        """Of the wait under way."""
        self._sink: Sink | None = None
        self._pieces: list[bytes] = []
        """Of the body, from one read, for the sink: an upstream ahead of us sends many chunks in one, and each hand on
        costs more than the bytes."""
        self._failure: BrokenReason | None = None
        self._answered = False
        self._unspent = 0  # bytes since the exchange began, or since the last piece of its body: bounds heads, trailers
        self._head_done = False
        self._head_told = False
        self._until_close = False
        self._news = False
        self._reading_paused = False
        self._last_activity = 0.0
        self.closed = False
        self.reusable = False
        self.served = 0
        """Exchanges begun on this connection."""
        self.idle_since = 0.0
        self.status = 0
        self.headers: Headers = []
        self.buffer = bytearray()
        self.complete = False

    # -- the exchange ------------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes) -> None:
        """Begins an exchange. The transport takes all of it: bodies are bounded where they come in."""
        assert self._transport is not None
        self.served += 1
        self._in_exchange = self._awaited = True
        self.status = 0
        self.headers = []
        self.buffer = bytearray()
        self.complete = False
        self.reusable = False
        self._failure = None
        self._answered = False
        self._unspent = 0
        self._head_done = False
        self._head_told = False
        self._until_close = False
        self._news = False
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        if len(body) < 32 * 1024:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def advance(self, deadline: float, reason: BrokenReason) -> None:
        while not self._news:
            if self._failure is not None:
                raise self._broken()
            if self.complete:
                return
            self._resume_reading()
            await self._wait(deadline, reason)
        self._news = False
        if self.status and not self._head_told:
            self._head_told = True  # whatever came after it in the same breath is told next
            self._news = self._failure is not None or bool(self.buffer)
            return
        if self._failure is not None and not self.complete:
            raise self._broken()

    async def relay(self, sink: Sink, idle: float, deadline: float) -> None:
        self._sink = sink
        sink.on_resume(self._resume_reading)
        try:
            if self.buffer:
                sink.write(bytes(self.buffer))
                self.buffer = bytearray()
            self._last_activity = self._loop.time()
            self._resume_reading()
            while not self.complete:
                if self._failure is not None:
                    raise self._broken()
                await self._wait_relayed(idle, deadline)
        finally:
            self._sink = None
            sink.on_resume(None)

    async def _wait_relayed(self, idle: float, deadline: float) -> None:
        """One nap, at most until silence would have lasted `idle`: a timer a nap, none a chunk."""
        now = self._loop.time()
        if now >= deadline:
            raise UpstreamBroken("request_timeout")
        if self._reading_paused:
            self._last_activity = now  # the client is slow, not the upstream
        quiet_until = self._last_activity + idle
        if now >= quiet_until:
            raise UpstreamBroken("idle_timeout")
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(min(quiet_until, deadline), _set_result, waiter, "silence")
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    async def _wait(self, deadline: float, reason: BrokenReason) -> None:
        """One timer a connection: it stays when the wait is over, and looks again when it fires, so that waits which
        end in time (nearly all) cost none."""
        waiter = self._waiter = self._loop.create_future()
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._set_timer(deadline)
        try:
            over = await waiter
        finally:
            self._deadline = None
            self._waiter = None
        # Raised here, not set on the future: an exception that its own frame refers to keeps the request's body in
        # memory until the next full collection.
        if over is not None:
            raise UpstreamBroken(reason)

    def _set_timer(self, deadline: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline is None or self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._set_timer(self._deadline)
        else:
            _set_result(self._waiter, "deadline")

    def release(self) -> None:
        self._end()

    def abort(self) -> None:
        self._kill()
        self._end()

    def _end(self) -> None:
        if self._in_exchange:
            self._in_exchange = False
            if self.reusable:
                self._resume_reading()  # an idle connection must hear of its end
            self._on_end(self)

    def _kill(self) -> None:
        self.closed = True
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def discard(self) -> None:
        """Closes a connection that served nothing."""
        self._kill()

    def close(self) -> None:
        """Closes an idle connection in good order."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def _broken(self) -> UpstreamBroken:
        unanswered = self.served > 1 and not self._answered and self._failure == "connection_lost"
        return UpstreamBroken(self._failure or "connection_lost", unanswered=unanswered)

    def _wake(self) -> None:
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, reason: BrokenReason) -> None:
        if self._failure is None and not self.complete:
            self._failure = reason
        self._wake()

    # -- the socket --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes

    def data_received(self, data: bytes) -> None:
        if self._parser is None or not self._awaited:
            self._kill()  # bytes that no request asked for: the connection cannot be trusted (RFC 9112 §9.2)
            return
        self._last_activity = self._loop.time()
        self._answered = True
        self._unspent += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._hand_on()
            self._fail("bad_response")
            self._kill()
            return
        if self._pieces:
            self._hand_on()
        if self._unspent > HEAD_MAX_BYTES and not self.complete:
            self._fail("bad_response")
            self._kill()

    def eof_received(self) -> bool | None:
        return None  # the transport closes itself; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        self.closed = True
        self.reusable = False
        if self._awaited:
            if self._head_done and self._until_close and exc is None:
                self._finish()  # RFC 9112 §6.3, case 8: a body without a length ends with the connection
            else:
                self._fail("connection_lost")
        self._parser = None

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._last_activity = self._loop.time()
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self.closed:
            self._reading_paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        pass  # bodies are bounded where they come in

    def resume_writing(self) -> None:
        pass

    # -- httptools' callbacks ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:  # another answer on the heels of the one that was asked for
            self._kill()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # a trailer is no header (RFC 9110 §6.5.1), nor is an answer that nobody asked for
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self.closed:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            return  # an interim answer; on_message_complete clears it away
        if not 200 <= status <= 599:  # RFC 9110 §15: there are no others
            self._fail("bad_response")
            self._kill()
            return
        self._head_done = True
        self.status = status
        self._until_close = status not in (204, 304)
        for name, value in self.headers:
            if name in _FRAMING:
                self._until_close = False
                if name == b"transfer-encoding" and value.lower() != b"chunked":  # nor was any asked for (no TE)
                    self._fail("bad_response")
                    self._kill()
                    return
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self.complete:  # of an answer that nobody asked for: it must not become the end of this one
            return
        self._unspent = 0
        if self._sink is not None:
            self._pieces.append(body)
            return
        self.buffer += body
        if len(self.buffer) > HIGH_WATER:
            self._pause_reading()
        self._wake()

    def _hand_on(self) -> None:
        """What one read brought, before anybody else hears of it."""
        sink, pieces = self._sink, self._pieces
        if sink is None or not pieces:
            return
        self._pieces = []
        sink.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if sink.paused:
            self._pause_reading()

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None or self.closed:
            return
        if not self._head_done:  # 1xx: what follows is the real answer
            self.headers = []
            return
        assert self._transport is not None
        self.reusable = (
            parser.should_keep_alive()
            and not self._until_close
            # An answer that came before the request was sent: the upstream may never read the rest of it.
            and not self._transport.get_write_buffer_size()
        )
        self._finish()

    def _finish(self) -> None:
        self.complete = True
        self._awaited = False
        self._wake()


def _set_result(waiter: "asyncio.Future[str | None]", why: str) -> None:
    if not waiter.done():
        waiter.set_result(why)

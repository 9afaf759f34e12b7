"""The serving side of HTTP/1.1 on the data port: one client connection (RFC 9112), requests in, replies out.

Owns framing, limits on heads and bodies, pipelining, `Expect`, keep-alive, back pressure and the client's departure.
What a request means is the `Handler`'s. A request is answered before the next one of its connection is looked at;
bytes beyond are left in the kernel, so a client cannot make us hold more than it is due.

It is written on asyncio's protocols and httptools (llhttp, strict: a message with both a length and chunks, two
lengths, or a bare line feed is refused, which is what smuggling needs). An ASGI server's layers cost half the
throughput (docs/performance.md); this file is the seam where another serving side could stand.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import httptools

from llmroute_sidecar.pipeline.call import Call, take_over_ids
from llmroute_sidecar.pipeline.errors import Answer, ErrorCode
from llmroute_sidecar.server.turn import Turn
from llmroute_sidecar.upstream.exchange import Headers


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on what one client may ask of a connection. Sizes in bytes, times in seconds."""

    body: int = 32 * 1024 * 1024
    head: int = 64 * 1024
    header_count: int = 128
    path: int = 8 * 1024
    head_seconds: float = 15.0
    """From a request's first byte (or the connection's begin) to the end of its head."""
    body_seconds: float = 30.0
    """Silence within a body."""
    keep_alive_seconds: float = 90.0
    """Between requests; longer than the SDKs keep theirs."""
    pipelined: int = 32
    """Requests waiting behind the one that is served."""
    discard: int = 1024 * 1024
    """Rest of a refused request's body that is read to keep the connection; beyond it the connection is closed."""
    write_buffer: int = 64 * 1024
    """Unsent bytes above which an upstream is held back."""


class Handler(Protocol):
    def template(self, method: str, path: str) -> str:
        """The path's template, for metrics."""
        ...

    def begin(self, call: Call) -> None:
        """A request has begun. It will be closed exactly once."""
        ...

    def screen(self, call: Call) -> Answer | None:
        """The head is there. An answer ends the request here, before its body is read."""
        ...

    async def serve(self, call: Call, reply: Turn) -> None:
        """The body is there. Must answer through `reply`."""
        ...

    def refuse(self, call: Call, code: ErrorCode, message: str) -> Answer: ...

    def close(self, call: Call, status: int) -> None:
        """The call is over; called once for each that began."""
        ...

    def draining(self) -> bool: ...


_CLIENT_LEFT = 499
_LINGER_SECONDS = 2.0


class Connection(asyncio.Protocol):
    """A client's connection. `connections` holds all open ones, for the drain."""

    def __init__(
        self, handler: Handler, limits: ServerLimits, loop: asyncio.AbstractEventLoop, connections: set["Connection"]
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._loop = loop
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._client_ip = ""
        self._turn: Turn | None = None  # the one that is parsed
        self._queue: deque[Turn] = deque()  # begun, not answered; the first is the one being served
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline = 0.0
        self._timer_kind = ""
        self._reading_paused = False
        self._closing = False
        self._lingering = False
        self._head_bytes = 0
        self._head_count = 0
        self._in_head = False
        self._url = b""
        self._headers: Headers = []
        self.write_paused = False

    # -- the socket --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer)
        peer = transport.get_extra_info("peername")
        self._client_ip = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self._connections.add(self)
        self._arm("head", self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._connections.discard(self)
        self._closing = True
        self._disarm()
        self.write_paused = False
        for turn in list(self._queue):
            self._client_left(turn)
        self._queue.clear()
        self._turn = None

    def _client_left(self, turn: Turn) -> None:
        turn.answered = True
        if turn.task is not None and not turn.task.done():
            turn.task.cancel()
        self._closed(turn, _CLIENT_LEFT)

    def _closed(self, turn: Turn, status: int) -> None:
        if turn.opened and turn.call is not None:
            turn.opened = False
            self._handler.close(turn.call, status)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._lingering:
            return
        if self._in_head or self._turn is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse_broken("invalid_request", "protocol upgrades are not served here")
        except httptools.HttpParserError:
            self._refuse_broken("invalid_request", "the request is not valid HTTP/1.1")
        if self._in_head and self._head_bytes > self._limits.head and not self._closing:
            self._refuse_broken("headers_too_large", f"the head is above {self._limits.head} bytes")

    def eof_received(self) -> bool | None:
        return None  # a client that has shut its side down has left: connection_lost follows

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._queue:
            self._queue[0].resumed()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- time --------------------------------------------------------------------------------------------------------

    def _arm(self, kind: str, seconds: float) -> None:
        """One timer a connection; a later deadline costs no new timer, the old one looks again when it fires."""
        self._timer_kind = kind
        self._timer_deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._timer_deadline, self._on_timer)
        elif self._timer.when() > self._timer_deadline:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._timer_deadline, self._on_timer)

    def _disarm(self) -> None:
        self._timer_kind = ""
        if self._closing and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if not self._timer_kind or self._closing:
            return
        if self._loop.time() < self._timer_deadline:
            self._timer = self._loop.call_at(self._timer_deadline, self._on_timer)
        elif self._timer_kind == "body" and self._turn is not None:
            self._refuse_broken("invalid_request", "the body stopped before its end")
        elif self._timer_kind == "head" and self._in_head:
            self._refuse_broken("invalid_request", "the head stopped before its end")
        else:
            self._close()

    # -- httptools' callbacks ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._closing or self._lingering:
            return
        self._turn = turn = Turn(self)
        self._in_head = True
        self._head_count = 0
        self._url = b""
        self._headers = []
        if len(self._queue) >= self._limits.pipelined:
            self._refuse_broken("invalid_request", "too many requests are waiting on this connection")
            return
        self._queue.append(turn)
        if len(self._queue) == 1:
            self._arm("head", self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_count += 1
        if self._head_count <= self._limits.header_count:
            self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        turn = self._turn
        if turn is None or self._closing or self._lingering:
            return
        self._in_head = False
        self._head_bytes = 0
        version = self._parser.get_http_version()
        turn.http10 = version == "1.0"
        turn.keep_alive = self._parser.should_keep_alive() and not turn.http10
        call = turn.call = self._call(self._parser.get_method().decode("ascii", "replace"))
        turn.head_only = call.method == "HEAD"
        turn.expects_continue = any(name == b"expect" for name, _ in call.headers)
        self._handler.begin(call)
        turn.opened = True
        turn.refused = self._refuse_head(call, version) or self._handler.screen(call)
        if turn.expects_continue and turn is self._queue[0]:
            self._answer_expectation(turn)

    def _answer_expectation(self, turn: Turn) -> None:
        """RFC 9110 §10.1.1: the client waits for leave to send its body, or for the answer that spares it the
        trouble."""
        turn.expects_continue = False
        if turn.refused is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._arm("body", self._limits.body_seconds)
        else:
            turn.keep_alive = False
            self._begin(turn)

    def _call(self, method: str) -> Call:
        path, _, query = self._url.partition(b"?")
        headers = self._headers
        text = path.decode("latin-1")
        return Call(
            method=method,
            path=text,
            query=query.decode("latin-1"),
            headers=headers,
            client_ip=self._client_ip,
            started=time.perf_counter(),
            ids=take_over_ids(headers),
            template=self._handler.template(method, text),
        )

    def _refuse_head(self, call: Call, version: str) -> Answer | None:
        """What no request may have, whatever it asks for."""
        refuse = self._handler.refuse
        if self._head_count > self._limits.header_count:
            return refuse(call, "headers_too_large", f"more than {self._limits.header_count} headers")
        if len(self._url) > self._limits.path:
            return refuse(call, "headers_too_large", f"the path is above {self._limits.path} bytes")
        if version not in ("1.0", "1.1"):
            return refuse(call, "invalid_request", "only HTTP/1.1 is served here")
        hosts = call.header(b"host")
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            return refuse(call, "invalid_request", "a request has exactly one Host header (RFC 9112 §3.2)")
        if not _is_plain_path(call.path) or not _is_plain_query(call.query):
            return refuse(call, "invalid_request", "the path must be plain ASCII without %-escapes and dot segments")
        length = call.header(b"content-length")
        if length and (not length[0].isdigit() or len(length[0]) > 18):
            return refuse(call, "invalid_request", "Content-Length must be a number")
        if length and int(length[0]) > self._limits.body:
            return refuse(call, "request_too_large", _too_large(self._limits.body))
        expected = call.header(b"expect")
        if expected and expected[0].lower() != b"100-continue":
            return refuse(call, "invalid_request", "the only expectation served here is 100-continue")
        return None

    def on_body(self, body: bytes) -> None:
        turn = self._turn
        if turn is None or self._closing or self._lingering:
            return
        turn.size += len(body)
        if turn.refused is None and turn.size > self._limits.body:
            assert turn.call is not None
            turn.refused = self._handler.refuse(turn.call, "request_too_large", _too_large(self._limits.body))
        if turn.refused is None:
            turn.body.append(body)
        else:
            turn.body.clear()
            if turn.size > self._limits.discard and turn is self._queue[0]:
                turn.keep_alive = False  # not worth reading to its end just to say no
                self._begin(turn)
                return
        if turn is self._queue[0]:
            self._arm("body", self._limits.body_seconds)

    def on_message_complete(self) -> None:
        turn = self._turn
        if turn is None or self._closing or self._lingering:
            return
        turn.body_complete = True
        self._turn = None
        self._head_bytes = 0
        self._disarm()
        if turn is self._queue[0]:
            self._begin(turn)
        elif len(self._queue) > 1:
            self._pause_reading()

    # -- turns -------------------------------------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> None:
        """The turn is first in line and its body is there: answer it."""
        call = turn.call
        assert call is not None
        if turn.refused is not None:
            turn.whole(turn.refused.status, turn.refused.headers, turn.refused.body)
            return
        call.body = turn.body[0] if len(turn.body) == 1 else b"".join(turn.body)
        turn.body.clear()
        turn.task = self._loop.create_task(self._handler.serve(call, turn))

    def turn_answered(self, turn: Turn, *, abort: bool) -> None:
        """Called by the turn once its answer is written."""
        self._closed(turn, turn.status)
        if self._closing:
            return
        if self._queue and self._queue[0] is turn:
            self._queue.popleft()
        if abort:
            self._closing = True
            self._connections.discard(self)
            if self._transport is not None:
                self._transport.abort()
        elif not turn.body_complete:
            self._linger()
        elif not turn.keep_alive or self._handler.draining():
            self._close()
        elif self._queue:
            following = self._queue[0]
            if following.body_complete:
                self._loop.call_soon(self._begin_waiting, following)
            elif following.expects_continue and following.call is not None:
                self._answer_expectation(following)
            else:
                self._arm("body" if following.call is not None else "head", self._limits.body_seconds)
            self._resume_reading()
        else:
            self._arm("idle", self._limits.keep_alive_seconds)
            self._resume_reading()

    def _begin_waiting(self, turn: Turn) -> None:
        if not self._closing and self._queue and self._queue[0] is turn and turn.task is None and not turn.answered:
            self._begin(turn)

    def _refuse_broken(self, code: ErrorCode, message: str) -> None:
        """Answers what cannot be read any further, after those before it, and closes the connection."""
        if self._closing or self._lingering:
            return
        turn, self._turn = self._turn or Turn(self), None
        ahead = [other for other in self._queue if other is not turn]
        if ahead:
            if turn in self._queue:
                self._queue.remove(turn)
                self._closed(turn, 400)
            ahead[-1].keep_alive = False  # the last answer of this connection
            self._pause_reading()
            return
        if turn.answered:
            self._close()
            return
        if turn.call is None:
            turn.call = self._call("")
            self._handler.begin(turn.call)
            turn.opened = True
        answer = self._handler.refuse(turn.call, code, message)
        turn.keep_alive = False
        turn.whole(answer.status, answer.headers, answer.body)

    def _linger(self) -> None:
        """The answer is out while the client may still be sending: closing now would reset the connection and could
        take the answer with it (RFC 9112 §9.6). So: say that nothing more comes, read on for a moment, close."""
        self._lingering = True
        self._turn = None
        for turn in list(self._queue):
            self._client_left(turn)
        self._queue.clear()
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
        self._arm("linger", _LINGER_SECONDS)
        self._resume_reading()

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        for turn in list(self._queue):
            self._client_left(turn)
        self._queue.clear()
        if self._transport is not None:
            self._transport.close()

    def close_if_idle(self) -> None:
        """The server is going: a connection without a request has no reason to stay."""
        if not self._queue:
            self._close()

    def abort(self) -> None:
        """The grace time is over."""
        if self._transport is not None:
            self._transport.abort()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()


def _too_large(limit: int) -> str:
    return f"the body is above {limit} bytes"


def _is_plain_path(path: str) -> bool:
    """A path that means the same to everyone: no escapes, no dot segments, nothing outside printable ASCII."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or "%" in path or "\\" in path:
        return False
    return "//" not in path and "/../" not in path + "/" and "/./" not in path + "/"


def _is_plain_query(query: str) -> bool:
    return query.isascii() and query.isprintable() and " " not in query

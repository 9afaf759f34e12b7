"""The serving side of HTTP/1.1 on the data port: one client connection (RFC 9112), requests in, replies out.

Owns framing, limits on heads and bodies, pipelining, `Expect`, keep-alive, back pressure and the client's departure.
What a request means is the `Handler`'s.

Theory of operation
===================

A request becomes a `Turn` with its first byte. Turns stand in a queue, and only the first is served; those behind it
are parsed, up to a bound, and wait. Reading on behind the first is what tells us that the client has left: a socket
that is not read shows no end.

    the turn in front             its head is there, body to come     its body is there
    is good                       `100 Continue` if asked, read on    served by a task
    is refused                    read on if the rest is short,       answered
                                  else answered, then lingering
    while the client reads not    -                                   waits until it has caught up

*What cannot be parsed* ends the connection after the answers to what came before it; so does a limit.

*After the answer* the next turn comes to the front, or the connection idles, or it ends: closed where the request was
read to its end, lingering where the client may still be sending.

It is written on asyncio's protocols and httptools (llhttp, strict: a message with both a length and chunks, two
lengths, or a bare line feed is refused, which is what smuggling needs). An ASGI server's layers cost half the
throughput (docs/performance.md); this file is the seam where another serving side could stand.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from typing import Protocol

import httptools

from llmroute_sidecar.pipeline.call import READ_HERE, Call, take_over_ids
from llmroute_sidecar.pipeline.errors import Answer, ErrorCode
from llmroute_sidecar.policy.web_pages import LocalHosts
from llmroute_sidecar.server.head import (
    ServerLimits,
    body_too_large,
    head_too_large,
    no_room,
    wrong_with_head,
    wrong_with_host,
)
from llmroute_sidecar.server.room import COUNTED_FROM_BYTES, Room
from llmroute_sidecar.server.turn import Turn
from llmroute_sidecar.telemetry.log import exception_text
from llmroute_sidecar.upstream.exchange import Headers


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

    def serve(self, call: Call, reply: Turn) -> Coroutine[None, None, None]:
        """The body is there. Must answer through `reply`."""
        ...

    def refuse(self, call: Call, code: ErrorCode, message: str) -> Answer: ...

    def close(self, call: Call, status: int) -> None:
        """The call is over; called once for each that began."""
        ...

    def draining(self) -> bool: ...


_CLIENT_LEFT = 499
"""In log and metrics only, as nginx writes it: the client went away before its answer."""
_CUT = 503
"""In log and metrics only: the gateway went away before the answer."""
_LINGER_SECONDS = 2.0


class Connection:
    """A client's connection (an asyncio protocol, by form: a base class that is not compiled would cost its attributes'
    speed). `connections` holds all open ones, for the drain; `room` is what their bodies share; to other
    names than `local_hosts`, where there are any, it does not answer."""

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        loop: asyncio.AbstractEventLoop,
        connections: set["Connection"],
        room: Room,
        local_hosts: LocalHosts | None,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._loop = loop
        self._connections = connections
        self._room = room
        self._local_hosts = local_hosts
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._client_ip = ""
        self._turn: Turn | None = None  # the one that is parsed
        self._queue: deque[Turn] = deque()  # begun, not answered; the first is the one being served
        self._waiting_bytes = 0  # of bodies in the queue, behind the first
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline: float | None = None
        self._reading_paused = False
        self._draining = handler.draining()
        self._closing = False
        self._lingering = False
        self._deaf = False  # nothing more that comes means anything
        self._unspent = 0  # bytes since the parser last got to the end of a head, or to a piece of a body
        self._in_head = False
        self._head_timed = False
        self._head_count = 0
        self._method = ""
        self._offered_with: bytes | None = None  # how the body is framed of a request that offers an upgrade
        self._retelling = False
        self._url = b""
        self._headers: Headers = []
        self._read_here: Headers = []
        self.write_paused = False

    # -- the socket --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer)
        peer = transport.get_extra_info("peername")
        self._client_ip = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self._connections.add(self)
        self._arm(self._limits.head_seconds)
        if len(self._connections) > self._limits.connections:
            self._refuse_broken("overloaded", f"{self._limits.connections} connections are open; try again")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._connections.discard(self)
        self._closing = self._deaf = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.write_paused = False
        self._leave_all(_CLIENT_LEFT)
        self._turn = None
        self._parser = None  # it refers to this object: without a cycle memory is freed at once, not by a collection

    def _leave_all(self, status: int) -> None:
        """Nobody is there any more for what was not answered: its work is cancelled."""
        for turn in self._queue:
            turn.answered = True
            task, turn.task = turn.task, None
            if task is not None:
                task.cancel()  # it keeps its last exception, and with it all frames: nothing of theirs may refer to it
            self._closed(turn, status)
        self._queue.clear()

    def _closed(self, turn: Turn, status: int) -> None:
        if turn.held:
            self._room.give_back(turn.held)
            turn.held = 0
        if turn.opened and turn.call is not None:
            turn.opened = False
            self._handler.close(turn.call, status)

    def data_received(self, data: bytes) -> None:
        while data and not self._deaf:
            self._unspent += len(data)
            try:
                data = self._feed(data)
            except httptools.HttpParserCallbackError as error:
                fault = error.__context__ or error
                self._refuse_broken("internal_error", "the gateway failed on this request; its log says where", fault)
            except httptools.HttpParserError:
                self._refuse_broken("invalid_request", "the request is not valid HTTP/1.1")
        turn = self._turn
        if turn is None or self._deaf:
            return
        if self._unspent > self._limits.head:
            if self._in_head:
                self._refuse_broken("headers_too_large", head_too_large(self._limits))
            else:  # trailers or chunk extensions without end
                self._refuse_broken("invalid_request", "there is more framing than body")
        elif turn is not self._queue[0]:
            return
        elif not self._in_head:
            self._arm(self._limits.body_seconds)
        elif not self._head_timed:  # most heads are whole at once and need no time
            self._head_timed = True
            self._arm(self._limits.head_seconds)

    def _feed(self, data: bytes) -> bytes:
        """Parses `data`, up to an offered upgrade, and returns what is behind that."""
        parser = self._parser
        assert parser is not None  # while there is a connection
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return data[upgrade.args[0] :]
        return b""

    def _ignore_upgrade(self) -> None:
        """RFC 9110 §7.8 lets an offered upgrade be ignored, and some clients offer HTTP/2 with every request. The
        parser takes the request's body for the other protocol's: another one is told of the body, and reads it."""
        if self._method == "CONNECT":
            self._deaf = True  # refused; what follows is no HTTP
        elif self._offered_with is not None:
            head = b"POST / HTTP/1.1\r\n%b\r\n\r\n" % self._offered_with
            self._offered_with = None
            self._parser = parser = httptools.HttpRequestParser(self)
            self._retelling = True
            parser.feed_data(head)
            self._retelling = False

    def eof_received(self) -> bool | None:
        return None  # a client that has shut its side down has left: connection_lost follows

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._queue:
            turn = self._queue[0]
            turn.resumed()
            if turn.waiting:
                turn.waiting = False
                self._begin(turn)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- time --------------------------------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        """One timer a connection; a later deadline costs no new timer, the old one looks again when it fires."""
        self._timer_deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._timer_deadline, self._on_timer)
        elif self._timer.when() > self._timer_deadline:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._timer_deadline, self._on_timer)

    def _disarm(self) -> None:
        self._timer_deadline = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._timer_deadline is None:
            return
        turn = self._turn
        if self._loop.time() < self._timer_deadline:
            self._timer = self._loop.call_at(self._timer_deadline, self._on_timer)
        elif self._closing:
            self.abort()
        elif turn is None or self._lingering:
            self._close()
        elif self._in_head:
            self._refuse_broken("invalid_request", "the head stopped before its end")
        elif turn.refused is not None:
            self._answer_early(turn)
        else:
            self._refuse_broken("invalid_request", "the body stopped before its end")

    # -- httptools' callbacks ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._deaf or self._retelling:
            return
        self._turn = turn = Turn(self)
        self._in_head = True
        self._head_count = 0
        self._url = b""
        self._headers = []
        self._read_here = []
        if len(self._queue) > self._limits.pipelined:
            self._refuse_broken("invalid_request", "too many requests are waiting on this connection")
            return
        self._queue.append(turn)
        self._head_timed = False

    def on_url(self, url: bytes) -> None:
        if self._in_head:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: RFC 9110 §6.5.1 forbids to take it for a header
        self._head_count += 1
        if self._head_count > self._limits.header_count:
            return
        header = (name.lower(), value.strip(b" \t"))
        self._headers.append(header)
        if header[0] in READ_HERE:
            self._read_here.append(header)

    def on_headers_complete(self) -> None:
        turn, parser = self._turn, self._parser
        if turn is None or parser is None or self._deaf or self._retelling:
            return
        self._in_head = False
        # Nearly every head comes in one piece below the limit; only one that may be above it is measured.
        size = 0 if self._unspent <= self._limits.head else self._head_size()
        self._unspent = 0
        version = parser.get_http_version()
        turn.http10 = version == "1.0"
        self._method = parser.get_method().decode("ascii", "replace")
        turn.keep_alive = (
            parser.should_keep_alive() and not turn.http10 and not self._draining and self._method != "CONNECT"
        )
        call = turn.call = self._call(self._method)
        turn.head_only = call.method == "HEAD"
        self._handler.begin(call)
        turn.opened = True
        wrong = wrong_with_head(call, version, self._head_count, size, self._limits)
        if wrong is None and self._local_hosts is not None:
            wrong = wrong_with_host(call, self._local_hosts)
        turn.refused = self._handler.screen(call) if wrong is None else self._handler.refuse(call, *wrong)
        for name, value in call.read_here:
            if name == b"content-length" and value.isdigit():
                turn.length = len(value) if len(value) > 18 else int(value)
            elif name == b"expect":
                turn.expects_continue = not turn.http10  # RFC 9110 §10.1.1: an HTTP/1.0 client does not mean it
        if parser.should_upgrade() and self._method != "CONNECT":
            self._offered_with = _framing(call.headers)
        if turn is self._queue[0]:
            self._take_up(turn)

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _call(self, method: str) -> Call:
        path, _, query = self._url.partition(b"?")
        text = path.decode("latin-1")
        return Call(
            method,
            text,
            query.decode("latin-1"),
            self._headers,
            self._read_here,
            self._client_ip,
            time.perf_counter(),
            take_over_ids(self._read_here),
            self._handler.template(method, text),
        )

    def on_body(self, body: bytes) -> None:
        turn = self._turn
        if turn is None or self._deaf:
            return
        self._unspent = 0
        turn.size += len(body)
        if turn.refused is None and turn.size > self._limits.body:
            assert turn.call is not None
            turn.refused = self._handler.refuse(turn.call, "request_too_large", body_too_large(self._limits))
        elif turn.refused is None and turn.size > COUNTED_FROM_BYTES and not self._hold(turn):
            assert turn.call is not None
            turn.refused = self._handler.refuse(turn.call, "overloaded", no_room(self._limits))
        if turn.refused is None:
            turn.add(body)
            return
        turn.body = b""
        if turn.size > self._limits.discard and turn is self._queue[0]:
            self._answer_early(turn)

    def _hold(self, turn: Turn) -> bool:
        """Whether there is room for the turn's body as it is now; if so, it is the turn's until its end."""
        grown = turn.size - turn.held
        if not self._room.take(grown):
            return False
        turn.held += grown
        return True

    def on_message_complete(self) -> None:
        turn = self._turn
        if turn is None or self._deaf or self._offered_with is not None:
            return
        turn.body_complete = True
        self._turn = None
        self._unspent = 0
        if turn is self._queue[0]:
            self._disarm()
            self._begin(turn)
            return
        self._waiting_bytes += len(turn.body)
        if self._waiting_bytes > self._limits.waiting or len(self._queue) > self._limits.pipelined // 2:
            self._pause_reading()

    # -- turns -------------------------------------------------------------------------------------------------------

    def _take_up(self, turn: Turn) -> None:
        """The turn is first in line and its head is there."""
        if turn.task is not None or turn.answered or turn.waiting:
            return
        if turn.body_complete:
            self._waiting_bytes -= len(turn.body)
            self._begin(turn)
        elif turn.refused is None:
            if turn.expects_continue:  # RFC 9110 §10.1.1: the client waits for leave to send its body
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                turn.expects_continue = False
        elif turn.expects_continue or turn.length > self._limits.discard:
            self._answer_early(turn)

    def _answer_early(self, turn: Turn) -> None:
        """A refused request whose body is not worth reading to its end just to say no."""
        turn.keep_alive = False
        self._begin(turn)

    def _begin(self, turn: Turn) -> None:
        """The turn is first in line and its body is there: answer it, once."""
        if self.write_paused:  # the client does not read: what would be answered waits until it does
            turn.waiting = True
            self._arm(self._limits.keep_alive_seconds)
            return
        call = turn.call
        if turn.task is not None or turn.answered or call is None:
            return
        self._disarm()
        if turn.refused is not None:
            turn.whole(turn.refused.status, turn.refused.headers, turn.refused.body)
            return
        call.body = bytes(turn.body)
        turn.body = b""
        turn.task = self._loop.create_task(self._handler.serve(call, turn))

    def turn_answered(self, turn: Turn, *, abort: bool) -> None:
        """Called by the turn once its answer is written; `abort`: and must not look whole."""
        self._closed(turn, turn.status)
        if self._closing:
            return
        if self._queue and self._queue[0] is turn:
            self._queue.popleft()
        if abort:
            self._closing = self._deaf = True
            self.abort()
        elif not turn.body_complete or (self._deaf and not turn.keep_alive):
            self._linger()
        elif not turn.keep_alive or (self._draining and not self._queue):
            self._close()
        else:
            # Not at once: a hundred answers of one read would nest in each other, or end their own task's turn.
            if self._queue:
                self._loop.call_soon(self._take_up_next)
            else:
                self._arm(self._limits.keep_alive_seconds)
            self._resume_reading()

    def _take_up_next(self) -> None:
        if self._closing or not self._queue:
            return
        turn = self._queue[0]
        if turn.call is not None:
            self._take_up(turn)
        if turn is self._turn and not self._deaf:
            self._arm(self._limits.head_seconds if self._in_head else self._limits.body_seconds)

    def _refuse_broken(self, code: ErrorCode, message: str, fault: BaseException | None = None) -> None:
        """Answers what cannot be read any further, after those before it, and ends the connection."""
        if self._deaf:
            return
        turn, self._turn = self._turn, None
        self._deaf = True
        if turn is None:  # broken before it began; what was parsed last is another request's
            turn = Turn(self)
            self._url, self._headers, self._read_here = b"", [], []
        if turn not in self._queue:
            self._queue.append(turn)
        if turn.call is None:
            turn.call = self._call("")
            self._handler.begin(turn.call)
            turn.opened = True
        if fault is not None:
            turn.call.exception = exception_text(fault)
        if turn.refused is None:
            turn.refused = self._handler.refuse(turn.call, code, message)
        turn.keep_alive = False
        turn.body = b""
        turn.body_complete = True  # as far as it will ever be
        if turn is self._queue[0]:
            self._begin(turn)

    def _linger(self) -> None:
        """The answer is out while the client may still be sending: closing now would reset the connection and could
        take the answer with it (RFC 9112 §9.6). So: say that nothing more comes, read on for a moment, close."""
        self._lingering = self._deaf = True
        self._turn = None
        self._leave_all(_CLIENT_LEFT)
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
        self._arm(_LINGER_SECONDS)
        self._resume_reading()

    def _close(self) -> None:
        """Ends the connection once what was written has gone out, which a client that does not read cannot put off
        for ever."""
        if self._closing:
            return
        self._closing = self._deaf = True
        self._leave_all(_CLIENT_LEFT)
        if self._transport is not None:
            self._arm(self._limits.close_seconds)
            self._transport.close()

    # -- the end of the process --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server is going: a connection without a request has no reason to stay, the others end with their last
        answer, which says so where it still can."""
        self._draining = True
        if not self._queue:
            self._close()
        elif not self._queue[-1].started and self._queue[-1].opened:
            self._queue[-1].keep_alive = False

    @property
    def unsent(self) -> bool:
        """Whether it is closing and its last answer has not gone out."""
        transport = self._transport
        return self._closing and transport is not None and transport.get_write_buffer_size() > 0

    def cut(self) -> None:
        """The grace time is over."""
        self._closing = self._deaf = True
        self._leave_all(_CUT)
        self.abort()

    def abort(self) -> None:
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


def _framing(headers: Headers) -> bytes | None:
    """The header that says how long a request's body is; None where there is none."""
    for name, value in headers:
        if name in (b"content-length", b"transfer-encoding"):
            return b"%b: %b" % (name, value)
    return None

"""One request of a connection and its answer: the writing half of HTTP/1.1.

Owns status line, headers, framing of the body (length, chunks, or the connection's end) and the rule that there is
exactly one answer. When it may be written, and what comes before and after it, is `connection.py`'s matter.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import Answer
from llmroute_sidecar.upstream.exchange import Headers

if TYPE_CHECKING:  # by its class and not by form: compiled, each call of a protocol's is looked up by name
    from llmroute_sidecar.server.connection import Connection

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Turn:
    """One request of a connection and its answer (`Reply` in pipeline/call.py)."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_left",
        "_resume",
        "answered",
        "body",
        "body_complete",
        "call",
        "expects_continue",
        "head_only",
        "held",
        "http10",
        "keep_alive",
        "length",
        "opened",
        "refused",
        "size",
        "started",
        "status",
        "task",
        "waiting",
    )

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._chunked = False
        self._left: int | None = None
        self._resume: Callable[[], None] | None = None
        self.call: Call | None = None
        self.body: bytes | bytearray = b""
        self.size = 0
        self.held = 0
        """Bytes taken of the room that all bodies have."""
        self.length = 0
        self.body_complete = False
        self.expects_continue = False
        self.head_only = False
        self.http10 = False
        self.keep_alive = True
        self.waiting = False
        self.opened = False
        self.refused: Answer | None = None
        self.started = False
        self.answered = False
        self.status = 0
        self.task: asyncio.Task[None] | None = None

    def add(self, piece: bytes) -> None:
        """A piece of the body. Nearly every body comes in one, and is not copied; many small ones share one buffer, as
        an object each would cost twenty times their size."""
        if not self.body:
            self.body = piece
        elif isinstance(self.body, bytearray):
            self.body += piece
        else:
            self.body = bytearray(self.body)
            self.body += piece

    @property
    def paused(self) -> bool:
        return self._connection.write_paused

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        self._resume = callback

    def resumed(self) -> None:
        if self._resume is not None:
            self._resume()

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if self.started:
            return
        head = self._head(status, headers)
        if status >= 200 and status not in (204, 304):
            head.append(b"content-length: %d\r\n" % len(body))
        head.append(b"\r\n")
        if not self.head_only and status not in (204, 304):
            head.append(body)
        self._connection.write(b"".join(head))
        self._done()

    def start(self, status: int, headers: Headers, length: int | None) -> None:
        if self.started:
            return
        head = self._head(status, headers)
        self._left = length
        if length is not None:
            head.append(b"content-length: %d\r\n" % length)
        elif not self.http10:
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        head.append(b"\r\n")
        self._connection.write(b"".join(head))

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        assert self.call is not None
        self.started = True
        self.status = status
        if self.http10:
            self.keep_alive = False  # a body without a length ends with the connection
        head = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
        head.append(self.call.ids.lines)
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
        return head

    def write(self, data: bytes) -> None:
        if self.answered or not data or self.head_only:
            return
        if self._chunked:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            self._connection.write(data)

    def finish(self) -> None:
        if self.answered:
            return
        if self._left:
            self.break_off()
            return
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._done()

    def break_off(self) -> None:
        if not self.answered:
            self.keep_alive = False
            self.answered = True
            self._connection.turn_answered(self, abort=True)

    def _done(self) -> None:
        self.answered = True
        self._connection.turn_answered(self, abort=False)

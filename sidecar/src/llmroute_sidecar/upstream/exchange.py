"""One request to an upstream and its answer, as the attempt engine sees it: the same for HTTP and for mock upstreams.

Owns the vocabulary only. An exchange is made by an upstream's `open()`, is driven by one task, and ends in exactly
one of `release()` (the answer was read to its end; the connection may serve again) and `abort()` (anything else: it
is closed).
"""

from collections.abc import Callable
from typing import Literal, Protocol

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, values as they came, in order."""

BrokenReason = Literal[
    "connect_failed",
    "dns_failed",
    "tls_failed",
    "connect_timeout",
    "pool_timeout",
    "first_token_timeout",
    "idle_timeout",
    "request_timeout",
    "connection_lost",
    "bad_response",
    "mock_failure",
    "worker_unavailable",
]


class UpstreamBroken(Exception):
    """The exchange came to nothing. `reason` is a word that may be told to clients: it names no host and no
    internals."""

    def __init__(self, reason: BrokenReason, *, unanswered: bool = False) -> None:
        super().__init__(reason)
        self.reason: BrokenReason = reason
        self.unanswered = unanswered
        """True when a kept connection was found closed before a single byte of answer: it is safe to try a new one."""


class OutgoingRequest:
    """What is sent to an upstream. `path` is what follows `/v1` in the client's path, with its query; `id_lines` are
    header lines as they stand, ids of the call."""

    __slots__ = ("body", "headers", "id_lines", "model", "path", "stream")

    def __init__(
        self, path: str, headers: Headers, body: bytes, model: str, stream: bool, id_lines: bytes = b""
    ) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.model = model
        self.stream = stream
        self.id_lines = id_lines


class Sink(Protocol):
    """Where a relayed answer goes: a client's connection. Writes never block; `paused` says when to stop for a
    while."""

    @property
    def paused(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        """Has `callback` called each time that `paused` turns False."""
        ...


class Exchange(Protocol):
    status: int
    """The answer's status; 0 until its head is there."""
    headers: Headers
    buffer: bytearray
    """Body bytes that have come and were not relayed yet."""
    complete: bool
    """The whole body has come."""

    async def advance(self, deadline: float, reason: BrokenReason) -> None:
        """Waits until the head is there, or the buffer has grown, or the body is complete.

        `deadline` is a time of the loop's clock; past it UpstreamBroken(reason) is raised, as it is when the upstream
        fails. Returns at once where there is news that the caller has not seen.
        """
        ...

    async def relay(self, sink: Sink, idle: float, deadline: float) -> None:
        """Hands the buffer and all that follows to `sink` until the body is complete.

        A paused sink holds back the upstream. `idle` bounds the silence between two pieces, in seconds, while the
        sink is not paused. Raises UpstreamBroken.
        """
        ...

    def release(self) -> None: ...

    def abort(self) -> None: ...


class Caller(Protocol):
    """An upstream that can be called."""

    @property
    def open_connections(self) -> int:
        """Connections that exist or are being made."""
        ...

    async def open(self, request: OutgoingRequest, deadline: float, *, fresh: bool = False) -> Exchange:
        """Sends `request` over a kept connection or a new one; `fresh`: over a new one. Raises UpstreamBroken."""
        ...

    def close(self) -> None:
        """Closes what is idle; exchanges under way finish on their own."""
        ...

"""A request as it goes through the pipeline, what is learnt of it on the way, and where its answer goes.

Owns the types and the ids (request id, trace id, W3C trace context). The server fills in a `Call` and offers a
`Reply`; the pipeline writes into both; log line and metrics are made from the `Call` at its end.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from llmroute_sidecar.pipeline.errors import AttemptRecord
from llmroute_sidecar.upstream.exchange import Headers

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Ids:
    """Under which a request is known. `traceparent` is the one sent on, with a span of the gateway's own
    (W3C Trace Context, §3.2)."""

    request_id: str
    trace_id: str
    traceparent: str


def take_over_ids(headers: Headers) -> Ids:
    """The client's ids where each came once and is sane, new ones otherwise."""
    request_id = trace_id = parent = None
    twice = set()
    seen = set()
    for name, value in headers:
        if name in (b"x-request-id", b"x-trace-id", b"traceparent"):
            if name in seen:
                twice.add(name)
            seen.add(name)
            if name == b"x-request-id":
                request_id = value
            elif name == b"x-trace-id":
                trace_id = value
            else:
                parent = value
    flags = "01"
    trace: str | None = None
    if parent is not None and b"traceparent" not in twice and (match := _TRACEPARENT.fullmatch(parent)):
        trace = match[1].decode()
        flags = match[2].decode()
    elif trace_id is not None and b"x-trace-id" not in twice and _SANE_ID.fullmatch(trace_id):
        trace = trace_id.decode()
    if request_id is None or b"x-request-id" in twice or not _SANE_ID.fullmatch(request_id):
        request = secrets.token_hex(16)
    else:
        request = request_id.decode()
    trace = trace or secrets.token_hex(16)
    hexadecimal = trace if re.fullmatch(r"(?!0{32})[0-9a-f]{32}", trace) else secrets.token_hex(16)
    return Ids(request, trace, f"00-{hexadecimal}-{secrets.token_hex(8)}-{flags}")


@dataclass(slots=True)
class Call:
    """One request. What comes below `body` is written by the pipeline and read by log and metrics."""

    method: str
    path: str
    query: str
    headers: Headers
    client_ip: str
    started: float
    """By time.perf_counter: the event loop's own clock is too coarse to measure with."""
    ids: Ids
    template: str
    """The path's template, for metrics: bounded."""
    body: bytes = b""

    status: int = 0
    client: str | None = None
    model: str | None = None
    upstream: str | None = None
    fallback_model: str | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    error_code: str | None = None
    exception: str | None = None
    limit_headers: Headers = field(default_factory=list)

    @property
    def anthropic(self) -> bool:
        """Whether errors are told in Anthropic's shape."""
        return self.path == "/v1/messages" or self.path.startswith("/v1/messages/")

    def header(self, name: bytes) -> list[bytes]:
        """All values of a header, as they came."""
        return [value for key, value in self.headers if key == name]


class Reply(Protocol):
    """The way back to the client; also the `Sink` of a relayed body. Writing to a client that has gone does nothing:
    the task that serves it is cancelled."""

    @property
    def paused(self) -> bool:
        """The client reads too slowly: no more until it has caught up."""
        ...

    @property
    def started(self) -> bool:
        """The status line is out: there is no way back."""
        ...

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer in one piece."""
        ...

    def start(self, status: int, headers: Headers, length: int | None) -> None:
        """The head of an answer whose body follows; `length` in bytes where it is known."""
        ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """The body is complete."""
        ...

    def break_off(self) -> None:
        """Closes the connection so that the client cannot take what it has for the whole."""
        ...

    def on_resume(self, callback: Callable[[], None] | None) -> None: ...

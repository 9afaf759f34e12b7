"""A request as it goes through the pipeline, what is learnt of it on the way, and where its answer goes.

Owns the types and the ids (request id, trace id, W3C trace context). The server fills in a `Call` and offers a
`Reply`; the pipeline writes into both; log line and metrics are made from the `Call` at its end.
"""

import random
import re
import time
from collections.abc import Callable
from typing import Protocol

from llmroute_sidecar.pipeline.errors import AttemptRecord, is_anthropic
from llmroute_sidecar.pipeline.metering import Meter
from llmroute_sidecar.pipeline.usage import Usage
from llmroute_sidecar.policy.keys import Client
from llmroute_sidecar.policy.plan import ModelEntry
from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.telemetry.tracing import CallTrace
from llmroute_sidecar.upstream.exchange import Headers
from llmroute_sidecar.upstream.registry import Serving

READ_HERE = frozenset(
    {
        b"host",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"authorization",
        b"x-api-key",
        b"origin",
        b"sec-fetch-site",
        b"x-request-id",
        b"x-trace-id",
        b"traceparent",
    }
)
"""The headers that the gateway itself reads; picked out once, while the head is parsed."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_random_bits = random.Random().getrandbits  # noqa: S311 - seeded by the system; ids must differ, not be secret
_ID_HEADERS = frozenset({b"x-request-id", b"x-trace-id", b"traceparent"})


class Ids:
    """Under which a request is known. `traceparent` is the one sent on, with a span of the gateway's own
    (W3C Trace Context, §3.2); where the call is traced, its attempts' spans are sent on instead."""

    __slots__ = ("caller_span", "lines", "request_id", "trace_id", "traceparent")

    def __init__(self, request_id: str, trace_id: str, traceparent: str, caller_span: str | None = None) -> None:
        self.request_id = request_id
        self.trace_id = trace_id
        self.traceparent = traceparent
        self.lines = id_lines(request_id, trace_id, traceparent)
        """As header lines: on every answer, whoever made it, and on every request that goes on."""
        self.caller_span = caller_span
        """Whose child the gateway's span is."""


def id_lines(request_id: str, trace_id: str, traceparent: str) -> bytes:
    """Header lines, ready to be sent."""
    return f"x-request-id: {request_id}\r\nx-trace-id: {trace_id}\r\ntraceparent: {traceparent}\r\n".encode("ascii")


def take_over_ids(headers: Headers) -> Ids:
    """The client's ids where each came once and is sane, new ones otherwise."""
    given: dict[bytes, bytes | None] = {}
    for name, value in headers:
        if name in _ID_HEADERS:
            given[name] = None if name in given else value  # one that came twice counts as none
    # One draw for all: that a trace's or a span's digits are all zero, which W3C forbids, happens once in 2 ** 64.
    drawn = _random_bits(320).to_bytes(40, "big").hex()
    request, trace, span = drawn[:32], drawn[32:64], drawn[64:]
    if not given:  # nearly every call
        return Ids(request, trace, f"00-{trace}-{span}-01")
    request_id = given.get(b"x-request-id")
    if request_id is not None and _SANE_ID.fullmatch(request_id):
        request = request_id.decode()
    hexadecimal = trace
    parent = given.get(b"traceparent")
    trace_id = given.get(b"x-trace-id")
    caller_span: str | None = None
    flags = "01"
    if parent is not None and (match := _TRACEPARENT.fullmatch(parent)):
        trace = hexadecimal = match[1].decode()
        caller_span = match[2].decode()
        flags = match[3].decode()
    elif trace_id is not None and _SANE_ID.fullmatch(trace_id):
        trace = trace_id.decode()
        hexadecimal = trace if _TRACE_ID.fullmatch(trace) else hexadecimal
    return Ids(request, trace, f"00-{hexadecimal}-{span}-{flags}", caller_span)


class Call:
    """One request. What has a value from the start is written by the pipeline and read by log and metrics."""

    body: bytes = b""
    content_type: bytes = b"application/json"
    """What the body was read as, and so what it goes on as, whatever the client called it."""
    trace: CallTrace | None = None
    """Its spans; None where it has none."""
    serving: Serving | None = None
    """What it is served from, from its head to its last byte."""
    clients: tuple[Client, ...] = ()
    """Whom its key stands for, one for each route that knows it."""
    status: int = 0
    client: str | None = None
    model: str | None = None
    entry: ModelEntry | None = None
    """What serves the model, once that is known."""
    upstream: str | None = None
    tries: int = 0
    """How often an upstream was called for it."""
    target: Upstream | None = None
    """The upstream that was called last."""
    target_model: str = ""
    """What that one calls the model."""
    waited: float = 0.0
    """Seconds for upstreams, and in pauses between attempts."""
    waits_since: float = 0.0
    """By time.perf_counter, while it waits for an upstream; else 0."""
    first_token: float = 0.0
    """By time.perf_counter: when the content of a stream began to go to the client; 0 where that is not known."""
    fallback_model: str | None = None
    error_code: str | None = None
    limit: str | None = None
    """The limit that refused it."""
    exception: str | None = None
    meter: Meter | None = None
    """Of a call that is limited by more than requests."""
    usage: Usage | None = None
    """What it used, once it is over; None where that is not known, or nothing was delivered."""

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        headers: Headers,
        read_here: Headers,
        client_ip: str,
        started: float,
        ids: Ids,
        template: str,
    ) -> None:
        """`read_here` are those of `headers` that are in READ_HERE, `template` is the path's, for metrics: bounded;
        `started` is by time.perf_counter: the event loop's own clock is too coarse to measure with."""
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.read_here = read_here
        self.client_ip = client_ip
        self.started = started
        self.ids = ids
        self.template = template
        self.attempts: list[AttemptRecord] = []
        self.limit_headers: Headers = []

    @property
    def anthropic(self) -> bool:
        """Whether errors are told in Anthropic's shape."""
        return is_anthropic(self.path)

    def wait_begins(self) -> None:
        """From here on an upstream's time passes, not the gateway's."""
        self.waits_since = time.perf_counter()

    def wait_ends(self) -> None:
        """Again, it changes nothing."""
        if self.waits_since:
            self.waited += time.perf_counter() - self.waits_since
            self.waits_since = 0.0

    def header(self, name: bytes) -> list[bytes]:
        """All values of a header of READ_HERE, as they came."""
        values = []
        for key, value in self.read_here:  # no comprehension: it is a call of its own here
            if key == name:
                values.append(value)
        return values


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

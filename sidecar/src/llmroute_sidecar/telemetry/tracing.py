"""The spans of a call, and which calls have any.

A span is kept as values until it is exported (otlp.py); what its attributes say is `pipeline/trace.py`'s matter. Each
one goes to `export` when it ends, on its own: an attempt that a departed client leaves behind ends after its call.

Sampling is parent-based: what the caller's `traceparent` says holds. A call that begins a trace is sampled by its trace
id, as OpenTelemetry's TraceIdRatioBased does, so that all who know the id and the ratio decide alike.
"""

import random
import time
from collections.abc import Callable, Mapping

import msgspec

SERVER, CLIENT = 2, 3
"""Kinds of spans, by OTLP's numbers."""

AttributeValue = str | int | float | list[str]
Attributes = Mapping[str, AttributeValue]

_random_bits = random.Random().getrandbits  # noqa: S311 - seeded by the system; ids must differ, not be secret


class Span(msgspec.Struct, frozen=True):
    """A span that has ended. Times are nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str | None
    parent_is_remote: bool
    trace_flags: int
    name: str
    kind: int
    begin: int
    end: int
    attributes: Attributes
    failed: bool


class Parent(msgspec.Struct, frozen=True):
    """What a `traceparent` says: the gateway's own, with the caller's span where there was one."""

    trace_id: str
    span_id: str
    """The gateway's span for the call."""
    caller_id: str | None
    flags: int

    @property
    def sampled(self) -> bool:
        return bool(self.flags & 1)


class Tracer:
    """Begins traces. `ratio` is the share of those that begin here which are sampled."""

    def __init__(self, ratio: float, export: Callable[[Span], None]) -> None:
        self._below = round(ratio * 2**64)
        self._export = export

    def samples(self, trace_id: str) -> bool:
        """Whether a trace that begins here is sampled."""
        return int(trace_id[16:], 16) < self._below

    def begin(self, parent: Parent) -> "CallTrace":
        return CallTrace(parent, self._export)


class CallTrace:
    """The spans of one call, as it goes. Times within a call are by one clock, which nobody sets back."""

    __slots__ = ("_attempt", "_began", "_clock", "_export", "_parent")

    def __init__(self, parent: Parent, export: Callable[[Span], None]) -> None:
        self._parent = parent
        self._export = export
        self._began = time.time_ns()
        self._clock = time.perf_counter_ns()
        self._attempt: _Attempt | None = None

    @property
    def traceparent(self) -> str:
        """What is sent on: the attempt under way is the upstream's parent."""
        parent = self._parent
        span_id = parent.span_id if self._attempt is None else self._attempt.span_id
        return f"00-{parent.trace_id}-{span_id}-{parent.flags:02x}"

    def attempt_begins(self, name: str, attributes: Attributes) -> None:
        self._attempt = _Attempt(f"{_random_bits(64) or 1:016x}", name, self._now(), attributes)

    def into_attempt(self, clock: float) -> float:
        """Seconds from the attempt's begin to a time by time.perf_counter."""
        began = self._began if self._attempt is None else self._attempt.begin
        return clock - (began - self._began + self._clock) / 1e9

    def attempt_ends(self, attributes: Attributes, *, failed: bool) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            parent = self._parent
            self._export(
                Span(
                    parent.trace_id,
                    attempt.span_id,
                    parent.span_id,
                    False,
                    parent.flags,
                    attempt.name,
                    CLIENT,
                    attempt.begin,
                    self._now(),
                    {**attempt.attributes, **attributes},
                    failed,
                )
            )

    def ends(self, name: str, attributes: Attributes, *, failed: bool) -> None:
        """The call is over. An attempt of it may still be ending."""
        parent = self._parent
        self._export(
            Span(
                parent.trace_id,
                parent.span_id,
                parent.caller_id,
                parent.caller_id is not None,
                parent.flags,
                name,
                SERVER,
                self._began,
                self._now(),
                attributes,
                failed,
            )
        )

    def _now(self) -> int:
        return self._began + time.perf_counter_ns() - self._clock


class _Attempt(msgspec.Struct, frozen=True):
    span_id: str
    name: str
    begin: int
    attributes: Attributes

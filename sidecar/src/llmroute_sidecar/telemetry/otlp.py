"""The way of spans to a collector: OTLP over HTTP, in JSON (opentelemetry.io/docs/specs/otlp, "OTLP/HTTP").

Written here, on the connections that calls to upstreams use, instead of taking OpenTelemetry's SDK: that and its
exporter are 15 packages more, requests and protobuf among them, and 11 MiB of an idle gateway's 45; its thread would
take the interpreter from the event loop while it encodes. What is needed of it is one request in JSON.

A span waits in a bounded queue for a batch to be full or for the delay to be over; one task sends a batch at a time.
What the collector cannot take now (it is not there, 429, 502, 503, 504) stays in the queue and is sent again after
pauses that double; what it refuses is dropped. A span that finds the queue full is dropped, and every drop is counted.
No call ever waits for any of it.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.otlp_settings import OtlpSettings
from llmroute_sidecar.telemetry.tracing import AttributeValue, Span
from llmroute_sidecar.upstream.exchange import Caller, OutgoingRequest, UpstreamBroken

LONGEST_PAUSE = 60.0
ANSWER_MAX_BYTES = 64 * 1024
_TRY_AGAIN = frozenset({429, 502, 503, 504})
"""By the protocol's list; all else is the last word."""
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""In a span's flags, above the eight of W3C's: whether its parent is in another process."""
_ERROR = 2

logger = logging.getLogger("llmroute.otlp")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Taken:
    refused: int
    """How many of the batch the collector says that it did not take after all."""


@dataclass(frozen=True, slots=True)
class _Refused:
    why: str


@dataclass(frozen=True, slots=True)
class _Later:
    why: str


_Verdict = _Taken | _Refused | _Later


class Exporter:
    """Delivers spans through `caller`, whose requests go to the collector's host."""

    def __init__(
        self, caller: Caller, settings: OtlpSettings, version: str, metrics: Metrics, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._caller = caller
        self._settings = settings
        self._version = version
        self._metrics = metrics
        self._loop = loop
        self._headers = [
            (b"content-type", b"application/json"),
            (b"user-agent", f"llmroute/{version}".encode()),
            *((name.encode(), value.encode()) for name, value in settings.headers),
        ]
        self._queue: deque[Span] = deque()
        self._wake = asyncio.Event()
        self._failures = 0
        """How often in a row the collector was not there."""
        self._refusal: str | None = None
        """What it said last, where it is there and takes nothing."""
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._run())

    def add(self, span: Span) -> None:
        """Queues a span that has ended, or drops it."""
        if len(self._queue) >= self._settings.queue_max:
            self._dropped("queue_full", 1)
            return
        self._queue.append(span)
        if len(self._queue) >= self._settings.batch_max and not self._failures:
            self._wake.set()

    async def close(self, seconds: float) -> None:
        """Delivers what waits, within `seconds`."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._task
            except TimeoutError:  # the task is cancelled by then
                pass
        left = len(self._queue)
        if left:
            self._dropped("shutdown", left)
            logger.warning("the last spans were not delivered", extra={"fields": {"spans": left}})
        self._caller.close()

    async def _run(self) -> None:
        while True:
            if not self._closing:
                await self._rest()
            try:
                await self._deliver()
            except Exception:  # a fault of ours must neither end all tracing nor come again with the same spans
                logger.exception("exporting spans failed")
                self._drop_batch("fault", min(len(self._queue), self._settings.batch_max))
            if self._closing and (self._failures or not self._queue):
                return

    async def _rest(self) -> None:
        """Until a batch is full, the delay is over, or the end has come."""
        pause = min(self._settings.delay * 2**self._failures, max(LONGEST_PAUSE, self._settings.delay))
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _deliver(self) -> None:
        """Sends what is in the queue, batch by batch, until it is empty or the collector will have no more."""
        while self._queue:
            batch = list(itertools.islice(self._queue, self._settings.batch_max))
            verdict = await self._send(export_request(batch, self._settings.resource, self._version))
            if isinstance(verdict, _Later):
                if not self._failures:
                    logger.warning("spans are not delivered; they wait", extra={"fields": {"reason": verdict.why}})
                self._failures += 1
                if not self._closing:
                    self._wake.clear()  # full batches wait, too, while the collector is away
                return
            if isinstance(verdict, _Refused):
                self._failures = 0
                self._drop_batch("refused", len(batch))
                if self._refusal != verdict.why:  # told once: the metric counts on
                    self._refusal = verdict.why
                    logger.warning("the collector refuses spans", extra={"fields": {"reason": verdict.why}})
                continue
            if self._failures or self._refusal:
                self._failures, self._refusal = 0, None
                logger.info("spans are delivered again")
            for _ in batch:
                self._queue.popleft()
            refused = min(verdict.refused, len(batch))
            self._metrics.spans_exported.add((), len(batch) - refused)
            if refused:
                self._dropped("refused", refused)

    async def _send(self, body: bytes) -> _Verdict:
        deadline = self._loop.time() + self._settings.timeout
        request = OutgoingRequest(self._settings.path, self._headers, body, "", False)
        try:
            return await self._post(request, deadline, fresh=False)
        except UpstreamBroken as broken:
            if not broken.unanswered:
                return _Later(broken.reason)
        try:  # a kept connection had died unseen
            return await self._post(request, deadline, fresh=True)
        except UpstreamBroken as broken:
            return _Later(broken.reason)

    async def _post(self, request: OutgoingRequest, deadline: float, *, fresh: bool) -> _Verdict:
        exchange = await self._caller.open(request, deadline, fresh=fresh)
        try:
            while not exchange.complete and len(exchange.buffer) <= ANSWER_MAX_BYTES:
                await exchange.advance(deadline, "request_timeout")
            verdict = _judge(exchange.status, bytes(exchange.buffer))
        except BaseException:
            exchange.abort()
            raise
        if exchange.complete:
            exchange.release()
        else:
            exchange.abort()
        return verdict

    def _drop_batch(self, reason: str, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()
        self._dropped(reason, count)

    def _dropped(self, reason: str, count: int) -> None:
        self._metrics.spans_dropped.add((reason,), count)


class _PartialSuccess(msgspec.Struct, rename="camel"):
    rejected_spans: int | str = 0


class _Answer(msgspec.Struct, rename="camel"):
    partial_success: _PartialSuccess | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def _judge(status: int, body: bytes) -> _Verdict:
    if status in _TRY_AGAIN:
        return _Later(f"status {status}")
    if not 200 <= status < 300:
        return _Refused(f"status {status}")
    try:
        partial = _decode_answer(body).partial_success
        return _Taken(int(partial.rejected_spans) if partial else 0)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return _Taken(0)  # an answer that need not be in JSON


def export_request(spans: Sequence[Span], resource: Mapping[str, str], version: str) -> bytes:
    """An ExportTraceServiceRequest."""
    return _encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeSpans": [
                        {"scope": {"name": "llmroute", "version": version}, "spans": [_span(span) for span in spans]}
                    ],
                }
            ]
        }
    )


def _span(span: Span) -> dict[str, object]:
    """In protobuf's JSON, but for the ids, which OTLP has in hexadecimal. 64-bit numbers are texts there."""
    told: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "flags": span.trace_flags | _HAS_IS_REMOTE | (_IS_REMOTE if span.parent_is_remote else 0),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.begin),
        "endTimeUnixNano": str(span.end),
        "attributes": _attributes(span.attributes),
    }
    if span.parent_id is not None:
        told["parentSpanId"] = span.parent_id
    if span.failed:
        told["status"] = {"code": _ERROR}
    return told


def _attributes(attributes: Mapping[str, AttributeValue]) -> list[dict[str, object]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: AttributeValue) -> dict[str, object]:
    match value:
        case str():
            return {"stringValue": value}
        case bool():  # which is an int, too
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(one) for one in value]}}

"""An OTLP collector of the tests' own: a real HTTP server that takes spans in JSON and keeps them, decoded."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.provider import Behaviour, Provider, ProviderRequest, providing, response
from tests.waiting import wait_until

SERVER, CLIENT = 2, 3
REMOTE, LOCAL = 0x300, 0x100


@dataclass(frozen=True)
class CollectedSpan:
    trace_id: str
    span_id: str
    parent_id: str | None
    flags: int
    name: str
    kind: int
    begin: int
    end: int
    attributes: dict[str, Any]
    failed: bool
    resource: dict[str, Any]


@dataclass
class Collector:
    provider: Provider
    spans: list[CollectedSpan] = field(default_factory=list)
    """Those that were taken."""

    @property
    def url(self) -> str:
        return self.provider.url

    @property
    def requests(self) -> list[ProviderRequest]:
        return self.provider.requests

    def trace(self, trace_id: str, count: int) -> list[CollectedSpan]:
        """The spans of one trace in the order of their beginnings, once there are `count`."""

        def found() -> list[CollectedSpan]:
            spans = [span for span in self.spans if span.trace_id == trace_id]
            return spans if len(spans) >= count else []

        spans = wait_until(found, f"{count} spans of the trace {trace_id}")
        assert len(spans) == count, spans
        return sorted(spans, key=lambda span: (span.begin, span.kind))


@contextmanager
def collecting(behaviour: Behaviour | None = None) -> Iterator[Collector]:
    """A collector on a free port. `behaviour` answers in its stead, and it keeps nothing then."""

    async def takes(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if behaviour is not None:
            await behaviour(request, writer)
            return
        assert request.path == "/v1/traces"
        assert request.headers["content-type"] == "application/json"
        collector.spans += spans_of(request.json)
        writer.write(response(200, b'{"partialSuccess":{}}'))

    with providing(takes) as provider:
        collector = Collector(provider)
        yield collector


def spans_of(document: dict[str, Any]) -> list[CollectedSpan]:
    return [
        CollectedSpan(
            span["traceId"],
            span["spanId"],
            span.get("parentSpanId"),
            span["flags"],
            span["name"],
            span["kind"],
            int(span["startTimeUnixNano"]),
            int(span["endTimeUnixNano"]),
            attributes_of(span["attributes"]),
            span.get("status", {}).get("code") == 2,
            attributes_of(of_resource["resource"]["attributes"]),
        )
        for of_resource in document["resourceSpans"]
        for of_scope in of_resource["scopeSpans"]
        for span in of_scope["spans"]
    ]


def attributes_of(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: dict[str, Any]) -> Any:
    ((kind, told),) = value.items()
    match kind:
        case "intValue":
            assert isinstance(told, str), "64-bit numbers are texts in protobuf's JSON"
            return int(told)
        case "arrayValue":
            return [_value(one) for one in told["values"]]
        case "stringValue" | "doubleValue" | "boolValue":
            return told
        case _:
            raise AssertionError(json.dumps(value))

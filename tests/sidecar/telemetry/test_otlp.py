"""The exporter between a queue and a collector that does not play along, on a loop of the test's own."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.otlp import Exporter, export_request
from llmroute_sidecar.telemetry.otlp_settings import OtlpSettings
from llmroute_sidecar.telemetry.tracing import Attributes, CallTrace, Parent, Span, Tracer
from llmroute_sidecar.upstream.exchange import Exchange, OutgoingRequest
from tests.sidecar.collector import spans_of


def span(name: str = "call", attributes: Attributes | None = None) -> Span:
    return Span("a" * 32, "b" * 16, None, False, 1, name, 2, 1, 2, attributes or {}, False)


class FaultyOnce:
    """A caller (`Caller` in exchange.py) with a fault of its own at first, which no collector could bring about."""

    open_connections = 0

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def open(self, request: OutgoingRequest, deadline: float, *, fresh: bool = False) -> Exchange:
        self.bodies.append(request.body)
        if len(self.bodies) == 1:
            raise RuntimeError("a fault of ours")
        return Taken()

    def close(self) -> None: ...


class Taken:
    """An answered exchange: 200, without a body."""

    status = 200
    headers: list[tuple[bytes, bytes]] = []  # noqa: RUF012
    buffer = bytearray()
    complete = True

    async def advance(self, deadline: float, reason: Any) -> None: ...

    async def relay(self, sink: Any, idle: float, deadline: float) -> None: ...

    def release(self) -> None: ...

    def abort(self) -> None: ...


def test_a_fault_costs_its_batch_and_no_more() -> None:
    metrics = Metrics("test")
    caller = FaultyOnce()

    async def main() -> None:
        settings = OtlpSettings(parse_upstream_url("http://c:4318/"), "/v1/traces", delay=3600, batch_max=2)
        exporter = Exporter(caller, settings, "1", metrics, asyncio.get_running_loop())
        exporter.start()
        for name in "abcd":
            exporter.add(span(name))
        while len(caller.bodies) < 1:
            await asyncio.sleep(0)
        await exporter.close(30)

    asyncio.run(main())
    batches = [[each.name for each in spans_of(json.loads(body))] for body in caller.bodies]
    assert batches[0] == ["a", "b"]
    text = metrics.exposition().decode()
    assert 'llmroute_spans_dropped_total{reason="fault"} 2.0' in text
    assert "llmroute_spans_exported_total 2.0" in text


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.one_of(
            st.text(max_size=20),
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.lists(st.text(max_size=5), max_size=3),
        ),
        max_size=5,
    )
)
def test_attributes_come_out_of_the_json_as_they_went_in(attributes: dict[str, Any]) -> None:
    document = json.loads(export_request([span(attributes=attributes)], {"service.name": "x"}, "1"))
    (decoded,) = spans_of(document)
    assert decoded.attributes == attributes
    assert {name: type(value) for name, value in decoded.attributes.items()} == {
        name: type(value) for name, value in attributes.items()
    }


@given(st.floats(0, 1), st.integers(1, 2**128 - 1))
def test_a_higher_ratio_samples_all_that_a_lower_one_does(ratio: float, number: int) -> None:
    trace_id = f"{number:032x}"
    if Tracer(ratio / 2, print).samples(trace_id):
        assert Tracer(ratio, print).samples(trace_id)
    assert not Tracer(0, print).samples(trace_id)
    assert Tracer(1, print).samples(trace_id)


def test_an_attempt_may_end_after_its_call() -> None:
    told: list[Span] = []
    trace = CallTrace(Parent("a" * 32, "b" * 16, "c" * 16, 1), told.append)
    trace.attempt_begins("attempt", {"n": 1})
    sent = trace.traceparent
    trace.ends("call", {}, failed=False)
    trace.attempt_ends({"error.type": "client_left"}, failed=True)
    trace.attempt_ends({}, failed=False)  # again: nothing is left to end
    call, attempt = told
    assert (call.parent_id, call.parent_is_remote) == ("c" * 16, True)
    assert attempt.parent_id == call.span_id
    assert sent == f"00-{'a' * 32}-{attempt.span_id}-01"
    assert trace.traceparent == f"00-{'a' * 32}-{'b' * 16}-01"
    assert attempt.attributes == {"n": 1, "error.type": "client_left"}

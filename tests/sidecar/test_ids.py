"""Ids of a request: taken over where they are sane and stand once, made otherwise; never what a header could inject."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.pipeline.call import take_over_ids
from llmroute_sidecar.upstream.exchange import Headers

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-00".encode()
VALUES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([PARENT, TRACE.encode(), b"0" * 32, b"an-id", b"a\r\nx: y", b"", b"ff" + PARENT[2:]]),
)
HEADERS = st.lists(st.tuples(st.sampled_from([b"x-request-id", b"x-trace-id", b"traceparent"]), VALUES), max_size=4)


@given(HEADERS)
def test_whatever_comes_the_ids_are_fit_for_a_header(headers: Headers) -> None:
    ids = take_over_ids(headers)
    for one in (ids.request_id, ids.trace_id):
        assert re.fullmatch(r"[A-Za-z0-9._:/+=@-]{1,128}", one)
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", ids.traceparent)
    if re.fullmatch(r"(?!0{32})[0-9a-f]{32}", ids.trace_id):
        assert ids.traceparent[3:35] == ids.trace_id


@pytest.mark.parametrize(
    ("headers", "request_id", "trace_id"),
    [
        ([(b"x-request-id", b"r-1")], "r-1", None),
        ([(b"x-request-id", b"r-1"), (b"x-request-id", b"r-1")], None, None),
        ([(b"x-trace-id", b"t-1")], None, "t-1"),
        ([(b"x-trace-id", b"t-1"), (b"traceparent", PARENT)], None, TRACE),
        ([(b"x-trace-id", b"t-1"), (b"traceparent", b"00-" + b"0" * 32 + PARENT[35:])], None, "t-1"),
        ([(b"traceparent", PARENT), (b"traceparent", PARENT)], None, None),
    ],
)
def test_which_ids_are_taken_over(headers: Headers, request_id: str | None, trace_id: str | None) -> None:
    ids = take_over_ids(headers)
    if request_id is None:
        assert re.fullmatch(r"[0-9a-f]{32}", ids.request_id)
    else:
        assert ids.request_id == request_id
    if trace_id is None:
        assert re.fullmatch(r"[0-9a-f]{32}", ids.trace_id)
    else:
        assert ids.trace_id == trace_id
    if trace_id == TRACE:
        assert ids.traceparent.endswith("-00")  # not sampled stays not sampled


def test_the_callers_span_is_known_as_the_parent_of_the_gateways_own() -> None:
    ids = take_over_ids([(b"traceparent", PARENT)])
    assert ids.caller_span == "00f067aa0ba902b7"
    assert ids.traceparent[36:52] != ids.caller_span
    assert take_over_ids([(b"x-trace-id", TRACE.encode())]).caller_span is None


def test_no_two_requests_have_the_same_ids() -> None:
    ids = [take_over_ids([]) for _ in range(10_000)]
    assert len({one.request_id for one in ids}) == len({one.traceparent for one in ids}) == len(ids)

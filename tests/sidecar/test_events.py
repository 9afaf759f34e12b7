"""Event streams: where content begins, and that what is handed on is whole events."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.pipeline.events import (
    END_PIECE_BYTES,
    END_PIECES,
    SCAN_MAX_BYTES,
    Beginning,
    BeginningScan,
    WholeEvents,
)

ROLE = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"role":"assistant","content":""}}]}'
WORD = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"hello"}}]}'
TOOL = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"tool_calls":[{"index":0}]}}]}'
STOP = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("event", "verdict"),
    [
        (b": ping", Beginning.WAIT),
        (b"event: ping\ndata: {}", Beginning.WAIT),
        (b"retry: 1000", Beginning.WAIT),
        (ROLE, Beginning.WAIT),
        (b'data: {"choices":[],"object":"","prompt_filter_results":[]}', Beginning.WAIT),
        (b'event: message_start\ndata: {"type":"message_start","message":{}}', Beginning.WAIT),
        (b'event: response.created\ndata: {"type":"response.created","response":{"error":null}}', Beginning.WAIT),
        (WORD, Beginning.CONTENT),
        (TOOL, Beginning.CONTENT),
        (STOP, Beginning.CONTENT),
        (b"data: [DONE]", Beginning.CONTENT),
        (b"data: not JSON at all", Beginning.CONTENT),
        (b'event: content_block_delta\ndata: {"type":"content_block_delta"}', Beginning.CONTENT),
        (b'data: {"error":{"message":"overloaded"}}', Beginning.ERROR),
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}', Beginning.ERROR),
        (b'data: {"type":"response.failed","response":{}}', Beginning.ERROR),
    ],
)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"])
def test_what_an_event_says_about_the_beginning(event: bytes, verdict: Beginning, end: bytes) -> None:
    event = event.replace(b"\n", b"\r\n" if end.startswith(b"\r\n") else end[:1])
    assert BeginningScan().look(bytearray(event)) is Beginning.WAIT  # not whole yet
    assert BeginningScan().look(bytearray(event + end)) is verdict
    assert BeginningScan().look(bytearray(b": ping" + end + event + end)) is verdict
    assert BeginningScan().look(bytearray(b"\xef\xbb\xbf" + event + end)) is verdict


def test_a_stream_that_opens_with_very_much_is_taken_to_have_begun() -> None:
    scan = BeginningScan()
    assert scan.look(bytearray(b"data: " + b"x" * 1000)) is Beginning.WAIT
    assert scan.look(bytearray(b"data: " + b"x" * SCAN_MAX_BYTES)) is Beginning.CONTENT


class Collected:
    """A sink that keeps what it is given."""

    paused = False

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        raise NotImplementedError


EVENTS = st.lists(st.sampled_from([ROLE, WORD, STOP, b": ping", b"event: x\ndata: 1", b"data: [DONE]"]), max_size=8)


@given(EVENTS, st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_however_a_stream_is_cut_whole_events_come_out(
    events: list[bytes], line_end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(event.replace(b"\n", line_end) + line_end * 2 for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    sink = Collected()
    whole = WholeEvents(sink)
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        whole.write(stream[start:stop])
        out = b"".join(sink.pieces)
        assert stream.startswith(out)
        assert whole.between
        # What went out ends with an event, or with a line of a comment, to which an error event may be added.
        last = out.rstrip(b"\r\n").rpartition(b"\n")[2]
        assert not out or out.endswith(line_end * 2) or last.startswith(b":")
        assert out.count(line_end * 2) == stream[:stop].count(line_end * 2) or last.startswith(b":")
    whole.flush()
    assert b"".join(sink.pieces) == stream


def test_what_comes_whole_goes_on_as_it_is() -> None:
    sink = Collected()
    whole = WholeEvents(sink)
    piece = WORD + b"\n\n" + STOP + b"\n\n"
    whole.write(piece)
    assert sink.pieces[0] is piece


def test_a_comment_that_keeps_the_connection_alive_is_not_held_back() -> None:
    sink = Collected()
    whole = WholeEvents(sink)
    whole.write(b":\n")
    assert sink.pieces == [b":\n"]
    assert whole.between
    whole.write(WORD + b"\n\n: one\n: two\r\n")
    assert sink.pieces[1:] == [WORD + b"\n\n", b": one\n: two\r\n"]


def test_a_comment_takes_no_part_of_an_event_along() -> None:
    """An error event that follows would become part of it."""
    sink = Collected()
    whole = WholeEvents(sink)
    whole.write(b": comment\n" + WORD + b"\n")
    assert sink.pieces == []
    whole.write(b"\n")
    assert sink.pieces == [b": comment\n" + WORD + b"\n\n"]


def test_an_event_larger_than_is_held_back_goes_on_in_pieces() -> None:
    sink = Collected()
    whole = WholeEvents(sink)
    piece = b"data: " + b"x" * SCAN_MAX_BYTES
    between = []
    for part in (piece, b"more", b"rest\n\n" + WORD):
        whole.write(part)
        between.append(whole.between)
    assert between == [False, False, True]  # False: nothing may be added to it
    whole.flush()
    assert sink.pieces == [piece, b"more", b"rest\n\n", WORD]


def test_the_end_of_a_stream_is_held_on_to_though_each_line_comes_by_itself() -> None:
    """Anthropic tells the usage in the last event but one; a server may send each line in a piece of its own."""
    events = WholeEvents(Collected())
    for piece in (b"event: message_delta\n", b'data: {"usage": 3}\n', b"\n", b"event: message_stop\n", b"data: {}\n\n"):
        events.write(piece)
    assert b'"usage"' in events.end
    for _ in range(10):
        events.write(b"data: " + b"x" * 100_000 + b"\n\n")
    assert len(events.end) <= END_PIECES * END_PIECE_BYTES

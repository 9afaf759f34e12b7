"""What is read of an answer's usage, in every shape and however it is cut into pieces; what the client gets of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.pipeline import usage as reading_usage
from llmroute_sidecar.pipeline.events import WholeEvents
from llmroute_sidecar.pipeline.usage import EVENT_MAX_BYTES, Pieces, Reading, StreamReader, TailReader, Usage


def event(document: Any, name: str = "") -> bytes:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def text_chunk(text: str, usage: Any = None) -> bytes:
    document = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return event(document if usage is None else {**document, "usage": usage})


def told(output: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": output}


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}
USAGE_CHUNK = event({"object": "chat.completion.chunk", "choices": [], "usage": USAGE})
DONE = event(b"[DONE]")
CHAT = [text_chunk("one "), text_chunk("two "), text_chunk("three"), USAGE_CHUNK, DONE]
RESPONSES = [
    event({"type": "response.created", "response": {"usage": None}}, "response.created"),
    event({"type": "response.output_text.delta", "delta": "one two"}, "response.output_text.delta"),
    event({"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 3}}}),
]
MESSAGES = [
    event({"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}}, "message_start"),
    event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "one two"}}, "content_block_delta"),
    event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
    event({"type": "message_stop"}, "message_stop"),
]


def read(stream: bytes, cuts: list[int] | None = None, *, hide: bool = False) -> tuple[Reading, bytes]:
    """`stream` in pieces that end at `cuts`, through both sinks as the gateway has them."""
    reading, pieces = Reading(), Pieces()
    reader = StreamReader(pieces, reading, hide=hide)
    whole = WholeEvents(reader)
    for begin, end in zip([0, *(cuts or [])], [*(cuts or []), len(stream)], strict=True):
        if end > begin:
            whole.write(stream[begin:end])
    whole.flush()
    reader.done()
    return reading, b"".join(pieces.written)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (CHAT, Usage(7, 3, False)),
        (RESPONSES, Usage(7, 3, False)),
        (MESSAGES, Usage(4, 3, False)),
        ([text_chunk("a"), event({"choices": [{"delta": {}}], "usage": USAGE}), DONE], Usage(7, 3, False)),
        ([event({"choices": [{"text": "one two three four"}]})], Usage(100, 4, True)),
        ([event({"choices": [{"delta": {"content": "grüße, grüße, grüße"}}]})], Usage(100, 6, True)),
        ([text_chunk("a"), text_chunk("b"), text_chunk("c")], Usage(100, 3, True)),
        (MESSAGES[:2], Usage(4, 1, True)),  # cut: the prompt is known, the answer is not
        (RESPONSES[:2], Usage(100, 1, True)),
        (
            [event({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "x" * 40}}]}}]})],
            Usage(100, 10, True),
        ),
        ([event({"delta": {"type": "input_json_delta", "partial_json": "x" * 40}})], Usage(100, 10, True)),
        ([event({"choices": [{"delta": {"content": [1]}}]}), USAGE_CHUNK], Usage(7, 3, False)),  # a form of its own
        ([event({"choices": "?", "usage": USAGE})], Usage(100, 0, True)),
        ([event(b"{"), event(b"junk"), USAGE_CHUNK], Usage(7, 3, False)),
        ([event({"choices": [], "usage": {"prompt_tokens": -1}}), text_chunk("a")], Usage(100, 1, True)),
        ([b": comment\n\n", b"data:\n\n", *CHAT], Usage(7, 3, False)),
        ([USAGE_CHUNK.replace(b"\n\n", b"\r\n\r\n")], Usage(7, 3, False)),
        ([USAGE_CHUNK.rstrip(b"\n")], Usage(7, 3, False)),  # the last event without its end
        ([], Usage(100, 0, True)),
        # A usage that makes no sense costs nothing of what was delivered.
        (
            [text_chunk("a", usage) for usage in ({"prompt_tokens": -1}, {"completion_tokens": "3"}, [1], 1e308)],
            Usage(100, 4, True),
        ),
        ([text_chunk("a", {"prompt_tokens": 7.0, "completion_tokens": 3.0})], Usage(7, 3, False)),
        # The total so far, in each chunk: with the stream's end the last one is that of all.
        ([text_chunk("a", told(1)), text_chunk("a", told(2)), DONE], Usage(7, 2, False)),
        ([text_chunk("a", told(0)), text_chunk("a"), text_chunk("a"), DONE], Usage(7, 3, True)),
    ],
)
def test_a_stream_tells_its_usage_or_it_is_estimated(stream: list[bytes], expected: Usage) -> None:
    reading, sent = read(b"".join(stream))
    assert reading.usage(100) == expected
    assert sent == b"".join(stream)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"choices": [], "usage": USAGE}, Usage(7, 3, False)),
        ({"usage": {"input_tokens": 7, "output_tokens": 3}}, Usage(7, 3, False)),
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, Usage(7, 0, False)),  # embeddings
        ({"usage": {"total_tokens": 9}}, Usage(9, 0, False)),  # rerank, at some
        ({"usage": {"prompt_tokens": 7, "total_tokens": 10}}, Usage(7, 3, False)),
        ({"usage": {"completion_tokens": 3, "total_tokens": 10}}, Usage(7, 3, False)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 10}}, Usage(7, 3, False)),  # xAI
        ({"usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 1}}, Usage(7, 3, False)),
        (
            {"usage": {"input_tokens": 4, "output_tokens": 3, "cache_read_input_tokens": 2}},
            Usage(6, 3, False),
        ),
        ({"usage": None, "text": "x" * 80}, Usage(100, 26, True)),
        ({"usage": "much", "text": "x" * 80}, Usage(100, 27, True)),
        ({"usage": {}, "text": "x" * 80}, Usage(100, 26, True)),
        ({"usage": {"prompt_tokens": 7}, "text": "x" * 80}, Usage(7, 30, True)),
    ],
)
def test_a_plain_answer_tells_its_usage_or_it_is_estimated(answer: Any, expected: Usage) -> None:
    reading = Reading()
    reading.answer(json.dumps(answer).encode(), text=True)
    assert reading.usage(100) == expected


def test_an_answer_that_is_no_text_is_not_estimated_by_its_size() -> None:
    reading = Reading()
    reading.answer(b"x" * 100_000, text=False)
    assert reading.usage(100) == Usage(100, 0, True)


@given(st.sampled_from([CHAT, RESPONSES, MESSAGES]), st.lists(st.integers(0, 2000), max_size=12), st.booleans())
def test_however_it_is_cut_the_bytes_and_the_usage_are_the_same(
    stream: list[bytes], cuts: list[int], hide: bool
) -> None:
    whole = b"".join(stream)
    reading, sent = read(whole, sorted(min(cut, len(whole)) for cut in cuts), hide=hide)
    assert reading.usage(100) == read(whole)[0].usage(100)
    assert sent == (whole.replace(USAGE_CHUNK, b"") if hide else whole)


@pytest.mark.parametrize(
    "kept",
    [
        event({"choices": [], "prompt_filter_results": [{}]}),  # Azure's first event
        event({"choices": [], "usage": None}),
        event({"choices": [{"delta": {"content": '"usage": {}'}}], "usage": None}),
        event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE}),  # DeepSeek's last one
        event({"type": "ping"}),
        b': "usage"\n\n',
    ],
)
def test_only_the_extra_chunk_is_kept_back(kept: bytes) -> None:
    _, sent = read(text_chunk("a") + kept + USAGE_CHUNK + DONE, hide=True)
    assert sent == text_chunk("a") + kept + DONE


def test_a_large_event_goes_on_in_parts_and_is_read_up_to_the_bound() -> None:
    filling = "x" * (EVENT_MAX_BYTES // 2)
    large = event({"type": "response.completed", "text": filling, "response": {"usage": {"output_tokens": 3}}})
    reading, sent = read(large + DONE, list(range(0, len(large), 1000)))
    assert reading.usage(100) == Usage(100, 3, True)
    assert sent == large + DONE


def test_an_event_above_the_bound_costs_its_usage_and_not_the_stream() -> None:
    filling = "x" * EVENT_MAX_BYTES
    large = event({"type": "response.completed", "text": filling, "response": {"usage": USAGE}})
    held: list[int] = []
    reading, pieces = Reading(), Pieces()
    reader = StreamReader(pieces, reading, hide=True)
    stream = large + USAGE_CHUNK.replace(b"7", b"9") + DONE
    for begin in range(0, len(stream), 4096):
        reader.write(stream[begin : begin + 4096])
        held.append(len(reader._part or b""))
    reader.done()
    assert max(held) <= EVENT_MAX_BYTES + 1
    assert b"".join(pieces.written).startswith(large)
    assert reading.usage(100).output == 3  # of the chunk after it
    assert reading.usage(100).input in (7, 9)


def test_of_a_large_plain_answer_the_end_is_read() -> None:
    vectors = ("[0.1, 0.2]," * 300_000).encode()
    reading, pieces = Reading(), Pieces()
    reader = TailReader(pieces, reading, text=False)
    body = b'{"usage": {"prompt_tokens": 1}, "data": [' + vectors + b'0], "usage": ' + json.dumps(USAGE).encode() + b"}"
    for begin in range(0, len(body), 10_000):
        reader.write(body[begin : begin + 10_000])
        assert len(reader._kept) <= 2 * reading_usage.TAIL_BYTES + 10_000
    reader.done()
    assert reading.usage(100) == Usage(7, 3, False)
    assert b"".join(pieces.written) == body


@pytest.mark.parametrize("tail", [b"", b'{"usage": 7}', b'"usage": {"prompt_tokens": "x"}', b'{"x": "usage", "y": {}}'])
def test_a_tail_without_usage_is_estimated(tail: bytes) -> None:
    reading = Reading()
    reading.tail(tail, 400, text=True)
    assert reading.usage(100) == Usage(100, 100, True)


@given(st.binary(max_size=200))
def test_no_bytes_can_break_the_reading(junk: bytes) -> None:
    for data in (junk, b"data: " + junk + b"\n\n", b'data: {"usage": ' + junk + b"}\n\n"):
        assert read(data)[1] == data
        read(data, hide=True)
    Reading().answer(junk, text=True)
    Reading().tail(junk, 1, text=True)


def test_a_total_so_far_is_not_that_of_a_stream_that_broke_off() -> None:
    reading = Reading()
    reader = StreamReader(Pieces(), reading, hide=False)
    reader.write(text_chunk("one", told(0)))
    reader.write(text_chunk("two", told(1)))
    assert reading.usage(100) == Usage(7, 2, True)
    reader.done()
    assert reading.usage(100) == Usage(7, 1, False)

"""What is told of tokens where no limit asks for them: as much as an answer's end says, and nothing made up."""

import json
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.pipeline.events import WholeEvents
from llmroute_sidecar.pipeline.glimpse import priced, usage_told
from llmroute_sidecar.pipeline.usage import Pieces, Usage
from llmroute_sidecar.policy.prices import NO_PRICES, Price, PriceList
from tests.provider import completion

CHAT = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}}
RESPONSES = {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 3, "total_tokens": 10}
CHUNK = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "x"}}], "usage": None}


def sse(*events: Mapping[str, object]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


STREAM_OF_CHAT = sse(CHUNK, CHUNK, {**CHUNK, "choices": [], "usage": CHAT}) + b"data: [DONE]\n\n"
STREAM_OF_A_MESSAGE = sse(
    {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 2}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)
STREAM_OF_A_RESPONSE = sse(
    {"type": "response.created", "response": {"usage": None}},
    {"type": "response.output_text.delta", "delta": "x"},
    {"type": "response.completed", "response": {"output": [], "usage": RESPONSES, "user": None}},
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (completion(), (1, 1)),
        (json.dumps({"choices": [], "usage": CHAT}).encode(), (7, 3)),
        (json.dumps({"output": [], "usage": RESPONSES, "metadata": {}}).encode(), (7, 3)),
        (json.dumps({"content": [], "usage": {"input_tokens": 7, "output_tokens": 3}}).encode(), (7, 3)),
        (json.dumps({"data": [[0.5] * 9000], "usage": {"prompt_tokens": 7, "total_tokens": 7}}).encode(), (7, 0)),
        (STREAM_OF_CHAT, (7, 3)),
        (STREAM_OF_A_MESSAGE, (7, 3)),
        (STREAM_OF_A_RESPONSE, (7, 3)),
        # What a model wrote stands in quotes.
        (json.dumps({"usage": CHAT, "choices": [{"text": '{"usage":{"prompt_tokens":9}}'}]}).encode(), (7, 3)),
        (sse(CHUNK, CHUNK) + b"data: [DONE]\n\n", None),
        (b"", None),
        (b'{"usage":null}', None),
        (b'{"usage":{"prompt_tokens":1', None),
        (b'{"usage":{"prompt_tokens":"1"}}', None),
        (b'{"usage":{"prompt_tokens":-1,"completion_tokens":1}}', None),
        (b'{"usage":{"output_tokens":1}}', None),
        (b'{"usage":{}}', None),
        (b"\xff\xfe", None),
    ],
)
def test_what_an_answer_says(answer: bytes, expected: tuple[int, int] | None) -> None:
    found = usage_told(answer, answer)
    assert (None if found is None else (found.input, found.output)) == expected
    assert found is None or not found.estimated


@given(
    st.sampled_from([STREAM_OF_CHAT, STREAM_OF_A_MESSAGE, STREAM_OF_A_RESPONSE]),
    st.lists(st.integers(0, 700), max_size=8),
)
def test_however_a_stream_comes_what_is_told_is_right_or_not_told(stream: bytes, cuts: list[int]) -> None:
    events = WholeEvents(sink := Pieces())
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[begin:end] for begin, end in pairwise(edges)]
    for piece in pieces:
        events.write(piece)
    events.flush()
    assert b"".join(sink.written) == stream
    found = usage_told(events.end, stream)
    assert found in (None, Usage(7, 3, estimated=False))
    if len(pieces) <= 2:
        assert found is not None


@given(st.binary(max_size=200), st.sampled_from([b"", b'"usage":', b'"usage":{"prompt_tokens":', b'"usage":{"a":{}']))
def test_whatever_comes_nothing_breaks(noise: bytes, start: bytes) -> None:
    usage_told(start + noise, noise + start)


def test_what_it_cost_is_told_where_the_price_is_known() -> None:
    usage = Usage(7, 3, estimated=False)
    prices = PriceList({"gpt*": Price(2, 10)})
    assert priced(usage, prices, "gpt-4o") == Usage(7, 3, estimated=False, cost=44)
    assert priced(usage, prices, "llama") == usage
    assert priced(usage, NO_PRICES, "gpt-4o") == usage
    assert priced(None, prices, "gpt-4o") is None


def test_the_pattern_needs_no_more_time_than_the_text_is_long() -> None:
    # Nested quantifiers that fail are what takes regular expressions exponential time; here each brace has one reading.
    assert usage_told(b'"usage":{' + b"{}" * 8000, b"") is None

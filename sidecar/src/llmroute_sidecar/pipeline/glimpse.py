"""What an answer says it used, where no limit asks for it: metrics, log and spans tell of tokens all the same, as long
as knowing costs next to nothing. Sans-IO.

The meter of a limited call (metering.py) reads an answer as it goes, asks for what would not be told, and estimates.
Here only the end is looked at, once it has come: there the usage stands, after all content, in every provider's order.
Of a stream its last few pieces are held on to, and its beginning, where Anthropic's tell the input. What does not stand
there is not known.
"""

import re

import msgspec

from llmroute_sidecar.pipeline.counts import input_of, output_of
from llmroute_sidecar.pipeline.usage import Counts, Usage
from llmroute_sidecar.policy.prices import PriceList

END_BYTES = 16 * 1024
BEGINNING_BYTES = 4 * 1024
_USAGE = b'"usage"'
_OBJECT = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_decode = msgspec.json.Decoder(Counts).decode


def usage_told(end: bytes, beginning: bytes) -> Usage | None:
    """What an answer says it used; `end` and `beginning` may be all of it."""
    counts = _counts(end, end.rfind(_USAGE, max(0, len(end) - END_BYTES)))
    output = None if counts is None else output_of(counts)
    if counts is None or output is None:
        return None
    given = input_of(counts)
    if given is None:
        before = _counts(beginning, beginning.find(_USAGE, 0, BEGINNING_BYTES))
        given = None if before is None else input_of(before)
    return None if given is None else Usage(given, output, estimated=False)


def _counts(text: bytes, at: int) -> Counts | None:
    found = None if at < 0 else _OBJECT.match(text, at)
    if found is None:
        return None
    try:
        return _decode(found[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def priced(usage: Usage | None, prices: PriceList, model: str) -> Usage | None:
    """With what it cost, where that is known; `model` as its upstream calls it."""
    price = None if usage is None else prices.find(model)
    if usage is None or price is None:
        return usage
    return Usage(usage.input, usage.output, usage.estimated, price.cost(usage.input, usage.output))

"""What an answer says it used, in the shapes of OpenAI and Anthropic, plain and streamed; and what it came to where it
does not say. Sans-IO.

A stream goes on first and is read after, from what went on: an event that cannot be read costs its usage, not the
stream. Nothing is kept of it but numbers and, of an event that comes in parts, a copy up to EVENT_MAX_BYTES. The one
thing that is held back is the extra chunk that tells the usage, where the gateway has asked for it in the client's
stead (`Asked`).

Usage stands in `usage` (chat, completions, embeddings, responses, messages), in `response.usage` of the event that
ends a response, in `message.usage` and `usage` of the events that begin and end a message. What Anthropic counts
apart as read from or written to its cache is input too. Of several the last one has the word: they are running totals.
"""

import re
from collections.abc import Callable
from typing import Annotated

import msgspec

from llmroute_sidecar.pipeline.counts import input_of, output_of
from llmroute_sidecar.pipeline.events import EVENT_END, EVENT_ENDS
from llmroute_sidecar.policy.limits.demand import BYTES_PER_TOKEN
from llmroute_sidecar.upstream.exchange import Sink

EVENT_MAX_BYTES = 1024 * 1024
TAIL_BYTES = 64 * 1024
"""What is kept of an answer too large to be held: the usage stands at its end, after the vectors or images."""

_USAGE_AT_END = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**9)] | Annotated[float, msgspec.Meta(ge=0, le=10**9)]
"""Some write whole numbers as `7.0`."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What a call used."""

    input: int
    output: int
    estimated: bool
    """The answer did not say it, or not to its end: the prompt by its size, the answer by what was delivered of it."""
    cost: int | None = None
    """Picodollars; None where the price of the model that served is not known."""


class Counts(msgspec.Struct):
    """A `usage` object, in either shape; counts.py says what it comes to."""

    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    total_tokens: _Tokens | None = None
    cache_creation_input_tokens: _Tokens | None = None
    cache_read_input_tokens: _Tokens | None = None


class _Answer(msgspec.Struct):
    """Its usage stays raw: one that makes no sense must not cost what is read beside it."""

    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Function(msgspec.Struct):
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: object = None


class _Event(msgspec.Struct):
    """All that is read of an event."""

    type: str | None = None
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    choices: list[_Choice] | None = None
    delta: _Delta | str | None = None
    response: _Answer | None = None
    message: _Answer | None = None


class _Numbers(msgspec.Struct):
    """What is read of an event whose content has a form that we do not know."""

    type: str | None = None
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    choices: list[msgspec.Raw] | None = None
    response: _Answer | None = None
    message: _Answer | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_counts = msgspec.json.Decoder(Counts | None).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_numbers = msgspec.json.Decoder(_Numbers).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reading:
    """What has been read of one answer so far."""

    __slots__ = ("_running", "_since", "delivered_bytes", "delivered_events", "input", "output", "whole")

    def __init__(self) -> None:
        self.input: int | None = None
        self.output: int | None = None
        self.whole = False
        """Whether `output` is a total, not only a beginning."""
        self._running = False
        """Whether `output` was the total so far, of a stream that went on."""
        self._since = 0
        """Events with text in them since `output` was told."""
        self.delivered_events = 0
        self.delivered_bytes = 0
        """Of text, in the events that had some."""

    def usage(self, expected_input: int) -> Usage:
        """What the answer used; `expected_input` where it does not say so."""
        given = self.input if self.input is not None else expected_input
        if self.whole and self.output is not None and not self._since:
            return Usage(given, self.output, self.input is None)
        # An event with text in it is a token at least.
        delivered = max(self.delivered_events, self.delivered_bytes // BYTES_PER_TOKEN)
        told = (self.output or 0) + (self._since if self.whole or self._running else 0)
        return Usage(given, max(delivered, told), estimated=True)

    def take(self, counts: Counts, *, whole: bool = True) -> None:
        given, output = input_of(counts), output_of(counts)
        if given is not None:
            self.input = given
        if output is not None or given is not None:
            self.output = output or 0
            self.whole = whole
            self._since = 0

    def complete(self) -> None:
        """A stream has come to its end: its last total is that of all of it."""
        if self._running:
            self.whole = True

    def answer(self, body: bytes, *, text: bool) -> None:
        """A whole plain answer. `text`: of a model that writes, so that its size says something."""
        try:
            counts = _counts(_decode_answer(body).usage)
        except _UNREADABLE:
            counts = None
        self._whole_answer(counts, len(body), text=text)

    def tail(self, tail: bytes, size: int, *, text: bool) -> None:
        """A plain answer of which only the end was kept."""
        found = None
        for match in _USAGE_AT_END.finditer(tail):
            found = match[1]
        self._whole_answer(_counts(found), size, text=text)

    def _whole_answer(self, counts: Counts | None, size: int, *, text: bool) -> None:
        if counts is not None and (not text or counts.total_tokens is not None or output_of(counts) is not None):
            self.take(counts)
            return
        if counts is not None:
            self.input = input_of(counts)
        if text:
            self.delivered_bytes = size

    def event(self, event: bytes) -> bool:
        """One event of a stream; True for a chunk that tells nothing but the usage."""
        data = _data(event)
        if not data or data == b"[DONE]":
            return False
        parsed: _Event | _Numbers
        try:
            parsed = _decode_event(data)
        except msgspec.ValidationError:
            try:
                parsed = _decode_numbers(data)
            except _UNREADABLE:
                return False
            self.delivered_events += 1
            self._since += 1
        except _UNREADABLE:
            return False
        else:
            self._text(parsed)
        if (counts := _counts(parsed.usage)) is not None:
            self._running = not _is_last(parsed)
            self.take(counts, whole=not self._running)
            return parsed.choices == []
        if parsed.response is not None and (counts := _counts(parsed.response.usage)) is not None:
            self.take(counts)
        elif parsed.message is not None and (counts := _counts(parsed.message.usage)) is not None:
            self.take(counts, whole=False)  # of a message's beginning
        return False

    def _text(self, event: _Event) -> None:
        size = 0
        for choice in event.choices or ():
            if choice.delta is not None:
                size += _size_of(choice.delta)
            if choice.text:
                size += _bytes(choice.text)
        if isinstance(event.delta, str):
            size += _bytes(event.delta)
        elif event.delta is not None:
            size += _size_of(event.delta)
        if size:
            self.delivered_events += 1
            self.delivered_bytes += size
            self._since += 1


def _counts(usage: msgspec.Raw | msgspec.UnsetType | bytes | None) -> Counts | None:
    """None where there is no usage, or none that makes sense."""
    if usage is None or isinstance(usage, msgspec.UnsetType):
        return None
    try:
        counts: Counts | None = _decode_counts(usage)
    except _UNREADABLE:
        return None
    return counts


def _is_last(event: _Event | _Numbers) -> bool:
    """Whether an event with a usage comes after all content, or with its end: some tell the total so far in each."""
    if not event.choices or isinstance(event, _Numbers):
        return True
    return any(choice.finish_reason is not None for choice in event.choices)


def _size_of(delta: _Delta) -> int:
    size = 0
    for text in (
        delta.content,
        delta.text,
        delta.reasoning_content,
        delta.reasoning,
        delta.thinking,
        delta.partial_json,
        delta.refusal,
    ):
        if text:
            size += _bytes(text)
    for call in delta.tool_calls or ():
        if call.function is not None and call.function.arguments:
            size += _bytes(call.function.arguments)
    return size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _data(event: bytes) -> bytes:
    """The data of an event (HTML standard §9.2.6)."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]  # nearly every one
    lines = (line for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


class StreamReader:
    """Reads a stream on its way to the client (`Sink`). It is handed whole events, but for those that are too large to
    be held back: these come in parts."""

    __slots__ = ("_part", "_reading", "_sink", "hides")

    def __init__(self, sink: Sink, reading: Reading, *, hide: bool) -> None:
        """`hide`: the chunk of the usage was not the client's wish, and is kept back."""
        self._sink = sink
        self._reading = reading
        self.hides = hide
        self._part: bytearray | None = None
        """The beginning of an event that has not ended; what is above the bound is not kept."""

    @property
    def paused(self) -> bool:
        return self._sink.paused

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        self._sink.on_resume(callback)

    def write(self, data: bytes) -> None:
        if self._part is not None:
            self._write_part(data)
        elif not data.endswith(EVENT_ENDS):
            if not data.startswith(b":"):  # a comment that goes out without its end begins no event
                self._part = bytearray()
            self._write_part(data)
        elif self.hides and b'"usage"' in data:
            self._write_without_usage(data)
        else:
            self._sink.write(data)
            self._read(data)

    def done(self) -> None:
        """The stream is complete; its last event may have come without its end."""
        if self._part is not None and len(self._part) <= EVENT_MAX_BYTES:
            self._reading.event(bytes(self._part))
        self._reading.complete()

    def _write_part(self, data: bytes) -> None:
        part = self._part
        end = EVENT_END.search(data)
        head = data if end is None else data[: end.end()]
        self._sink.write(head)
        if part is None:
            return
        part += head[: EVENT_MAX_BYTES + 1 - len(part)]
        if end is not None:
            self._part = None
            if len(part) <= EVENT_MAX_BYTES:
                self._read(bytes(part))
            if end.end() < len(data):
                self.write(data[end.end() :])

    def _read(self, data: bytes) -> None:
        if data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:  # one event, as nearly always
            self._reading.event(data[:-2])
            return
        begin = 0
        for end in EVENT_END.finditer(data):
            self._reading.event(data[begin : end.start()])
            begin = end.end()

    def _write_without_usage(self, data: bytes) -> None:
        begin = 0
        kept: list[bytes] = []
        for end in EVENT_END.finditer(data):
            if not self._reading.event(data[begin : end.start()]):
                kept.append(data[begin : end.end()])
            begin = end.end()
        if kept:
            self._sink.write(b"".join(kept))


class Pieces:
    """A stream that came whole before any of it was handed on (`Sink`)."""

    paused = False

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        """It is never paused."""


class TailReader:
    """Keeps the end of a plain answer on its way to the client (`Sink`)."""

    __slots__ = ("_kept", "_reading", "_sink", "_size", "_text")
    hides = False

    def __init__(self, sink: Sink, reading: Reading, *, text: bool) -> None:
        self._sink = sink
        self._reading = reading
        self._text = text
        self._kept = bytearray()
        self._size = 0

    @property
    def paused(self) -> bool:
        return self._sink.paused

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        self._sink.on_resume(callback)

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self._size += len(data)
        kept = self._kept
        kept += data[-TAIL_BYTES:]
        if len(kept) > 2 * TAIL_BYTES:
            del kept[:-TAIL_BYTES]
        if self._text:
            self._reading.delivered_bytes = self._size  # should it break off here

    def done(self) -> None:
        """The answer is complete."""
        self._reading.tail(bytes(self._kept[-TAIL_BYTES:]), self._size, text=self._text)

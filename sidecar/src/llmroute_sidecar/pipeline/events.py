"""A stream of events as far as the gateway must understand it: where its content begins, and where events end.
Sans-IO.

The beginning of the content is the point of no return for fallbacks. Until the first content event any candidate may
still serve; headers, comments, pings and events that only open the stream are not content, and an error inside a 200
is a failure. Event framing is the HTML standard's §9.2 (server-sent events).
"""

import re
from collections import deque
from collections.abc import Callable
from enum import Enum

import msgspec

from llmroute_sidecar.upstream.exchange import Sink

SCAN_MAX_BYTES = 64 * 1024
"""Bytes held back, at most; a stream that opens with more than this is taken to have begun."""

END_PIECES = 8
END_PIECE_BYTES = 4096
"""What is held on to of a stream's end, for what it says of its usage."""
EVENT_END = re.compile(rb"\r\n\r\n|\n\r?\n|\r\r")
EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
"""What `EVENT_END` finds ends with one of these."""
_COMMENTS = re.compile(rb"(?::[^\r\n]*(?:\r\n|\n|\r))+")
_BOM = b"\xef\xbb\xbf"
"""It may stand before a stream (HTML §9.2.5)."""
_OPENING_TYPES = frozenset({"ping", "message_start", "response.created", "response.in_progress", "response.queued"})


class Beginning(Enum):
    WAIT = "wait"
    CONTENT = "content"
    ERROR = "error"


class _Delta(msgspec.Struct):
    content: object = None
    tool_calls: object = None
    function_call: object = None
    reasoning_content: object = None
    reasoning: object = None
    refusal: object = None
    audio: object = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: object = None
    text: object = None


class _Event(msgspec.Struct):
    error: object = None
    type: object = None
    object_: object = msgspec.field(name="object", default=None)
    choices: list[_Choice] | None = None


_decode = msgspec.json.Decoder(_Event).decode


class BeginningScan:
    """Looks at the growing buffer of a stream, each event once."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = 0

    def look(self, buffer: bytearray) -> Beginning:
        if not self._offset and buffer.startswith(_BOM):
            self._offset = len(_BOM)
        while (end := EVENT_END.search(buffer, self._offset)) is not None:
            event = bytes(buffer[self._offset : end.start()])
            self._offset = end.end()
            verdict = _judge(event)
            if verdict is not Beginning.WAIT:
                return verdict
        return Beginning.CONTENT if len(buffer) > SCAN_MAX_BYTES else Beginning.WAIT


def _judge(event: bytes) -> Beginning:
    name = b""
    data = []
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
    if name == b"error":
        return Beginning.ERROR
    if not data:
        return Beginning.WAIT
    try:
        parsed = _decode(b"\n".join(data))
    except (msgspec.DecodeError, RecursionError):
        return Beginning.CONTENT  # `[DONE]`, or a form we do not know: not ours to hold back
    if parsed.error is not None or parsed.type in ("error", "response.failed"):
        return Beginning.ERROR
    if parsed.type in _OPENING_TYPES or name.decode("ascii", "replace") in _OPENING_TYPES:
        return Beginning.WAIT
    if parsed.choices == []:
        return Beginning.WAIT  # a filter's verdict on the prompt, as Azure sends it, or usage
    if parsed.object_ == "chat.completion.chunk" and parsed.choices:
        return Beginning.WAIT if all(_is_opening(choice) for choice in parsed.choices) else Beginning.CONTENT
    return Beginning.CONTENT


def _is_opening(choice: _Choice) -> bool:
    """A first chunk as OpenAI sends it: a role, and nothing yet."""
    delta = choice.delta
    if delta is None or choice.finish_reason is not None or choice.text:
        return False
    return not any(getattr(delta, field) for field in delta.__struct_fields__)


class WholeEvents:
    """Hands a stream on in whole events (`Sink`), so that where it breaks off an error event can follow that a client
    can read. What upstreams send is nearly always whole, and goes on as it is; a part waits for its rest."""

    __slots__ = ("_last", "_sink", "_tail", "between")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._tail = b""
        self._last: deque[bytes] = deque(maxlen=END_PIECES)
        self.between = True
        """Whether all that was handed on ends with the end of an event."""

    @property
    def paused(self) -> bool:
        return self._sink.paused

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        self._sink.on_resume(callback)

    @property
    def end(self) -> bytes:
        """The last pieces that came, as they came: a provider may send each line of its last events by itself."""
        return b"".join(self._last)

    def write(self, data: bytes) -> None:
        self._last.append(data if len(data) <= END_PIECE_BYTES else data[-END_PIECE_BYTES:])
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if data.endswith(EVENT_ENDS):
            self.between = True
            self._sink.write(data)
            return
        end = max(data.rfind(ending) + len(ending) if ending in data else 0 for ending in EVENT_ENDS)
        if end:
            self.between = True
        rest = data[end:]
        if rest.startswith(b":") and self.between and _COMMENTS.fullmatch(rest):
            if end:
                self._sink.write(data[:end])
            self._sink.write(rest)  # it keeps the connection alive only if it goes out, and joins no event
        elif not self.between or len(rest) > SCAN_MAX_BYTES:
            self.between = False  # an event larger than is held back
            self._sink.write(data)
        else:
            self._tail = rest
            if end:
                self._sink.write(data[:end])

    def flush(self) -> None:
        """The stream is complete: what was held back is its end."""
        if self._tail:
            self._sink.write(self._tail)
            self._tail = b""

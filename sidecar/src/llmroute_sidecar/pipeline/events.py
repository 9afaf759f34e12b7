"""Where a streamed answer's content begins: the point of no return for fallbacks. Sans-IO.

Until the first content event any candidate may still serve; headers, comments, pings and events that only open the
stream are not content, and an error inside a 200 is a failure. Event framing is the HTML standard's §9.2 (server-sent
events).
"""

import re
from enum import Enum

import msgspec

SCAN_MAX_BYTES = 64 * 1024
"""Bytes held back, at most; a stream that opens with more than this is taken to have begun."""

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
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
        while (end := _EVENT_END.search(buffer, self._offset)) is not None:
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
    if parsed.error is not None or parsed.type == "error":
        return Beginning.ERROR
    if parsed.type in _OPENING_TYPES or name.decode("ascii", "replace") in _OPENING_TYPES:
        return Beginning.WAIT
    if parsed.object_ == "chat.completion.chunk" and parsed.choices:
        return Beginning.WAIT if all(_is_opening(choice) for choice in parsed.choices) else Beginning.CONTENT
    return Beginning.CONTENT


def _is_opening(choice: _Choice) -> bool:
    """A first chunk as OpenAI sends it: a role, and nothing yet."""
    delta = choice.delta
    if delta is None or choice.finish_reason is not None or choice.text:
        return False
    return not any(getattr(delta, field) for field in delta.__struct_fields__)

"""The providers: one that is steady, and one whose mood changes.

Each counts what reached it, and remembers whose connection was closed before its answer was out.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, providing, response
from tests.sidecar import openai_answers

GAP_SECONDS = 0.005
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 5},
}
_TRANSCRIPT = {
    "text": "hello",
    "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16},
}


class Mood(Enum):
    FAIR = "fair"
    FAILS = "fails"
    THROTTLES = "throttles"
    SAYS_NOTHING = "says nothing"
    HANGS_UP = "hangs up"
    CUTS_SHORT = "cuts short"


@dataclass
class Played:
    """A provider and what it has seen."""

    provider: Provider
    mood: Mood = Mood.FAIR
    came: int = 0
    dropped: set[str] = field(default_factory=set)
    """Request ids of those whose connection went away before their answer was out."""

    def change(self, chance: random.Random) -> None:
        self.mood = chance.choice([mood for mood in Mood if mood is not self.mood])


@contextmanager
def playing() -> Iterator[Played]:
    """A provider on a free port of the loopback."""
    played: list[Played] = []

    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        one = played[0]
        one.came += 1
        one.provider.requests.clear()  # or all bodies of the run would be kept
        try:
            await _answer(one.mood, request, writer)
            await writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            one.dropped.add(request.headers["x-request-id"])
            raise

    with providing(behaviour) as provider:
        played.append(Played(provider))
        yield played[0]


async def _answer(mood: Mood, request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
    match mood:
        case Mood.FAIR:
            await _fair(request, writer, whole=True)
        case Mood.CUTS_SHORT:
            await _fair(request, writer, whole=False)
        case Mood.FAILS:
            writer.write(response(500, b'{"error": {"message": "a mood"}}'))
        case Mood.THROTTLES:
            writer.write(response(429, b"{}", "retry-after-ms: 300"))
        case Mood.SAYS_NOTHING:
            await asyncio.sleep(60)
        case Mood.HANGS_UP:
            writer.close()


async def _fair(request: ProviderRequest, writer: asyncio.StreamWriter, *, whole: bool) -> None:
    kind = request.path.rpartition("/v1/")[2]
    is_form = "multipart" in request.headers["content-type"]
    streamed = b'name="stream"' in request.body if is_form else bool(request.json.get("stream"))
    if streamed:
        await _stream(_events(kind), writer, whole=whole)
        return
    if is_form:
        answer = response(200, json.dumps(_TRANSCRIPT).encode())
    elif kind == "messages":
        answer = response(200, json.dumps(_MESSAGE).encode())
    elif kind == "embeddings":
        answer = response(200, json.dumps(openai_answers.embeddings(200, as_base64=False)).encode())
    else:
        answer = response(200, json.dumps(openai_answers.chat("hello " * 20)).encode())
    if whole:
        writer.write(answer)
    else:
        writer.write(answer[: len(answer) - 10])
        await writer.drain()
        writer.close()


async def _stream(events: list[bytes], writer: asyncio.StreamWriter, *, whole: bool) -> None:
    writer.write(STREAM_HEAD)
    for number, event in enumerate(events):
        if not whole and number == len(events) // 2:
            await writer.drain()
            writer.close()
            return
        await asyncio.sleep(GAP_SECONDS)
        writer.write(chunk(event))
        await writer.drain()
    writer.write(END)


def _events(kind: str) -> list[bytes]:
    if kind == "responses":
        return [openai_answers.named(event) for event in openai_answers.response_events(tool=False)]
    if kind == "messages":
        return _message_events()
    if kind == "audio/transcriptions":
        word = openai_answers.unnamed({"type": "transcript.text.delta", "delta": "hel"})
        return [word] * 5 + [openai_answers.unnamed({"type": "transcript.text.done", **_TRANSCRIPT})]
    words = [openai_answers.CHAT_PIECES[1]] * 10
    pieces = [openai_answers.CHAT_PIECES[0], *words, openai_answers.CHAT_PIECES[-1], openai_answers.USAGE_PIECE]
    return [*map(openai_answers.unnamed, pieces), DONE]


def _message_events() -> list[bytes]:
    def told(kind: str, **more: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    word = told("content_block_delta", index=0, delta={"type": "text_delta", "text": "word "})
    return [
        told("message_start", message={**_MESSAGE, "content": [], "stop_reason": None}),
        told("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *[word] * 8,
        told("content_block_stop", index=0),
        told("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 5}),
        told("message_stop"),
    ]

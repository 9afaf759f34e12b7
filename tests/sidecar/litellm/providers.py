"""OpenAI's, Anthropic's and Gemini's APIs as behaviours of a test provider, told apart by path."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from tests.provider import (
    END,
    STREAM_HEAD,
    Behaviour,
    ProviderRequest,
    chunk,
    closes_after,
    plain,
    response,
)

WORDS = ("one ", "two ", "three")


def json_response(status: int, document: Any, *headers: str) -> bytes:
    return response(status, json.dumps(document).encode(), *headers)


def fails(status: int, message: str, *headers: str) -> Behaviour:
    """Answers with an error that all three providers could have made."""
    document = {"error": {"message": message, "type": "t", "code": status, "status": "S"}}

    async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(json_response(status, document, *headers))

    return behaviour


async def any_provider(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
    """Answers `one two three` in the words of whose API is called."""
    path = request.path.lower()
    if "embed" in path:
        writer.write(_embeddings(path))
    elif path.endswith("/messages"):
        if request.json.get("stream"):
            writer.write(whole_stream(anthropic_events()))
        else:
            writer.write(json_response(200, ANTHROPIC_MESSAGE, "request-id: req_anthropic"))
    elif "generatecontent" in path:
        if "stream" in path:
            writer.write(whole_stream(gemini_events()))
        else:
            writer.write(json_response(200, _gemini_part("one two three", finish="STOP")))
    else:
        await plain(request, writer)


def _embeddings(path: str) -> bytes:
    if "gemini" in path:
        return json_response(200, {"embeddings": [{"values": [0.5, -0.25]}], "embedding": {"values": [0.5, -0.25]}})
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return json_response(200, {"object": "list", "data": [vector], "model": "e", "usage": usage})


ANTHROPIC_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [{"type": "text", "text": "one two three"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 5},
}


def anthropic_events() -> list[bytes]:
    start = {**ANTHROPIC_MESSAGE, "content": [], "stop_reason": None}
    texts = [{"type": "text_delta", "text": word} for word in WORDS]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": text} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _gemini_part(text: str, finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-test"}


def gemini_events() -> list[bytes]:
    parts = [_gemini_part(word, "STOP" if word == WORDS[-1] else None) for word in WORDS]
    return [b"data: " + json.dumps(part).encode() + b"\r\n\r\n" for part in parts]


def whole_stream(events: Iterable[bytes]) -> bytes:
    return STREAM_HEAD + b"".join(map(chunk, events)) + END


def cut_after(events: Iterable[bytes], *, in_good_order: bool) -> Behaviour:
    """A stream that ends too early: in the middle of the HTTP message, or (as proxies do) as if it were whole."""
    return closes_after(STREAM_HEAD + b"".join(map(chunk, events)) + (END if in_good_order else b""))


def says(events: Iterable[bytes]) -> Behaviour:
    """Streams `events` and then nothing, without an end."""

    async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"".join(map(chunk, events)))
        await writer.drain()
        await asyncio.Event().wait()

    return behaviour


async def silent(_: ProviderRequest, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()

"""What OpenAI's API answers, in its own shapes: a body or a list of events for each endpoint; a gateway before it."""

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.gateway_process import GatewayProcess, running, spec
from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, response

CALL = {"name": "weather", "arguments": '{"city": "Bonn"}'}
VECTOR = (0.25, -0.5, 0.125)
_CHAT_USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


@contextmanager
def gateway_before(provider: Provider, folder: Path) -> Iterator[GatewayProcess]:
    """`m` is renamed and its tokens are limited, so that every answer is read on its way."""
    route = spec(
        f"{provider.url}/v1",
        models=[{"name": "m", "targets": [{"upstream": "provider", "model": "m-at-provider"}]}],
        limits=[{"name": "tokens", "per": "Client", "tokens": 1_000_000}],
    )
    with running(folder, {"chat": route}) as gateway:
        yield gateway


def chat(content: str | None, tool_calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if tool_calls:
        message["tool_calls"] = tool_calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "tool_calls" if tool_calls else "stop",
            }
        ],
        "usage": _CHAT_USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }


def _piece(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }


TOOL_CALL = {"id": "call_1", "type": "function", "function": CALL}
CHAT_PIECES = [
    _piece({"role": "assistant", "content": "", "refusal": None}),
    _piece({"content": "hel"}),
    _piece({"content": "lo"}),
    _piece({}, "stop"),
]
TOOL_PIECES = [
    _piece(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
            ],
        }
    ),
    _piece({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}),
    _piece({"tool_calls": [{"index": 0, "function": {"arguments": '"Bonn"}'}}]}),
    _piece({}, "tool_calls"),
]
USAGE_PIECE = {**_piece({}), "choices": [], "usage": _CHAT_USAGE}

MESSAGE_ITEM = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "hello", "annotations": []}],
}
CALL_ITEM = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", **CALL}


def a_response(output: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 14,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-4o-2024-08-06",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage if status == "completed" else None,
    }


def _text_events() -> list[dict[str, Any]]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    return [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**MESSAGE_ITEM, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "hel", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "hello", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": {**part, "text": "hello"}},
        {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE_ITEM},
    ]


def _call_events() -> list[dict[str, Any]]:
    place = {"item_id": "fc_1", "output_index": 0}
    return [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**CALL_ITEM, "status": "in_progress", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", **place, "delta": CALL["arguments"]},
        {"type": "response.function_call_arguments.done", **place, "name": "weather", "arguments": CALL["arguments"]},
        {"type": "response.output_item.done", "output_index": 0, "item": CALL_ITEM},
    ]


def response_events(*, tool: bool) -> list[dict[str, Any]]:
    begun = a_response([], "in_progress")
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *(_call_events() if tool else _text_events()),
        {"type": "response.completed", "response": a_response([CALL_ITEM if tool else MESSAGE_ITEM])},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def embeddings(count: int, *, as_base64: bool) -> dict[str, Any]:
    encoded = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector = encoded if as_base64 else list(VECTOR)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }


MODERATION = {
    "id": "modr-1",
    "model": "omni-moderation-latest",
    "results": [
        {
            "flagged": True,
            "categories": {"violence": True},
            "category_scores": {"violence": 0.9},
            "category_applied_input_types": {"violence": ["text"]},
        }
    ],
}
IMAGES = {"created": 1, "data": [{"b64_json": "aGVsbG8="}], "usage": {"input_tokens": 5, "output_tokens": 9}}
COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"text": "hello", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    "usage": _CHAT_USAGE,
}


def named(event: dict[str, Any]) -> bytes:
    """An event of /v1/responses."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def unnamed(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def openai(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
    """Answers each endpoint as OpenAI does; calls the tool where one is offered and has not answered yet."""
    body = request.json
    path = request.path.partition("/v1/")[2]
    said = body.get("messages") or body.get("input") or []
    tool_has_answered = any(
        isinstance(one, dict) and (one.get("role") == "tool" or one.get("type") == "function_call_output")
        for one in said
    )
    tool = bool(body.get("tools")) and not tool_has_answered
    if body.get("stream"):
        writer.write(STREAM_HEAD)
        if path == "responses":
            events = [named(event) for event in response_events(tool=tool)]
        elif path == "completions":
            events = [unnamed({**COMPLETION, "usage": None}), DONE]
        else:
            pieces = list(TOOL_PIECES if tool else CHAT_PIECES)
            if (body.get("stream_options") or {}).get("include_usage"):
                pieces.append(USAGE_PIECE)
            events = [*map(unnamed, pieces), DONE]
        for event in events:
            writer.write(chunk(event))
        writer.write(END)
        return
    answer: dict[str, Any]
    match path:
        case "responses":
            answer = a_response([CALL_ITEM if tool else MESSAGE_ITEM])
        case "embeddings":
            count = len(body["input"]) if isinstance(body["input"], list) else 1
            answer = embeddings(count, as_base64=body.get("encoding_format") == "base64")
        case "moderations":
            answer = MODERATION
        case "images/generations":
            answer = IMAGES
        case "completions":
            answer = COMPLETION
        case _:
            answer = chat(None, [TOOL_CALL]) if tool else chat("hello")
    writer.write(response(200, json.dumps(answer).encode(), "x-request-id: req_provider"))

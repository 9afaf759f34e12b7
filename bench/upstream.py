"""The provider's stand-in: the same one behind every contender, `python -m bench.upstream PORT`.

Owns what an answer looks like: a fixed JSON completion, or a paced server-sent event stream. The request's own body
says which: `"stream": true`, then `max_tokens` is the number of chunks and `seed` the milliseconds between them, so
that a contender need pass nothing on but the body, and of that what any gateway passes on (LiteLLM keeps `metadata`).
Each chunk carries the instant of its sending (CLOCK_MONOTONIC, in nanoseconds), from which `streams.py` on the same
machine reads how long it was under way.
It is no web server: it trusts its peer, wants a Content-Length, and is as cheap as asyncio's protocols allow.
"""

import asyncio
import gc
import json
import sys
import time
from typing import cast

import uvloop

STAMP = b'"stamp_'
"""What stands before a chunk's instant; 20 digits and a quote follow."""
STAMP_DIGITS = 20

COMPLETION_BODY = json.dumps(
    {
        "id": "chatcmpl-bench0000000000000000000000",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "bench-model",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A gateway stands between those who ask and those who answer. " * 4,
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 42, "completion_tokens": 48, "total_tokens": 90},
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
    }
).encode()

COMPLETION = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: req_bench\r\n\r\n"
    % len(COMPLETION_BODY)
    + COMPLETION_BODY
)
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
NO_LENGTH = b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\nx-request-id: req_bench\r\n\r\n"
)


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def _event(delta: str, finish: str) -> bytes:
    return (
        b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench-model",'
        b'"system_fingerprint":"stamp_%020d","choices":[{"index":0,"delta":{' + delta.encode() + b'},"logprobs":null,'
        b'"finish_reason":' + finish.encode() + b"}]}\n\n"
    )


_CHUNK = _framed(_event('"content":" token"', "null") % 0).replace(b"%", b"%%").replace(b"0" * STAMP_DIGITS, b"%020d")
_END = (
    _framed(_event("", '"stop"') % 0)
    + _framed(
        b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench-model",'
        b'"choices":[],"usage":{"prompt_tokens":42,"completion_tokens":48,"total_tokens":90}}\n\n'
    )
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
_LENGTH = b"content-length:"


class Answering(asyncio.Protocol):
    """One connection: requests in, one after the other, answers out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._chunks_left = 0
        self._gap = 0.0
        self._writable = True
        self._waiting = False  # for the client to read on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are one by form only

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._transport = None

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._waiting:
            self._waiting = False
            self._send_chunk()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        while self._received and self._transport is not None and not self._chunks_left:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._received[:end].lower()
            if head.startswith(b"get "):
                self._received = self._received[end + 4 :]
                self._transport.write(EMPTY)
                continue
            at = head.find(_LENGTH)
            if at < 0:
                self._transport.write(NO_LENGTH)
                self._transport.close()
                return
            line_end = head.find(b"\r\n", at)
            length = int(head[at + len(_LENGTH) : line_end if line_end > 0 else end])
            total = end + 4 + length
            if len(self._received) < total:
                return
            body = self._received[end + 4 : total]
            self._received = self._received[total:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        if b'"stream"' not in body:
            self._transport.write(COMPLETION)
            return
        asked = json.loads(body)
        if not asked.get("stream"):
            self._transport.write(COMPLETION)
            return
        self._chunks_left = int(asked.get("max_tokens", 16))
        self._gap = asked.get("seed", 0) / 1000
        self._transport.write(STREAM_HEAD)
        self._send_chunk()

    def _send_chunk(self) -> None:
        if self._transport is None:
            return
        if not self._writable:
            self._waiting = True
            return
        self._transport.write(_CHUNK % time.monotonic_ns())
        self._chunks_left -= 1
        if not self._chunks_left:
            self._transport.write(_END)
            if self._received:
                self.data_received(b"")
        elif self._gap:
            self._loop.call_later(self._gap, self._send_chunk)
        else:
            self._loop.call_soon(self._send_chunk)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(loop), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    gc.disable()  # nothing here is cyclic, and a pause would show as the contender's
    uvloop.run(serve(int(sys.argv[1])))

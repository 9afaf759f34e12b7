"""`mock://` upstreams: answer like a model without one, for first steps, demos and tests.

`mock://local?latency=200ms&tokens=40&gap=20ms&fail=0.1&status=429`: wait `latency`, then answer with `tokens` words;
streamed answers come in pieces, `gap` apart. A share `fail` of the calls fails: with `status` where it is given, else
by breaking off. `mock://fail` fails always. Answers are told to be mock ones by their text.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator

from llmroute_contract.scalars import UpstreamUrl
from llmroute_contract.upstream_url import MockParameters, parse_mock_parameters
from llmroute_sidecar.upstream.exchange import BrokenReason, Headers, OutgoingRequest, Sink, UpstreamBroken

_WORDS = ("This answer comes from a mock upstream of llmroute so no model was asked and nothing was spent").split()  # noqa: SIM905 - a sentence reads better than a list

_TRANSCRIBES = frozenset({"/audio/transcriptions", "/audio/translations"})


class MockCaller:
    """Answers calls to one mock upstream (`Caller` in exchange.py)."""

    open_connections = 0

    def __init__(self, url: UpstreamUrl) -> None:
        self._behaviour = parse_mock_parameters(url)
        self._random = random.Random()  # noqa: S311 - chooses which demo calls fail

    async def open(
        self,
        request: OutgoingRequest,
        deadline: float,  # noqa: ARG002
        *,
        fresh: bool = False,  # noqa: ARG002
    ) -> "MockExchange":
        behaviour = self._behaviour
        fails = self._random.random() < behaviour.fail
        return MockExchange(
            _failure(behaviour) if fails else _answer(behaviour, request), fails, behaviour, request.stream
        )

    def close(self) -> None:
        return None


class MockExchange:
    """An answer in pieces (`Exchange` in exchange.py)."""

    def __init__(self, pieces: AsyncIterator[bytes], fails: bool, behaviour: MockParameters, stream: bool) -> None:
        self._pieces = pieces
        self._answer_status = behaviour.status or 500 if fails else 200
        self._content_type = b"text/event-stream" if stream and not fails else b"application/json"
        self.status = 0
        self.headers: Headers = []
        self.buffer = bytearray()
        self.complete = False

    async def advance(self, deadline: float, reason: BrokenReason) -> None:
        if not self.complete:
            self.buffer += await self._next(deadline, reason)

    async def _next(self, deadline: float, reason: BrokenReason) -> bytes:
        try:
            async with asyncio.timeout_at(deadline):
                piece = await anext(self._pieces, None)
        except TimeoutError:
            raise UpstreamBroken(reason) from None
        if not self.status:
            self.status = self._answer_status
            self.headers = [(b"content-type", self._content_type)]
        if piece is None:
            self.complete = True
        return piece or b""

    async def relay(self, sink: Sink, idle: float, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        sink.on_resume(writable.set)
        try:
            while True:
                if self.buffer:
                    sink.write(bytes(self.buffer))
                    self.buffer = bytearray()
                if self.complete:
                    return
                while sink.paused:
                    writable.clear()
                    await writable.wait()
                idle_until = loop.time() + idle
                reason: BrokenReason = "idle_timeout" if idle_until < deadline else "request_timeout"
                self.buffer += await self._next(min(idle_until, deadline), reason)
        finally:
            sink.on_resume(None)

    def release(self) -> None:
        return None

    def abort(self) -> None:
        return None


async def _failure(behaviour: MockParameters) -> AsyncIterator[bytes]:
    if behaviour.latency:
        await asyncio.sleep(behaviour.latency)
    if not behaviour.status:
        raise UpstreamBroken("mock_failure")
    error = {"message": "mock failure", "type": "server_error", "param": None, "code": "mock_failure"}
    yield json.dumps({"error": error}).encode()


async def _answer(behaviour: MockParameters, request: OutgoingRequest) -> AsyncIterator[bytes]:
    if behaviour.latency:
        await asyncio.sleep(behaviour.latency)
    if not request.stream:
        yield _plain(behaviour.tokens, request)
        return
    first = True
    for piece in _streamed(behaviour.tokens, request):
        if behaviour.gap and not first:
            await asyncio.sleep(behaviour.gap)
        elif not first:
            await asyncio.sleep(0)  # let others run between pieces
        first = False
        yield piece


def _words(tokens: int) -> Iterator[str]:
    for index in range(tokens):
        yield ("" if index == 0 else " ") + _WORDS[index % len(_WORDS)]


def _plain(tokens: int, request: OutgoingRequest) -> bytes:
    usage = {"prompt_tokens": _prompt_tokens(request), "completion_tokens": tokens}
    usage["total_tokens"] = sum(usage.values())
    kind = request.path.partition("?")[0]
    base = {"created": int(time.time()), "model": request.model, "usage": usage}
    text = "".join(_words(tokens))
    answer: dict[str, object]
    if kind == "/embeddings":
        vector = [round(0.1 * (index % 7) - 0.3, 1) for index in range(16)]
        answer = {"object": "list", **base, "data": [{"object": "embedding", "index": 0, "embedding": vector}]}
    elif kind == "/messages":
        answer = {
            "id": "msg_mock",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": tokens},
        }
    elif kind in _TRANSCRIBES:
        answer = {"text": text, "usage": _sound_usage(usage)}
    elif kind == "/completions":
        choice: dict[str, object] = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        answer = {"id": "cmpl-mock", "object": "text_completion", **base, "choices": [choice]}
    else:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        answer = {"id": "chatcmpl-mock", "object": "chat.completion", **base, "choices": [choice]}
    return json.dumps(answer).encode()


def _streamed(tokens: int, request: OutgoingRequest) -> Iterator[bytes]:
    return (_streamed_transcript if request.path.partition("?")[0] in _TRANSCRIBES else _streamed_chat)(tokens, request)


def _streamed_transcript(tokens: int, request: OutgoingRequest) -> Iterator[bytes]:
    def event(**fields: object) -> bytes:
        return b"data: " + json.dumps(fields).encode() + b"\n\n"

    for word in _words(tokens):
        yield event(type="transcript.text.delta", delta=word)
    usage = {"prompt_tokens": _prompt_tokens(request), "completion_tokens": tokens}
    usage["total_tokens"] = sum(usage.values())
    yield event(type="transcript.text.done", text="".join(_words(tokens)), usage=_sound_usage(usage))


def _sound_usage(usage: dict[str, int]) -> dict[str, object]:
    """As OpenAI's transcriptions tell it."""
    return {
        "type": "tokens",
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }


def _streamed_chat(tokens: int, request: OutgoingRequest) -> Iterator[bytes]:
    created = int(time.time())

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        chunk = {
            "id": "chatcmpl-mock",
            "object": "chat.completion.chunk",
            "created": created,
            "model": request.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    yield event({"role": "assistant", "content": ""}, None)
    for word in _words(tokens):
        yield event({"content": word}, None)
    yield event({}, "stop")
    if _asks_for_usage(request):
        usage = {"prompt_tokens": _prompt_tokens(request), "completion_tokens": tokens}
        usage["total_tokens"] = sum(usage.values())
        told = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": created, "model": request.model}
        yield b"data: " + json.dumps({**told, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _asks_for_usage(request: OutgoingRequest) -> bool:
    options = json.loads(request.body).get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _prompt_tokens(request: OutgoingRequest) -> int:
    """A rough count, as four bytes a token: a mock has no tokenizer."""
    return max(1, len(request.body) // 4)

"""A provider played by a real HTTP server on a socket, whose behaviour each test says.

It runs on an event loop in a thread of its own. A behaviour is a coroutine over the request and the connection's
writer; the default answers like OpenAI. What came in, and which connections are open, is recorded.
"""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProviderRequest:
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Which connection it came on, counted from 0."""

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


Behaviour = Callable[[ProviderRequest, asyncio.StreamWriter], Awaitable[None]]


def response(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def completion(text: str = "hello", model: str = "m") -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()


def event(text: str | None, finish: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answers(data: bytes) -> Behaviour:
    """Always sends `data`."""

    async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behaviour


def closes_after(data: bytes) -> Behaviour:
    """Sends `data` and closes the connection."""

    async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return behaviour


async def plain(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
    """Answers like OpenAI: a completion, or a stream of three words."""
    if request.json.get("stream"):
        words = b"".join(chunk(event(word)) for word in ("one ", "two ", "three"))
        writer.write(STREAM_HEAD + words + chunk(event(None, "stop")) + chunk(DONE) + END)
    else:
        writer.write(response(200, completion(model=request.json["model"]), "x-request-id: req_provider"))


@dataclass
class Provider:
    url: str = ""
    behaviour: Behaviour = plain
    requests: list[ProviderRequest] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")[:-2]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = ProviderRequest(first.split(" ")[1], headers, body, number)
                self.requests.append(request)
                work = asyncio.ensure_future(self.behaviour(request, writer))
                gone = asyncio.ensure_future(_gone(reader))
                try:
                    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if work.done():
                        work.result()
                        await writer.drain()
                finally:
                    for one in (work, gone):
                        one.cancel()
                    await asyncio.gather(work, gone, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    def call(self, function: Callable[[], None]) -> None:
        """Runs `function` on the provider's loop."""
        self.loop.call_soon_threadsafe(function)


async def _gone(reader: asyncio.StreamReader) -> None:
    """Returns when the peer has closed. What it sends instead is a next request's, and left to be read as such."""
    with contextlib.suppress(ConnectionError):
        data = await reader.read(1)
        if data:
            reader._buffer[:0] = data  # type: ignore[attr-defined]  # the reader has no way to look only
            await asyncio.Event().wait()


@contextmanager
def providing(behaviour: Behaviour = plain, tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    """A provider on a free port of the loopback; speaks TLS where it is given a context."""
    provider = Provider(behaviour=behaviour)
    started = threading.Event()
    stopping = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(provider._serve, "127.0.0.1", 0, limit=64 * 1024 * 1024, ssl=tls)
        provider.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stopping.wait()
        server.close()
        for task in list(provider._tasks):
            task.cancel()
        await asyncio.gather(*provider._tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: provider.loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield provider
    finally:
        provider.call(stopping.set)
        thread.join(10)
        provider.loop.close()

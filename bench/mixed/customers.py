"""Clients that ask without pause, each over a connection of its own, and remember what they heard.

A raw client, since it must know whether a request has gone out, and leave at a moment of its choosing.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httptools

ANSWER_SECONDS = 30.0
_LAST_WORDS = (b"data: [DONE]", b'"type": "message_stop"', b'"type": "response.completed"', b"transcript.text.done")
_SOUND = bytes(range(256)) * 256

Leaving = Literal["early", "amid"] | None
"""When a client leaves: before the first token, or once it has come."""
_CHAT_LEAVING: tuple[Leaving, ...] = (None, "early", "amid")
_MESSAGE_LEAVING: tuple[Leaving, ...] = (None, "amid")
Ending = Literal["whole", "cut", "left", "unanswered", "seems whole"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked."""

    path: str
    model: str
    body: bytes
    content_type: str = "application/json"
    streamed: bool = False
    leaves: Leaving = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client knows of one request that it sent."""

    id: str
    ask: Ask
    ending: Ending
    status: int
    headers: dict[str, str]


@dataclass
class _Answer:
    """As much of an answer as has come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    parser: Any = None

    def __post_init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


class Customer:
    """Asks until it is told to stop."""

    def __init__(self, port: int, key: str, seed: int, pause_seconds: float) -> None:
        self._port = port
        self._key = key
        self._random = random.Random(seed)
        self._pause = pause_seconds
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.heard: list[Heard] = []

    async def asks(self, going_on: Callable[[], bool]) -> None:
        while going_on():
            self.heard.append(await self._ask(any_ask(self._random)))
            await asyncio.sleep(self._random.expovariate(1 / self._pause))
        self._hang_up()

    async def _ask(self, ask: Ask) -> Heard:
        request_id = uuid.UUID(int=self._random.getrandbits(128)).hex
        if self._connection is None:
            self._connection = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._connection
        head = [
            f"POST {ask.path} HTTP/1.1",
            "host: localhost",
            f"authorization: Bearer {self._key}",
            f"x-request-id: {request_id}",
            f"content-type: {ask.content_type}",
            f"content-length: {len(ask.body)}",
        ]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + ask.body)
        await writer.drain()
        answer = _Answer()
        patience = self._random.uniform(0.001, 0.05) if ask.leaves == "early" else ANSWER_SECONDS
        ending: Ending
        try:
            async with asyncio.timeout(patience):
                ending = await _listen(reader, answer, leaves=ask.leaves == "amid")
        except TimeoutError:
            ending = "left" if ask.leaves else "unanswered"
        if ending == "whole" and answer.status == 200 and ask.streamed:
            ending = _judge(bytes(answer.body))
        if ending != "whole" or answer.headers.get("connection") == "close":
            self._hang_up()
        return Heard(request_id, ask, ending, answer.status, answer.headers)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection[1].close()  # in good order, so that what was sent arrives
            self._connection = None


async def _listen(reader: asyncio.StreamReader, answer: _Answer, *, leaves: bool) -> Ending:
    while not answer.complete:
        try:
            data = await reader.read(65536)
        except ConnectionError:
            data = b""
        if not data:
            return "cut" if answer.status else "unanswered"
        answer.parser.feed_data(data)
        if leaves and answer.body and not answer.complete:
            return "left"
    return "whole"


def _judge(body: bytes) -> Ending:
    """A stream ends with its protocol's last words, or with an error; anything else looks like a whole one."""
    last = body[-1000:]
    if any(words in last for words in _LAST_WORDS):
        return "whole"
    return "cut" if b'"error"' in last else "seems whole"


def any_ask(chance: random.Random) -> Ask:
    """One of what a pod may ask, the usual more often."""
    roll = chance.random()
    chat_model = chance.choices(["steady", "split", "moody", "alone", "dead"], [30, 25, 25, 15, 5])[0]
    if roll < 0.30:
        return _json("/v1/chat/completions", chat_model, chance, messages=_said(chance))
    if roll < 0.62:
        leaves = chance.choices(_CHAT_LEAVING, [70, 15, 15])[0]
        return _json("/v1/chat/completions", chat_model, chance, leaves=leaves, stream=True, messages=_said(chance))
    if roll < 0.72:
        return _json("/v1/embeddings", "steady", chance, input=["some", "texts"])
    if roll < 0.82:
        leaves = chance.choices(_MESSAGE_LEAVING, [80, 20])[0]
        stream = leaves is not None or chance.random() < 0.5
        return _json(
            "/v1/messages", "claude", chance, leaves=leaves, stream=stream, max_tokens=20, messages=_said(chance)
        )
    if roll < 0.88:
        return _json("/v1/responses", chance.choice(["steady", "moody"]), chance, stream=True, input="hello")
    if roll < 0.95:
        return _form(chance.choice(["steady", "moody"]), chance)
    if roll < 0.98:
        return _json("/v1/chat/completions", "not-configured", chance, messages=[])
    return Ask("/v1/chat/completions", "", b'{"model": "steady", "messages": [')


def _said(chance: random.Random) -> list[dict[str, str]]:
    return [{"role": "user", "content": "word " * chance.choice([5, 50, 500])}]


def _json(path: str, model: str, chance: random.Random, leaves: Leaving = None, **fields: Any) -> Ask:
    body = json.dumps({"model": model, "user": f"pod-{chance.randrange(10)}", **fields}).encode()
    return Ask(path, model, body, streamed=bool(fields.get("stream")), leaves=leaves)


def _form(model: str, chance: random.Random) -> Ask:
    stream = chance.random() < 0.5
    parts = [("model", model), *([("stream", "true")] if stream else [])]
    fields = [f'--bOuNd\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts]
    head = '--bOuNd\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    sound = _SOUND[: chance.randrange(1, len(_SOUND))]
    chance.shuffle(fields)
    body = "".join(fields).encode() + head.encode() + sound + b"\r\n--bOuNd--\r\n"
    return Ask("/v1/audio/transcriptions", model, body, "multipart/form-data; boundary=bOuNd", streamed=stream)

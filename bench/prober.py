"""Asks each of many gateways the same call again and again, and prints when a gateway's answer is another than before.

One small process for all of them, run by path in the node's network: fifty that ask would measure one another. Reads
what to ask from its standard input; a line of JSON for each change: the pod, how many tokens its answer had, and when.
"""

import asyncio
import json
import sys
import time
from typing import Any

RECONNECT_SECONDS = 0.1


class Prober(asyncio.Protocol):
    """One gateway's, on one kept connection."""

    def __init__(self, pod: str, host: str, port: int, key: str, every: float) -> None:
        self._pod, self._host, self._port, self._every = pod, host, port, every
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._due = 0.0
        self._tokens = 0

    def begin(self, after: float) -> None:
        self._due = self._loop.time() + after
        self._loop.call_at(self._due, self._ask)

    def _ask(self) -> None:
        if self._transport is None:
            self._connecting = self._loop.create_task(self._connect())
        else:
            self._transport.write(self._request)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self, self._host, self._port)
        except OSError:
            self._loop.call_later(RECONNECT_SECONDS, self._ask)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self._tell(0)
        self._loop.call_later(RECONNECT_SECONDS, self._ask)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) < length:
            return
        self._received = b""
        self._tell(json.loads(body)["usage"]["completion_tokens"] if head.startswith(b"HTTP/1.1 200") else 0)
        now = self._loop.time()
        self._due = max(self._due + self._every, now)
        self._loop.call_at(self._due, self._ask)

    def _tell(self, tokens: int) -> None:
        """0 stands for no answer."""
        if tokens != self._tokens:
            self._tokens = tokens
            print(json.dumps({"pod": self._pod, "tokens": tokens, "at": time.time()}), flush=True)


async def main(asked: dict[str, Any]) -> None:
    pods: dict[str, str] = asked["pods"]
    for place, (pod, address) in enumerate(pods.items()):
        prober = Prober(pod, address, asked["port"], asked["key"], asked["every"])
        prober.begin(asked["every"] * place / len(pods))  # spread, or all would be asked in one moment
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))

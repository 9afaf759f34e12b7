"""Deals calls out to gateways in turn, more than their limits allow, and prints each answer: when, from whom, whether
it was admitted, and the share of the limit that the gateway told.

Run by path in the node's network. Its input says who there is, a line of JSON each: `{"pod", "address"}`, an address of
null where the pod is no more.
"""

import asyncio
import json
import sys
import time
from typing import Any

CALL_SECONDS = 5.0


class Dealer:
    def __init__(self, port: int, key: str, every: float) -> None:
        self._port = port
        self._every = every
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._pods: dict[str, str] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        hearing = loop.create_task(self._hear(reader))
        due, turn = loop.time(), 0
        while not hearing.done():
            due += self._every
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self._pods:
                turn += 1
                pod = list(self._pods)[turn % len(self._pods)]
                call = loop.create_task(self._call(pod, self._pods[pod]))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            told: dict[str, Any] = json.loads(line)
            if told["address"] is None:
                self._pods.pop(told["pod"], None)
            else:
                self._pods[told["pod"]] = told["address"]

    async def _call(self, pod: str, address: str) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                reader, writer = await asyncio.open_connection(address, self._port)
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # it is coming, or going
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        share = headers.get("x-ratelimit-limit-requests")
        admitted = lines[0].split()[1] == "200"
        told = {"at": time.time(), "pod": pod, "admitted": admitted, "share": None if share is None else int(share)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(Dealer(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])).run())

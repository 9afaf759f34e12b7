"""An app with a pace: a call begins each EVERY_SECONDS, whatever became of those before.

The schedule is open: it has a slot each EVERY_SECONDS from the first on, and no slot is left out. One that the process
comes to late begins at once; only where MOST calls are under way does a slot wait for a place. No call is tried again:
one that is lost is to be seen.

Twice a second, a JSON line with the sums so far: slots that have come (`asked`), calls begun (`started`), `answered`
and `failed`, what the last answer said; and how it fared: the most calls at once, slots that waited for a place, the
latest begin, seconds of CPU. asyncio and HTTP by hand, so that a hundred calls a second cost the machine little: a
twentieth of a core (`caller.py` has the SDK).
"""

import asyncio
import json
import os
import signal
import time
from http import HTTPStatus
from urllib.parse import urlsplit

MODEL = os.environ.get("MODEL", "chat")
EVERY_SECONDS = float(os.environ.get("EVERY_SECONDS", "0.01"))
MOST = 100
"""Calls under way, at most: a second's; and what the gateway opens to one upstream (`pool.maxConnections`)."""
TELL_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
IDLE_SECONDS = 5.0
"""A connection that nobody used for so long is closed by us, before the gateway does so under a call."""


class Lost(Exception):
    """What became of a call that was not answered."""


class Connections:
    """Those to the gateway: the one used last is used next."""

    def __init__(self) -> None:
        url = urlsplit(os.environ["OPENAI_BASE_URL"])
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]})
        head = [
            f"POST {url.path}/chat/completions HTTP/1.1",
            f"host: {url.netloc}",
            f"authorization: Bearer {os.environ['OPENAI_API_KEY']}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        self._address = (url.hostname, url.port)
        self._request = ("\r\n".join(head) + "\r\n\r\n" + body).encode()
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def ask(self) -> str:
        """What the answer says. Raises Lost."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await self._take()
                try:
                    writer.write(self._request)
                    status, headers, body = await _read(reader)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, EOFError, ValueError, LookupError) as error:  # TimeoutError is an OSError
            raise Lost(f"{type(error).__name__}: {error}") from None
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._free.append((reader, writer, time.monotonic()))
        if status != HTTPStatus.OK:
            raise Lost(f"{status} {body.decode(errors='replace')}")
        try:
            return str(json.loads(body)["choices"][0]["message"]["content"])
        except (ValueError, LookupError) as error:
            raise Lost(f"{type(error).__name__}: {error}") from None

    async def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer, since = self._free.pop()
            if time.monotonic() - since < IDLE_SECONDS and not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address)


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """An answer with a length, as the gateway gives to a call that is no stream."""
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(line.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


class Pace:
    def __init__(self) -> None:
        self._connections = Connections()
        self._began = time.monotonic()
        self._started = self._answered = self._most = self._waited = 0
        self._latest = 0.0
        self._lost: list[str] = []
        self._said = ""
        self._under_way: set[asyncio.Task[None]] = set()
        self._ends = float("inf")

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        telling = asyncio.create_task(self._tell())
        places = asyncio.Semaphore(MOST)
        while self._due(self._started) < self._ends:
            await asyncio.sleep(max(0.0, self._due(self._started) - time.monotonic()))
            self._waited += places.locked()
            await places.acquire()
            if self._due(self._started) >= self._ends:  # the end came meanwhile
                break
            self._latest = max(self._latest, time.monotonic() - self._due(self._started))
            self._started += 1
            call = asyncio.create_task(self._call())
            self._under_way.add(call)
            self._most = max(self._most, len(self._under_way))
            call.add_done_callback(self._under_way.discard)
            call.add_done_callback(lambda _: places.release())
        await asyncio.gather(*self._under_way)
        telling.cancel()
        self._print()

    def _end(self) -> None:
        self._ends = time.monotonic()

    def _due(self, slot: int) -> float:
        return self._began + slot * EVERY_SECONDS

    def _asked(self) -> int:
        """Slots that have come."""
        return int((min(time.monotonic(), self._ends) - self._began) / EVERY_SECONDS) + 1

    async def _call(self) -> None:
        try:
            self._said = await self._connections.ask()
            self._answered += 1
        except Lost as lost:
            self._lost.append(f"{time.time():.2f} {lost}"[:300])

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._print()

    def _print(self) -> None:
        sums = {"asked": self._asked(), "started": self._started, "answered": self._answered, "failed": len(self._lost)}
        fared = {"most": self._most, "waited": self._waited, "latest": round(self._latest, 3)}
        spent = {"cpu": round(time.process_time(), 2), "seconds": round(time.monotonic() - self._began, 2)}
        print(json.dumps({**sums, "said": self._said, "lost": self._lost[:5], **fared, **spent}), flush=True)


if __name__ == "__main__":
    asyncio.run(Pace().run())

"""One connection to the server: commands go out as they come, answers come back in their order (RESP2).

Many calls share it. Each command has a callback that is called exactly once, with its answer or with `Lost`, whether or
not anybody still waits: so a call that is cancelled leaves no answer unread and no one else's in its place, and what a
late answer has counted can be taken back. Clients with a pool give a call a connection of its own and must close it
when the call is cancelled; then nobody knows what was counted, and a storm of departures is a storm of handshakes.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable

import hiredis

from llmroute_sidecar.policy.limits.shared import Words

MAX_WAITING = 20_000
"""Commands without an answer, at most."""


class Lost(Exception):
    """The connection ended before the answer came: whether the command was carried out, nobody knows."""


class Full(Exception):
    """Too many commands wait for their answers."""


class ErrorReply(Exception):
    """The server's own error. `code` is its first word, as in `NOAUTH`; the rest is not for people."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.text = text


Answer = object
OnAnswer = Callable[[Answer], None]
"""Takes an answer, an ErrorReply or Lost; must not raise."""


class Connection(asyncio.Protocol):
    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._waiting: deque[OnAnswer] = deque()
        self._transport: asyncio.Transport | None = None

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while True:
                answer = self._reader.gets()
                if answer is False:
                    return
                if isinstance(answer, hiredis.ReplyError):
                    text = str(answer)
                    answer = ErrorReply(text.partition(" ")[0], text)
                self._waiting.popleft()(answer)
        except (hiredis.ProtocolError, IndexError):  # no server of this kind, or an answer that nobody asked for
            self.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for on_answer in waiting:
            on_answer(Lost())
        self._on_lost()

    @property
    def ended(self) -> bool:
        return self._transport is None

    # -- commands ----------------------------------------------------------------------------------------------------

    def send(self, words: Words, on_answer: OnAnswer) -> None:
        """Raises Full, and Lost where the connection has ended; then `on_answer` is not called."""
        if self._transport is None or self._transport.is_closing():
            raise Lost
        if len(self._waiting) >= MAX_WAITING:
            raise Full
        self._waiting.append(on_answer)
        self._transport.write(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type] # its stubs take one word only

    async def ask(self, words: Words) -> Answer:
        """One answer. Raises ErrorReply and Lost."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def on_answer(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        self.send(words, on_answer)
        answer = await future
        if isinstance(answer, Lost | ErrorReply):
            raise answer
        return answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def connect(host: str, port: int, tls: ssl.SSLContext | None, on_lost: Callable[[], None]) -> Connection:
    """Raises OSError, ssl.SSLError among them."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(on_lost), host, port, ssl=tls, server_hostname=host if tls is not None else None
    )
    return connection

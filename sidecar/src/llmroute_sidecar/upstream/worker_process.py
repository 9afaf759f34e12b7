"""One process that runs `litellm_worker/`, from its launch to its end: its surroundings, its log, the way in.

Whether there should be one is `worker.py`'s to say.
"""

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Literal

import msgspec

logger = logging.getLogger("llmroute.litellm")

PROGRAM = Path(__file__).resolve().parents[1] / "litellm_worker"
END_SECONDS = 2.0
"""For it to end by itself once its channel is closed."""
_ENVIRONMENT = {
    "PATH": os.defpath,
    "HOME": "/nonexistent",  # no ~/.aws, no caches
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list from the internet at import
    "LITELLM_MODE": "PRODUCTION",  # else it reads a .env file from wherever one is above its own folder
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "WARNING",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
    "AWS_EC2_METADATA_DISABLED": "true",  # credentials come from Secrets, not from whom the pod could ask
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What it knows of its surroundings; of the gateway's own environment only `_PASSED_ON`."""
_PASSED_ON = ("LANG", "LC_ALL", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ")
_LINES_TOLD_MAX = 100


class Died(Exception):
    """The process ended before it was ready."""


class _Event(msgspec.Struct):
    """A line of its standard output. What may stand there is fixed, so that nothing else gets into the log."""

    event: Literal["ready", "logged"]
    litellm: str = ""
    seconds: float = 0.0
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    logger: str = ""
    at: str = ""
    exception: str | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class WorkerProcess:
    """A process and what goes in and out of it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
        upstream: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.pid = process.pid
        self.unwanted = False
        """It was told to end."""
        self._process = process
        self._channel = channel
        self._upstream = upstream
        self._loop = loop
        self._ready: asyncio.Future[None] = loop.create_future()
        self._following = [loop.create_task(self._follow_events()), loop.create_task(self._drain_errors())]
        self._log(logging.INFO, "litellm worker starts", pid=self.pid)

    @classmethod
    async def launch(cls, python: Path, upstream: str, loop: asyncio.AbstractEventLoop) -> "WorkerProcess":
        """Starts one; `upstream` is what the log calls it. Raises OSError."""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    str(python),
                    "-I",
                    str(PROGRAM),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={**_ENVIRONMENT, **environment},
                    cwd="/",
                    start_new_session=True,  # a terminal's Ctrl-C is for the gateway, which drains first
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return cls(process, ours, upstream, loop)

    async def ready(self, within: float) -> None:
        """Returns when it takes calls. Raises Died, or TimeoutError when the seconds are over."""
        async with asyncio.timeout(within):
            await asyncio.shield(self._ready)

    def hand_over(self, connection: socket.socket) -> None:
        """Gives it one end of a connection. Raises OSError."""
        socket.send_fds(self._channel, [b"c"], [connection.fileno()])

    @property
    def resident_bytes(self) -> int:
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0  # it has just ended, or this is no Linux
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def wait(self) -> int:
        """Its exit code, once it has ended and all that it said was read."""
        code = await self._process.wait()
        await asyncio.gather(*self._following, return_exceptions=True)
        self._channel.close()
        if not self._ready.done():
            self._ready.set_exception(Died())
            self._ready.exception()  # perhaps nobody waits for it
        return code

    def tell_to_end(self) -> None:
        if not self.unwanted:
            self.unwanted = True
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            self._loop.call_later(END_SECONDS, self.kill)

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _follow_events(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while line := await _line(stdout):
            try:
                event = _decode_event(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if event.event == "ready" and not self._ready.done():
                self._ready.set_result(None)
                fields = {"pid": self.pid, "litellm": event.litellm, "import_seconds": event.seconds}
                self._log(logging.INFO, "litellm worker is ready", **fields)
            elif event.event == "logged":
                level = logging.getLevelName(event.level.upper())
                where = f"{event.logger} {event.at}"[:200]
                self._log(level, "litellm logged something", at=where, exception=event.exception)

    async def _drain_errors(self) -> None:
        """Standard error, with all that is printed. Until it is ready it has seen no call: the text is told, as it says
        what keeps it from starting. After that it may quote keys and prompts: only its size is told."""
        stderr = self._process.stderr
        assert stderr is not None
        told = 0
        while data := await stderr.read(16 * 1024):
            if self._ready.done():
                self._log(logging.DEBUG, "litellm printed something", bytes=len(data))
                continue
            for line in data.decode("utf-8", "replace").splitlines():
                if line.strip() and told < _LINES_TOLD_MAX:
                    told += 1
                    self._log(logging.WARNING, "litellm worker says", text=line[:500])

    def _log(self, level: int, message: str, **fields: object) -> None:
        logger.log(level, message, extra={"fields": {"upstream": self._upstream, **fields}})


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line; b"" at the end. One that is longer than any of ours is passed over."""
    while True:
        try:
            return await stream.readline()
        except ValueError:
            continue

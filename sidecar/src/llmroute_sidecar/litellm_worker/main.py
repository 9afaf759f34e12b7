"""The worker's process: its end, its log, the channel from the gateway, the HTTP server.

*Its end.* It is killed first when memory runs out (oom_score_adj), dies with the gateway (PR_SET_PDEATHSIG, and the
end of the channel), and needs no farewell: when the channel ends, no call is left.

*Its connections.* Standard input is a unix socket from the gateway, over which connections come as descriptors, one a
byte. So there is no socket in a file system or on a port: nobody else can connect, and nothing is left behind.

*Its log.* Standard output is for the gateway, one JSON object a line, in a fixed shape. What litellm logs and prints
may quote keys and prompts: of its log records only level, place and exception type are told, and what it prints goes to
standard error, which the gateway shows only until the worker is ready, when it has seen no request yet.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

_PR_SET_PDEATHSIG = 1  # prctl(2)
BODY_MAX_BYTES = 256 * 1024 * 1024
"""The gateway bounds bodies; this is only not to have aiohttp's own bound."""


def main() -> None:
    _die_first_and_with_the_gateway()
    events = os.dup(1)
    os.dup2(2, 1)  # what is printed is not for the gateway's log
    logging.basicConfig(handlers=[_Told(events)], level=logging.WARNING, force=True)
    channel = socket.socket(fileno=os.dup(0))
    began = time.monotonic()
    version = _prepare_litellm()
    asyncio.run(_serve(channel, events, version, time.monotonic() - began))


def _die_first_and_with_the_gateway() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before it was asked for
            os._exit(0)


def _prepare_litellm() -> str:
    """Imports litellm, silent and mended; returns its version."""
    import importlib.metadata
    import tempfile

    # litellm asks at import for the place of temporary files, which is looked for by writing, and there may be none.
    tempfile.tempdir = os.environ.get("TMPDIR", "/nonexistent")
    import litellm

    from llmroute_sidecar.litellm_worker.mending import mend

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.turn_off_message_logging = True
    litellm.drop_params = False
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    mend()
    gc.collect()
    gc.freeze()
    return importlib.metadata.version("litellm")


async def _serve(channel: socket.socket, events: int, version: str, seconds: float) -> None:
    from aiohttp import web

    from llmroute_sidecar.litellm_worker.calls import serve

    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_MAX_BYTES)

    server = web.Server(serve, request_factory=request, handler_cancellation=True, access_log=None)
    channel.setblocking(False)
    over = loop.create_future()
    loop.add_reader(channel, _take_connections, channel, server, loop, over)
    _tell(events, {"event": "ready", "litellm": version, "seconds": round(seconds, 3)})
    await over
    os._exit(0)  # no call is left, and litellm's threads need not be waited for


def _take_connections(
    channel: socket.socket, server: "web.Server", loop: asyncio.AbstractEventLoop, over: "asyncio.Future[None]"
) -> None:
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(server, connection))
            _under_way.add(task)
            task.add_done_callback(_under_way.discard)
        if not data:
            loop.remove_reader(channel)
            if not over.done():
                over.set_result(None)
            return


_under_way: set["asyncio.Task[object]"] = set()


class _Told(logging.Handler):
    """Tells of a log record what cannot quote anybody."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0] if record.exc_info else None
        _tell(
            self._events,
            {
                "event": "logged",
                "level": record.levelname.lower(),
                "logger": record.name[:60],
                "at": f"{record.filename}:{record.lineno}",
                "exception": error.__name__ if error is not None else None,
            },
        )


def _tell(events: int, event: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        os.write(events, json.dumps(event).encode() + b"\n")  # shorter than PIPE_BUF: never interleaved

"""Log lines: one JSON object a line on stdout, for each request and each event.

Lines are gathered for a moment and written at once: a write a line would cost more than the line. Standard-library
loggers (our own events, asyncio) are sent through the same writer. Values are texts and numbers of the
gateway's own making; what clients send (bodies, headers, keys) is never handed to this module.
"""

import asyncio
import logging
import os
import sys
import time
import traceback

import msgspec

FLUSH_SECONDS = 0.05
BUFFER_MAX_BYTES = 256 * 1024

_encode = msgspec.json.Encoder().encode


class LogWriter:
    """Writes lines to a file descriptor, in batches while an event loop runs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on lines may wait for up to FLUSH_SECONDS. Before it each is written at once."""
        self._loop = loop

    def write(self, fields: "dict[str, object] | msgspec.Struct") -> None:
        line = _encode(fields) + b"\n"
        self._lines.append(line)
        self._size += len(line)
        if self._loop is None or self._size > BUFFER_MAX_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data = memoryview(b"".join(self._lines))
        self._lines.clear()
        self._size = 0
        try:
            while data:
                written = os.write(self._fd, data)  # by itself: mypyc works a slice's bound out twice
                data = data[written:]
        except OSError:
            return  # nobody reads any more: serving goes on without a log

    def detach(self) -> None:
        """Writes what waits, and each later line at once."""
        self.flush()
        self._loop = None


_second = 0
_second_text = ""


def timestamp(now: float) -> str:
    """RFC 3339 in UTC with milliseconds; the part down to the second is made once a second."""
    global _second, _second_text
    whole = int(now)
    if whole != _second:
        _second = whole
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    millis = str(1000 + int((now - whole) * 1000))[1:]  # a tenth of what a format costs, compiled
    return f"{_second_text}.{millis}Z"


class JsonHandler(logging.Handler):
    """Sends standard-library log records to a LogWriter."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {
            "timestamp": timestamp(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        extra = getattr(record, "fields", None)
        if isinstance(extra, dict):
            fields.update(extra)
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = exception_text(record.exc_info[1])
        self._writer.write(fields)


def exception_text(error: BaseException) -> str:
    """Where and of what type an exception was, without its message: messages quote data."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = " < ".join(
        f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in reversed(frames)
    )
    return f"{type(error).__name__} in {places}" if places else type(error).__name__


def configure(level: str) -> LogWriter:
    """Makes stdout the place of all log lines from `level` up, and returns the writer."""
    writer = LogWriter(sys.stdout.fileno())
    root = logging.getLogger()
    root.handlers[:] = [JsonHandler(writer)]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel("WARNING")
    return writer

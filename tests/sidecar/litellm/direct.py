"""The worker's program run by hand, spoken to as the gateway does: connections handed over its standard input."""

import http.client
import json
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

from llmroute_sidecar.upstream.worker_process import _ENVIRONMENT, PROGRAM
from tests.waiting import HANGS_AFTER


class DirectWorker:
    def __init__(self, python: Path) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [str(python), "-I", str(PROGRAM)],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
            )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["event"] == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._channel, [b"c"], [theirs.fileno()])
        ours.settimeout(HANGS_AFTER)
        return ours

    def call(self, path: str, parameters: dict[str, Any], body: Any) -> "WorkerAnswer":
        """One call on a connection of its own."""
        connection = http.client.HTTPConnection("worker")
        connection.sock = self.connect()
        try:
            connection.request("POST", path, wire(parameters, body))
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            try:
                content, whole = answer.read(), True
            except http.client.IncompleteRead as cut:
                content, whole = cut.partial, False
            return WorkerAnswer(answer.status, headers, content, whole)
        finally:
            connection.close()


def wire(parameters: dict[str, Any], body: Any) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.dumps({"timeout": 60, "api_key": None, **parameters}).encode() + b"\n" + content


class WorkerAnswer:
    def __init__(self, status: int, headers: dict[str, str], content: bytes, whole: bool) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.whole = whole
        """False: the connection was dropped in the middle."""

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.content)
        return document

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def events(self) -> list[dict[str, Any]]:
        """The stream's events, less the [DONE]."""
        return events_of(self.content)


def events_of(content: bytes) -> list[dict[str, Any]]:
    lines = [line for line in content.split(b"\n\n") if line.startswith(b"data: {")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])

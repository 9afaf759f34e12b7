"""What all clients together may take: connections, and memory for large bodies. Who comes with more is told to come
back, and nobody else notices."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmroute_sidecar.server.head import ServerLimits
from tests.gateway_process import KEY
from tests.sidecar.short_limits import running_with_short_limits
from tests.waiting import wait_until

pytestmark = pytest.mark.server

LARGE = 60_000
BODIES = ServerLimits(bodies=100_000)
CONNECTIONS = ServerLimits(connections=2)


def post(size: int) -> bytes:
    """A call whose body has `size` bytes."""
    body = json.dumps({"model": "gpt", "messages": [], "pad": ""}).encode()
    body = body[:-2] + b"x" * (size - len(body)) + body[-2:]
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\ncontent-length: {size}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        yield client


def answer(client: socket.socket) -> tuple[int, str]:
    """Status and head of the next answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += client.recv(65536)
    return int(head.split(b" ")[1]), data.decode()


def asked(client: socket.socket, whole: bytes) -> tuple[int, str]:
    client.sendall(whole)
    return answer(client)


def refusal(client: socket.socket, whole: bytes) -> str | None:
    status, told = asked(client, whole)
    return told if status == 503 else None


def first_answer(port: int, whole: bytes) -> int:
    with connected(port) as client:
        return asked(client, whole)[0]


def test_bodies_that_together_are_too_large_are_told_to_come_back(tmp_path: Path) -> None:
    whole = post(LARGE)
    with running_with_short_limits(tmp_path, BODIES) as port, connected(port) as first:
        first.sendall(whole[:-1])
        with connected(port) as second:
            refused = wait_until(lambda: refusal(second, whole), "the first one's bytes to have been read")
            assert '"code":"overloaded"' in (refused or "")
            assert "retry-after: 1" in (refused or "")
            first.sendall(whole[-1:])
            assert answer(first)[0] == 200
            assert asked(second, whole)[0] == 200  # the same connection: what was refused was read to its end


def test_a_client_that_leaves_gives_its_room_back(tmp_path: Path) -> None:
    whole = post(LARGE)
    with running_with_short_limits(tmp_path, BODIES) as port, connected(port) as other:
        with connected(port) as leaver:
            leaver.sendall(whole[:-1])
        wait_until(lambda: asked(other, whole)[0] == 200, "the leaver's room")


def test_small_bodies_need_no_room(tmp_path: Path) -> None:
    with running_with_short_limits(tmp_path, ServerLimits(bodies=1)) as port, connected(port) as client:
        assert asked(client, post(10_000))[0] == 200
        assert asked(client, post(LARGE))[0] == 503


def test_a_connection_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    whole = post(1000)
    with running_with_short_limits(tmp_path, CONNECTIONS) as port, connected(port) as first, connected(port) as second:
        for client in (first, second):
            assert asked(client, whole)[0] == 200
        with connected(port) as third:
            status, told = answer(third)
            assert (status, '"code":"overloaded"' in told) == (503, True)
            assert "connection: close" in told
        second.close()
        wait_until(lambda: first_answer(port, whole) == 200, "the end of the second to be heard of")
        assert asked(first, whole)[0] == 200

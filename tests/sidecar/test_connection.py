"""The serving side of HTTP/1.1 without a socket: however requests are cut into packets, the answers are the same."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import Answer, ErrorCode, error
from llmroute_sidecar.server.connection import Connection
from llmroute_sidecar.server.head import ServerLimits
from llmroute_sidecar.server.room import Room
from llmroute_sidecar.server.turn import Turn

LIMITS = ServerLimits(head=1024, header_count=20, path=200, body=500, discard=100, pipelined=64, waiting=300)


class Transport(asyncio.Transport):
    """Takes what is written, and plays a client that reads or not."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.paused = self.closed = self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        assert not self.ended
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Echo:
    """Answers with what it was asked, and counts what begins and what ends."""

    def __init__(self) -> None:
        self.begun: list[Call] = []
        self.ended: list[Call] = []

    def template(self, method: str, path: str) -> str:
        return path

    def begin(self, call: Call) -> None:
        self.begun.append(call)

    def screen(self, call: Call) -> Answer | None:
        return self.refuse(call, "unknown_url", "no") if call.path == "/no" else None

    async def serve(self, call: Call, reply: Turn) -> None:
        if call.path == "/slow":
            await asyncio.sleep(0)
        reply.whole(200, [(b"x-asked", call.path.encode())], bytes(call.body))

    def refuse(self, call: Call, code: ErrorCode, message: str) -> Answer:
        return error(code, message)

    def close(self, call: Call, status: int) -> None:
        self.ended.append(call)

    def draining(self) -> bool:
        return False


def request(path: str, body: bytes, kind: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: id\r\ntraceparent: 00-{'a' * 32}-{'b' * 16}-01\r\n"
    )
    match kind:
        case "chunked":
            pieces = b"".join(
                b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7)
            )
            return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + pieces + b"0\r\nx-trailer: t\r\n\r\n"
        case "upgrade":
            head += "connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
            return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        case "get":
            return f"GET {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: id\r\n\r\n".encode()
        case "broken":
            return b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n" + body
        case _:
            return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


REQUESTS = st.lists(
    st.builds(
        request,
        st.sampled_from(["/a", "/slow", "/no"]),
        st.binary(max_size=60),
        st.sampled_from(["plain", "chunked", "upgrade", "get"]),
    ),
    min_size=1,
    max_size=6,
)


async def answers(pieces: list[bytes], meanwhile: Callable[[Connection], Awaitable[None]] | None = None) -> bytes:
    """What comes back for `pieces`, each a packet; checked for calls that were not closed, or twice."""
    handler, transport = Echo(), Transport()
    connections: set[Connection] = set()
    room = Room(LIMITS.bodies)
    connection = Connection(handler, LIMITS, asyncio.get_running_loop(), connections, room, None)
    connection.connection_made(transport)
    waiting = list(pieces)
    for _ in range(2000):
        if waiting and not transport.paused and not transport.closed:
            connection.data_received(waiting.pop(0))
        elif not waiting and len(handler.begun) == len(handler.ended):
            break
        if meanwhile is not None:
            await meanwhile(connection)
        await asyncio.sleep(0)
    connection.connection_lost(None)
    assert handler.begun == handler.ended
    assert not connections
    assert room.free == LIMITS.bodies
    return _without_spans(bytes(transport.written))


def _without_spans(text: bytes) -> bytes:
    """Without what is made anew for each request."""
    made = (b"traceparent:", b"x-trace-id:", b"x-request-id:")
    return b"\r\n".join(line for line in text.split(b"\r\n") if not line.startswith(made))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(marks)]


@given(REQUESTS, st.lists(st.integers(0, 5000), max_size=20), st.sampled_from(["", "broken"]))
@settings(max_examples=300, deadline=None)
def test_however_requests_are_cut_into_packets_the_answers_are_the_same(
    requests: list[bytes], places: list[int], ending: str
) -> None:
    data = b"".join(requests) + (request("/x", b"", ending) if ending else b"")

    async def main() -> tuple[bytes, bytes, bytes]:
        one_by_one = [*requests, *([request("/x", b"", ending)] if ending else [])]
        return await answers([data]), await answers(cut(data, places)), await answers(one_by_one)

    whole, in_pieces, one_by_one = asyncio.run(main())
    assert whole == in_pieces == one_by_one
    assert whole.count(b"HTTP/1.1 ") >= len(requests) + bool(ending)


@given(REQUESTS, st.lists(st.integers(0, 5000), max_size=20), st.lists(st.booleans(), max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_client_that_reads_now_and_then_gets_the_same_answers(
    requests: list[bytes], places: list[int], reads: list[bool]
) -> None:
    data = b"".join(requests)

    async def main() -> tuple[bytes, bytes]:
        moods = iter(reads)

        async def mood(connection: Connection) -> None:
            reads_now = next(moods, True)
            if not reads_now and not connection.write_paused:
                connection.pause_writing()
            elif reads_now and connection.write_paused:
                connection.resume_writing()

        return await answers(cut(data, places)), await answers(cut(data, places), mood)

    eager, moody = asyncio.run(main())
    assert eager == moody


@given(REQUESTS, st.lists(st.integers(0, 5000), max_size=20), st.binary(max_size=30), st.integers(0, 5000))
@settings(max_examples=200, deadline=None)
def test_no_bytes_anywhere_leave_a_call_open(
    requests: list[bytes], places: list[int], noise: bytes, place: int
) -> None:
    data = b"".join(requests)
    place %= len(data) + 1
    noisy = data[:place] + noise + data[place:]
    asyncio.run(answers(cut(noisy, places)))  # checks that each call that began has ended, once

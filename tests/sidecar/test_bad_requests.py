"""Requests that are wrong, hostile or half: each meets its row of the error table, and nothing stops or leaks."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import Provider, providing
from tests.sidecar.short_limits import running_with_short_limits
from tests.waiting import wait_until

pytestmark = pytest.mark.server
PATH = "/v1/chat/completions"
AUTH = f"authorization: Bearer {KEY}\r\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    chat = spec(
        provider.url,
        upstreams=[upstream("provider", provider.url), upstream("mock", "mock://local?tokens=99999")],
        models=[
            {"name": "gpt", "targets": [{"upstream": "provider"}]},
            {"name": "large", "targets": [{"upstream": "mock"}]},
        ],
    )
    with running(tmp_path_factory.mktemp("gateway"), {"chat": chat}) as gateway:
        yield gateway


def exchange(gateway: GatewayProcess, data: bytes, *more: bytes) -> bytes:
    """Sends `data` raw and reads until the gateway closes; `more` follows piece by piece."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        try:
            for piece in (data, *more):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has said no and closed
        got = b""
        try:
            while part := connection.recv(65536):
                got += part
        except ConnectionResetError:
            pass
        return got


def raw(body: bytes, *lines: str, method: str = "POST", path: str = PATH, host: str = "host: localhost\r\n") -> bytes:
    extra = "".join(f"{line}\r\n" for line in lines)
    head = f"{method} {path} HTTP/1.1\r\n{host}{AUTH}connection: close\r\n{extra}"
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        head += f"content-length: {len(body)}\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def status_and_code(answer: bytes) -> tuple[int, str | None]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    return status, json.loads(body)["error"]["code"] if status >= 400 else None


DEEP = b'{"model":"gpt","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "invalid_request"),
    "not JSON": (b"hello", 400, "invalid_request"),
    "cut JSON": (b'{"model":"gpt","messages":[', 400, "invalid_request"),
    "two documents": (b'{"model":"gpt"}{"model":"gpt"}', 400, "invalid_request"),
    "a list": (b'[{"model":"gpt"}]', 400, "invalid_request"),
    "a text": (b'"gpt"', 400, "invalid_request"),
    "null": (b"null", 400, "invalid_request"),
    "no model": (b'{"messages":[]}', 400, "invalid_request"),
    "model is a number": (b'{"model":1}', 400, "invalid_request"),
    "model is null": (b'{"model":null}', 400, "invalid_request"),
    "model is a list": (b'{"model":["gpt"]}', 400, "invalid_request"),
    "model is empty": (b'{"model":""}', 400, "invalid_request"),
    "model is very long": (b'{"model":"' + b"m" * 100_000 + b'"}', 400, "invalid_request"),
    "model has a line break": (b'{"model":"gpt\\r\\nx-evil: 1"}', 400, "invalid_request"),
    "stream is a text": (b'{"model":"gpt","stream":"yes"}', 400, "invalid_request"),
    "invalid UTF-8": (b'{"model":"gpt","user":"\xff\xfe"}', 400, "invalid_request"),
    "a lone surrogate": (b'{"model":"gpt","user":"\xed\xa0\x80"}', 400, "invalid_request"),
    "nested 100,000 deep": (DEEP, 400, "invalid_request"),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"gpt"}', 400, "invalid_request"),
    "NaN": (b'{"model":"gpt","temperature":NaN}', 400, "invalid_request"),
    "unknown model": (b'{"model":"other"}', 404, "model_not_found"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_meets_its_row(gateway: GatewayProcess, provider: Provider, name: str) -> None:
    body, status, code = BODIES[name]
    before = len(provider.requests)
    answer = gateway.post(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]
    assert len(provider.requests) == before


HEADS: dict[str, tuple[bytes, int]] = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "no host": (raw(b"{}", host=""), 400),
    "two hosts": (raw(b"{}", "host: y"), 400),
    "two content lengths": (raw(b"{}", "content-length: 2", "content-length: 3"), 400),
    "a length and chunks": (raw(b"0\r\n\r\n", "content-length: 5", "transfer-encoding: chunked"), 400),
    "chunks of something packed": (raw(b"0\r\n\r\n", "transfer-encoding: gzip, chunked"), 400),
    "two transfer codings": (raw(b"0\r\n\r\n", "transfer-encoding: identity", "transfer-encoding: chunked"), 400),
    "an unknown transfer coding": (raw(b"0\r\n\r\n", "transfer-encoding: xchunked"), 400),
    "an unknown transfer coding beside an upgrade": (
        raw(b"0\r\n\r\n", "transfer-encoding: xchunked", "connection: upgrade", "upgrade: h2c"),
        400,
    ),
    "a negative length": (raw(b"{}", "content-length: -2"), 400),
    "a length in words": (raw(b"{}", "content-length: two"), 400),
    "a bad chunk": (raw(b"zz\r\nhello\r\n0\r\n\r\n", "transfer-encoding: chunked"), 400),
    "a space before the colon": (raw(b"{}", "x-header : y"), 400),
    "a folded header": (raw(b"{}", "x-header: a\r\n b"), 400),
    "a zero byte in a header": (raw(b"{}", "x-header: a\x00b"), 400),
    "a bare line feed in a header": (raw(b"{}", "x-header: a\nx-evil: b"), 400),
    "a percent escape": (raw(b"{}", path="/v1/chat%2Fcompletions"), 400),
    "a bad percent escape": (raw(b"{}", path="/v1/%zz"), 400),
    "a dot segment": (raw(b"{}", path="/v1/../metrics"), 400),
    "an absolute form": (raw(b"{}", path="http://evil.invalid/v1/chat/completions"), 400),
    "a control character in the path": (raw(b"{}", path="/v1/\x01"), 400),
    "an unknown method": (raw(b"{}", method="BREW"), 400),
    "CONNECT": (b"CONNECT evil.invalid:443 HTTP/1.1\r\nhost: evil.invalid:443\r\n\r\n", 400),
    "a fragment": (raw(b"{}", path="/v1/chat#completions"), 400),
    "an upgrade of something that cannot be": (
        raw(b"", "connection: upgrade", "upgrade: websocket", method="GET"),
        405,
    ),
    "a packed body": (raw(b'{"model":"gpt"}', "content-encoding: deflate"), 400),
    "another expectation": (raw(b"{}", "expect: 200-ok"), 400),
    "a head above the limit": (raw(b"{}", *(f"x-filler-{n}: {'y' * 1000}" for n in range(100))), 431),
    "too many headers": (raw(b"{}", *(f"x-{n}: y" for n in range(200))), 431),
    "a long path": (raw(b"{}", path="/v1/" + "p" * 20_000), 431),
    "a length above the limit": (raw(b"", "content-length: 99999999999"), 413),
    "an absurd length": (raw(b"", "content-length: 999999999999999999999999"), 400),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_wrong_head_meets_its_row(gateway: GatewayProcess, provider: Provider, name: str) -> None:
    data, status = HEADS[name]
    before = len(provider.requests)
    answer = exchange(gateway, data)
    assert status_and_code(answer)[0] == status, answer[:300]
    assert b"x-request-id: " in answer
    assert len(provider.requests) == before


@pytest.mark.parametrize(
    "told",
    [
        ("content-type: application/x-www-form-urlencoded",),
        ("content-type: application/json; charset=utf-7",),
        ("content-type: multipart/form-data; boundary=b",),
        ("content-type: application/json", "content-type: text/plain"),
        (),
    ],
)
def test_a_body_goes_on_as_what_it_was_read_as(gateway: GatewayProcess, provider: Provider, told: list[str]) -> None:
    """Read as a form, this one asks for another model than was checked."""
    body = b'{"model":"gpt","user":"&model=other&"}'
    assert exchange(gateway, raw(body, *told)).startswith(b"HTTP/1.1 200 ")
    assert provider.requests[-1].headers["content-type"] == "application/json"


def test_a_large_body_is_refused_before_it_is_read(gateway: GatewayProcess) -> None:
    before = gateway.memory_kib()
    answer = exchange(gateway, raw(b"x" * 1_000_000, f"content-length: {64 * 1024 * 1024}"))
    assert status_and_code(answer) == (413, "request_too_large")
    assert gateway.memory_kib() - before < 16 * 1024


def test_a_refused_body_is_not_awaited_to_its_end(gateway: GatewayProcess) -> None:
    """Nor is one that is small enough to keep the connection, when it stops coming: see the short limits below."""
    answer = exchange(gateway, raw(b"x" * 1000, f"content-length: {2 * 1024 * 1024}", path="/nothing"))
    assert status_and_code(answer) == (404, "unknown_url")
    answer = exchange(gateway, raw(b"x" * 1000, f"content-length: {2 * 1024 * 1024}", path="/health"))
    assert status_and_code(answer) == (405, "method_not_allowed")


def test_a_refused_request_leaves_its_connection_usable(gateway: GatewayProcess) -> None:
    refused = raw(b"x" * 100_000, path="/nothing").replace(b"connection: close\r\n", b"")
    answer = exchange(gateway, refused + raw(b'{"model":"gpt"}'))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\n\r\n" in answer.partition(b"HTTP/1.1 200 ")[2]


def test_a_body_in_tiny_chunks_costs_no_more_than_its_size(gateway: GatewayProcess, provider: Provider) -> None:
    count = 1_000_000
    text = b'{"model":"gpt","user":"' + b"xy" * count + b'"}'
    before = gateway.memory_kib()
    pieces = b"".join(b"2\r\n%b\r\n" % text[at : at + 2] for at in range(0, len(text) - 1, 2))
    pieces += b"1\r\n%b\r\n" % text[-1:] if len(text) % 2 else b""
    answer = exchange(gateway, raw(b"", "transfer-encoding: chunked"), pieces + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert provider.requests[-1].body == text
    provider.requests.clear()
    assert gateway.memory_kib() - before < 24 * 1024  # a list of two-byte texts would be 50 MiB


def test_a_trailer_is_not_taken_for_a_header(gateway: GatewayProcess, provider: Provider) -> None:
    """RFC 9110 §6.5.1: what comes after the body cannot name another key, nor reach the upstream as a header."""
    body = b'f\r\n{"model":"gpt"}\r\n0\r\nx-api-key: another\r\nx-evil: 1\r\n\r\n'
    assert exchange(gateway, raw(body, "transfer-encoding: chunked")).startswith(b"HTTP/1.1 200 ")
    assert "x-evil" not in provider.requests[-1].headers


@pytest.mark.parametrize("endless", [b"x: " + b"y" * 600_000, b"x: y\r\n" * 100_000], ids=["one line", "many lines"])
def test_trailers_without_end_are_refused(gateway: GatewayProcess, endless: bytes) -> None:
    head = raw(b'f\r\n{"model":"gpt"}\r\n0\r\n', "transfer-encoding: chunked")
    answer = exchange(gateway, head, *(endless[at : at + 10_000] for at in range(0, len(endless), 10_000)))
    assert status_and_code(answer) == (400, "invalid_request")


@pytest.mark.parametrize("streamed", [b"", b',"stream":true'], ids=["plain", "streamed"])
def test_an_offered_upgrade_is_ignored(gateway: GatewayProcess, provider: Provider, streamed: bytes) -> None:
    """RFC 9110 §7.8. Java's HTTP client offers h2c with each request; what follows belongs to the next one."""
    body = b'{"model":"gpt"' + streamed + b"}"
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAB")
    first = raw(body, *offer, "x-request-id: offer").replace(b"connection: close\r\n", b"")
    answer = exchange(gateway, first + raw(body, "x-request-id: next"))
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.index(b"x-request-id: offer") < answer.index(b"x-request-id: next")
    assert not provider.requests[-2].headers.keys() & {"upgrade", "http2-settings"}


def test_nothing_behind_a_connect_is_taken_for_a_request(gateway: GatewayProcess) -> None:
    connect = HEADS["CONNECT"][0]
    answer = exchange(gateway, connect + raw(b'{"model":"gpt"}'))
    assert answer.count(b"HTTP/1.1 ") == 1
    first = raw(b"{}").replace(b"connection: close\r\n", b"")
    answer = exchange(gateway, first + connect + raw(b'{"model":"gpt"}'))
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 400 ") == 2


def test_an_old_client_is_not_told_to_continue(gateway: GatewayProcess) -> None:
    """RFC 9110 §10.1.1: an expectation in HTTP/1.0 is ignored."""
    body = b'{"model":"gpt"}'
    request = raw(body, "expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = exchange(gateway, request)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"100 Continue" not in answer


def test_a_large_chunked_body_is_refused_once_it_is_above_the_limit(gateway: GatewayProcess) -> None:
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(raw(b"", "transfer-encoding: chunked"))
        try:
            for _ in range(40):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b" 413 " in connection.recv(4096)


def test_a_body_at_the_limit_goes_through(gateway: GatewayProcess, provider: Provider) -> None:
    body = b'{"model":"gpt","user":"' + b"x" * (32 * 1024 * 1024 - 25) + b'"}'
    assert len(body) == 32 * 1024 * 1024
    assert gateway.post(body).status_code == 200
    assert provider.requests[-1].body == body
    provider.requests.clear()
    assert gateway.post(body + b" ").status_code == 413


def test_without_a_key_the_body_is_not_awaited(gateway: GatewayProcess) -> None:
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n".encode()
    )
    answer = exchange(gateway, head)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer


def test_a_client_that_asks_first_is_told_to_continue(gateway: GatewayProcess) -> None:
    body = b'{"model":"gpt","messages":[]}'
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(raw(b"", "expect: 100-continue", f"content-length: {len(body)}"))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    def one(request_id: str) -> bytes:
        return raw(b'{"model":"gpt"}', f"x-request-id: {request_id}").replace(b"connection: close\r\n", b"")

    answer = exchange(gateway, one("a-1") + one("a-2") + raw(b'{"model":"gpt"}', "x-request-id: a-3"))
    places = [answer.index(f"x-request-id: a-{number}".encode()) for number in (1, 2, 3)]
    assert places == sorted(places)
    assert answer.count(b"HTTP/1.1 200 ") == 3


def test_a_request_behind_another_does_not_smuggle_itself_into_it(gateway: GatewayProcess, provider: Provider) -> None:
    """What follows a request's body is the next request, with its own key and its own checks."""
    first = raw(b'{"model":"gpt"}').replace(b"connection: close\r\n", b"")
    second = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 15\r\n\r\n".encode()
        + b'{"model":"gpt"}'
    )
    before = len(provider.requests)
    answer = exchange(gateway, first + second)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 401 ") == 1
    assert len(provider.requests) == before + 1


def test_a_broken_request_behind_a_good_one_takes_nothing_from_it(gateway: GatewayProcess) -> None:
    first = raw(b'{"model":"gpt"}').replace(b"connection: close\r\n", b"")
    answer = exchange(gateway, first + b"\x00\x01garbage\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answer


def test_a_broken_request_is_not_told_of_under_the_one_before_it(gateway: GatewayProcess) -> None:
    first = raw(b"", "x-request-id: the-good-one", method="GET", path="/health").replace(b"connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(first)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\x00garbage\r\n\r\n")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the-good-one" not in answer
    request_id = answer.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()
    line = gateway.request_line(request_id)
    assert (line["status"], line["path"]) == (400, "")
    text = gateway.get("/metrics").text
    assert 'method=""' not in text
    assert 'method="other"' in text


def test_a_client_that_does_not_read_its_answers_is_held_back(gateway: GatewayProcess) -> None:
    """Its next request waits until it has read: answers do not pile up here."""
    large = raw(b'{"model":"large"}').replace(b"connection: close\r\n", b"")
    before = gateway.memory_kib()

    def under_way() -> bool:
        """For longer than an answer takes."""
        return all(gateway.metric("gateway_in_flight_requests") > 0 for _ in range(20))

    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        for _ in range(200):
            connection.sendall(large)
            if under_way():
                break
        else:
            pytest.fail("200 answers of half a megabyte that nobody reads were written")
        assert gateway.memory_kib() - before < 24 * 1024
        while under_way():  # once it reads, the rest is answered
            connection.recv(1024 * 1024)
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the client to be gone")


@pytest.mark.parametrize("value", ["a\tb", "x" * 500, "ü", '"><script>', "a b", ""])
def test_an_unfit_request_id_is_replaced(gateway: GatewayProcess, value: str) -> None:
    answer = exchange(gateway, raw(b'{"model":"gpt"}', f"x-request-id: {value}"))
    line = next(line for line in answer.split(b"\r\n") if line.startswith(b"x-request-id: "))
    assert len(line) == len("x-request-id: ") + 32


def test_two_request_ids_are_replaced_by_one(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, raw(b'{"model":"gpt"}', "x-request-id: a", "x-request-id: b"))
    assert answer.count(b"\r\nx-request-id: ") == 1
    assert b"x-request-id: a\r\n" not in answer


def test_two_keys_that_differ_are_refused(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, raw(b'{"model":"gpt"}', "authorization: Bearer another"))
    assert status_and_code(answer) == (401, "invalid_api_key")


def test_an_old_client_is_answered_and_disconnected(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, b"GET /health HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


def test_a_head_request_gets_no_body(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, b"HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 15" in answer


def test_anthropics_path_is_refused_in_anthropics_shape(gateway: GatewayProcess) -> None:
    answer = gateway.post({"model": "other", "messages": []}, path="/v1/messages")
    assert answer.status_code == 404
    document = answer.json()
    assert document["type"] == "error"
    assert document["error"]["type"] == "not_found_error"


def test_after_all_this_the_gateway_serves_and_is_not_larger(gateway: GatewayProcess, provider: Provider) -> None:
    provider.requests.clear()
    before = gateway.memory_kib()
    for _ in range(30):
        exchange(gateway, raw(DEEP))
        exchange(gateway, HEADS["a head above the limit"][0])
    with httpx.Client() as client:
        assert client.post(gateway.url + PATH, json={"model": "gpt"}, headers={"x-api-key": KEY}).status_code == 200
    assert gateway.memory_kib() - before < 8 * 1024
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "nothing to be in flight")
    assert not [line for line in gateway.lines if "exc_info" in line]
    assert gateway.metric("gateway_requests_total", method="POST", path=PATH, status="500") == 0


def test_a_body_that_stops_half_way_is_given_up(tmp_path: Path) -> None:
    with running_with_short_limits(tmp_path) as port:
        for data, status, words in (
            (raw(b'{"model":', "content-length: 100"), b" 400 ", b"the body stopped before its end"),
            (raw(b"", "content-length: 100"), b" 400 ", b"the body stopped before its end"),
            (raw(b"x", "content-length: 100", path="/nothing"), b" 404 ", b"unknown_url"),
            (
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n",
                b" 400 ",
                b"the head stopped before its end",
            ),
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(data)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
                assert status in answer
                assert words in answer
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            assert connection.recv(100) == b""  # said nothing at all: closed without a word

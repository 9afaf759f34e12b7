"""Every way an upstream can fail, as data: what it does, when, and what comes of it.

`test_failures.py` plays each row and checks all that is said here; `make generate` writes docs/failures.md from it. So
what the page promises is what the tests have seen.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from time import time
from typing import Literal

from tests.provider import DONE, END, STREAM_HEAD, Behaviour, ProviderRequest, chunk, completion, event, response

Kind = Literal["plain", "streamed"]
Way = Literal["next", "as it is", "error event", "cut"]
BreakerHears = Literal["a failure", "a refused credential", "a rest", "nothing"]


@dataclass(frozen=True)
class Comes:
    """What a call comes to."""

    way: Way
    reason: str = "served"
    """The word for the attempt, in the client's `attempts` and in the log."""
    status: int | None = None
    """The upstream's, where it came as far as that."""
    breaker: BreakerHears = "nothing"
    retry_after: tuple[int, int] | None = None
    """Seconds that a client is told to wait when nobody served: from, to."""
    retry: bool = False
    """Whether an SDK may try again when nobody served (no `x-should-retry: false`)."""


@dataclass(frozen=True)
class Failure:
    id: str
    does: str
    plain: Comes | None
    streamed: Comes | None
    behaviour: Behaviour | None = None
    at: Literal["refused", "unknown", "wrong-name", "expired", "untrusted", "no-tls", "deaf", "provider"] = "provider"
    timeouts: tuple[tuple[str, str], ...] = ()

    def comes_to(self, kind: Kind) -> Comes | None:
        return self.plain if kind == "plain" else self.streamed


# -- what comes of it --------------------------------------------------------------------------------------------------


def moves_on(reason: str, status: int | None = None, breaker: BreakerHears = "a failure") -> Comes:
    return Comes("next", reason, status, breaker)


def throttled(least: int, most: int | None = None, *, retry: bool = True) -> Comes:
    return Comes("next", "throttled", 429, "a rest", (least, most or least), retry)


def handed_on(status: int) -> Comes:
    return Comes("as it is", status=status)


def told_in_stream(reason: str) -> Comes:
    return Comes("error event", f"truncated_{reason}", 200, "a failure")


def cut_off(reason: str) -> Comes:
    return Comes("cut", f"truncated_{reason}", 200, "a failure")


# -- what upstreams do -------------------------------------------------------------------------------------------------

LARGE = b"x" * (2 * 1024 * 1024)
"""More of a plain answer than is held back."""
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
OPENING = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
ERROR_EVENT = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
FIRST = event("one")
FOREVER = 60.0
SHORT = (("firstToken", "1s"), ("idle", "1s"))
ENDS_SOON = (("request", "1s"),)


def sends(plain: bytes, streamed: bytes = b"", *, then: Literal["stay", "close", "reset"] = "stay") -> Behaviour:
    """Sends one or the other, and then stays silent, closes, or resets the connection."""

    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        data = streamed if streamed and request.json.get("stream") else plain
        if data:
            writer.write(data)
            await writer.drain()
        if then == "stay":
            await asyncio.sleep(FOREVER)
        elif then == "close":
            writer.close()
        else:
            while _on_its_way(writer):  # a reset takes along what has not arrived
                await asyncio.sleep(0.005)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    return behaviour


def _on_its_way(writer: asyncio.StreamWriter) -> int:
    """Bytes that the other side's kernel has not got yet."""
    sent = fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(writer.transport.get_write_buffer_size() + struct.unpack("i", sent)[0])


def answers_with(data: bytes) -> Behaviour:
    async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behaviour


def never_ends(head: bytes, piece: bytes) -> Behaviour:
    async def behaviour(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return behaviour


async def throttles_until_a_date(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(response(429, b"{}", f"retry-after: {formatdate(time() + 40, usegmt=True)}"))


def status(code: int, *headers: str, body: bytes = b'{"error":{"message":"sk-secret at 10.0.0.1"}}') -> Behaviour:
    return answers_with(response(code, body, *headers))


def _same(
    id: str,  # noqa: A002
    does: str,
    comes: Comes,
    behaviour: Behaviour | None = None,
    **more: object,
) -> Failure:
    return Failure(id, does, comes, comes, behaviour, **more)  # type: ignore[arg-type]


# -- the table ---------------------------------------------------------------------------------------------------------

NOT_REACHED = (
    _same("refused", "refuses the connection", moves_on("connect_failed"), at="refused"),
    _same("unknown-host", "has a name that DNS does not know", moves_on("dns_failed"), at="unknown"),
    _same("tls-wrong-name", "shows a certificate for another name", moves_on("tls_failed"), at="wrong-name"),
    _same("tls-expired", "shows a certificate that has expired", moves_on("tls_failed"), at="expired"),
    _same("tls-untrusted", "shows a certificate of a CA that is not trusted", moves_on("tls_failed"), at="untrusted"),
    _same("tls-none", "does not speak TLS on an https:// URL", moves_on("tls_failed"), at="no-tls"),
    _same(
        "tls-stalls",
        "takes the connection and stays silent in the TLS handshake",
        moves_on("connect_timeout"),
        at="deaf",
        timeouts=(("connect", "300ms"),),
    ),
)

BEFORE_THE_ANSWER = (
    _same("closes", "closes without an answer", moves_on("connection_lost"), sends(b"", then="close")),
    _same("resets", "resets the connection", moves_on("connection_lost"), sends(b"", then="reset")),
    _same("silent", "stays silent", moves_on("first_token_timeout"), sends(b""), timeouts=SHORT),
    _same("not-http", "answers in another protocol", moves_on("bad_response"), answers_with(b"SSH-2.0-X\r\n\r\n")),
    _same(
        "cut-in-head",
        "closes inside the headers",
        moves_on("connection_lost"),
        sends(b"HTTP/1.1 200 OK\r\ncontent-ty", then="close"),
    ),
    _same(
        "silent-in-head",
        "stays silent inside the headers",
        moves_on("first_token_timeout"),
        sends(b"HTTP/1.1 200 OK\r\ncontent-ty"),
        timeouts=SHORT,
    ),
    _same(
        "endless-head",
        "sends headers without end (64 KiB are read)",
        moves_on("bad_response"),
        never_ends(b"HTTP/1.1 200 OK\r\n", b"x-filler: 0123456789\r\n" * 1000),
    ),
    _same(
        "length-not-a-number",
        "gives a content-length that is no number",
        moves_on("bad_response"),
        answers_with(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n"),
    ),
    _same(
        "two-lengths",
        "gives two different content-lengths",
        moves_on("bad_response"),
        answers_with(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    ),
)

_MISTAKES = tuple(
    _same(f"status-{code}", f"answers {code}", handed_on(code), status(code)) for code in (400, 404, 409, 413, 422)
)
STATUSES = (
    *_MISTAKES,
    *(
        _same(
            f"status-{code}",
            f"answers {code}: it refuses the gateway's own credential",
            moves_on("credential_refused", code, "a refused credential"),
            status(code),
        )
        for code in (401, 403)
    ),
    *(
        _same(f"status-{code}", f"answers {code}", moves_on("server_error", code), status(code))
        for code in (408, 500, 502, 503, 504, 529)
    ),
    _same(
        "status-503-retry-after",
        "answers 503 with `retry-after: 7`",
        Comes("next", "server_error", 503, "a failure", (7, 7)),
        status(503, "retry-after: 7"),
    ),
    _same(
        "status-302",
        "answers with a redirect, which is never followed",
        moves_on("redirected", 302),
        status(302, "location: http://169.254.169.254/"),
    ),
    _same("throttles", "answers 429 and does not say for how long (5 s)", throttled(5), status(429)),
    _same("throttles-for-seconds", "answers 429, `retry-after: 7`", throttled(7), status(429, "retry-after: 7")),
    _same(
        "throttles-for-milliseconds",
        "answers 429, `retry-after-ms: 2500`",
        throttled(3),
        status(429, "retry-after-ms: 2500", "retry-after: 99"),
    ),
    _same(
        "throttles-until-a-date",
        "answers 429, `retry-after` a date in 40 s",
        throttled(38, 40),
        throttles_until_a_date,
    ),
    _same(
        "throttles-until-a-reset",
        "answers 429, `x-ratelimit-reset-requests: 1s`, `-tokens: 6m0s`",
        throttled(360, retry=False),
        status(429, "x-ratelimit-reset-requests: 1s", "x-ratelimit-reset-tokens: 6m0s"),
    ),
    _same("throttles-for-days", "answers 429, `retry-after: 86400` (an hour is heeded)",
          throttled(3600, retry=False), status(429, "retry-after: 86400")),
    _same("throttles-in-the-past", "answers 429, `retry-after` a date that has passed (5 s)", throttled(5),
          status(429, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT")),
)  # fmt: skip

_PART = completion()[:40]
_PLAIN_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n" + _PART
_STREAM_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 900\r\n\r\n"
BEFORE_THE_CONTENT = (
    _same(
        "closes-early",
        "closes inside the body",
        moves_on("connection_lost", 200),
        sends(JSON_HEAD + chunk(_PART), STREAM_HEAD + chunk(OPENING), then="close"),
    ),
    _same(
        "resets-early",
        "resets the connection",
        moves_on("connection_lost", 200),
        sends(JSON_HEAD + chunk(_PART), STREAM_HEAD + chunk(OPENING), then="reset"),
    ),
    Failure(
        "stalls-early",
        "stays silent",
        moves_on("idle_timeout", 200),
        moves_on("first_token_timeout", 200),
        sends(JSON_HEAD + chunk(_PART), STREAM_HEAD + chunk(OPENING)),
        timeouts=SHORT,
    ),
    _same(
        "cut-in-chunk-early",
        "closes inside a chunk",
        moves_on("connection_lost", 200),
        sends(JSON_HEAD + b"ff\r\n" + _PART, STREAM_HEAD + b"ff\r\n" + OPENING, then="close"),
    ),
    _same(
        "bad-chunk-early",
        "sends a malformed chunk",
        moves_on("bad_response", 200),
        sends(JSON_HEAD + chunk(_PART) + b"zz\r\n", STREAM_HEAD + chunk(OPENING) + b"zz\r\n"),
    ),
    _same(
        "length-too-large-early",
        "closes before its content-length is reached",
        moves_on("connection_lost", 200),
        sends(_PLAIN_LENGTH, _STREAM_LENGTH + OPENING, then="close"),
    ),
    _same(
        "endless-trailers",
        "sends trailers without end (64 KiB are read)",
        moves_on("bad_response", 200),
        never_ends(STREAM_HEAD + b"0\r\n", b"x-filler: 0123456789\r\n" * 1000),
    ),
    Failure(
        "part-of-an-event",
        "closes inside its first event",
        None,
        moves_on("connection_lost", 200),
        sends(b"", STREAM_HEAD + chunk(FIRST[:20]), then="close"),
    ),
    Failure(
        "error-event",
        "sends an error event in a 200",
        None,
        moves_on("error_event", 200),
        answers_with(STREAM_HEAD + chunk(OPENING) + chunk(ERROR_EVENT) + END),
    ),
    Failure(
        "empty-stream",
        "ends a 200 stream without an event",
        None,
        moves_on("empty_stream", 200),
        answers_with(STREAM_HEAD + END),
    ),
    Failure(
        "pings-only-and-ends",
        "ends a 200 stream after pings alone",
        None,
        moves_on("empty_stream", 200),
        answers_with(STREAM_HEAD + chunk(b": ping\n\n") + END),
    ),
    Failure(
        "pings-only",
        "sends pings without end, and no content",
        None,
        moves_on("first_token_timeout", 200),
        never_ends(STREAM_HEAD, chunk(b": ping\n\n")),
        timeouts=SHORT,
    ),
    _same(
        "never-begins",
        "has not come to its content by `timeouts.request`",
        moves_on("request_timeout", 200),
        never_ends(STREAM_HEAD, chunk(b": ping\n\n")),
        timeouts=ENDS_SOON,
    ),
)

_BEGUN = STREAM_HEAD + chunk(FIRST)
_LARGE = JSON_HEAD + chunk(LARGE)
_HUGE_EVENT = b"data: " + b"y" * (256 * 1024)
AFTER_THE_CONTENT = (
    Failure(
        "closes-late",
        "closes",
        cut_off("connection_lost"),
        told_in_stream("connection_lost"),
        sends(_LARGE, _BEGUN, then="close"),
    ),
    Failure(
        "resets-late",
        "resets the connection",
        cut_off("connection_lost"),
        told_in_stream("connection_lost"),
        sends(_LARGE, _BEGUN, then="reset"),
    ),
    Failure(
        "stalls-late",
        "stays silent",
        cut_off("idle_timeout"),
        told_in_stream("idle_timeout"),
        sends(_LARGE, _BEGUN),
        timeouts=SHORT,
    ),
    Failure(
        "cut-in-chunk-late",
        "closes inside a chunk",
        cut_off("connection_lost"),
        told_in_stream("connection_lost"),
        sends(_LARGE + b"ff\r\n" + LARGE[:9], _BEGUN + b"ff\r\n" + FIRST[:9], then="close"),
    ),
    Failure(
        "bad-chunk-late",
        "sends a malformed chunk",
        cut_off("bad_response"),
        told_in_stream("bad_response"),
        sends(_LARGE + b"zz\r\n", _BEGUN + b"zz\r\n"),
    ),
    Failure(
        "length-too-large-late",
        "closes before its content-length is reached",
        cut_off("connection_lost"),
        cut_off("connection_lost"),
        sends(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n" + LARGE,
            _STREAM_LENGTH + FIRST,
            then="close",
        ),
    ),
    Failure(
        "closes-inside-an-event",
        "closes inside an event: the part is not handed on",
        None,
        told_in_stream("connection_lost"),
        sends(b"", _BEGUN + chunk(FIRST[:20]), then="close"),
    ),
    Failure(
        "endless-event",
        "sends one event without end (64 KiB are held back, then it is handed on)",
        None,
        cut_off("request_timeout"),
        never_ends(_BEGUN + chunk(_HUGE_EVENT), chunk(b"y" * 1000)),
        timeouts=ENDS_SOON,
    ),
    Failure(
        "endless-stream",
        "has not ended by `timeouts.request`",
        cut_off("request_timeout"),
        told_in_stream("request_timeout"),
        None,
        timeouts=ENDS_SOON,
    ),
    Failure(
        "error-event-late",
        "sends an error event",
        None,
        handed_on(200),
        answers_with(_BEGUN + chunk(ERROR_EVENT) + END),
    ),
    Failure(
        "no-done",
        "ends the stream in good order, without `[DONE]`",
        None,
        handed_on(200),
        answers_with(_BEGUN + END),
    ),
    Failure(
        "length-too-small",
        "sends more than its content-length: the rest is dropped, the connection closed",
        handed_on(200),
        handed_on(200),
        sends(response(200, b"{}") + b"too much", _STREAM_LENGTH.replace(b"900", b"%d" % len(FIRST)) + FIRST + DONE),
    ),
)


async def endless(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
    streamed = bool(request.json.get("stream"))
    begin, piece = (_BEGUN, chunk(FIRST)) if streamed else (_LARGE, chunk(b"x" * 100))
    await never_ends(begin, piece)(request, writer)


MOMENTS: Mapping[str, Sequence[Failure]] = {
    "Before it is reached": NOT_REACHED,
    "Before its answer": BEFORE_THE_ANSWER,
    "By its status": STATUSES,
    "Before its first content": BEFORE_THE_CONTENT,
    "After its first content": AFTER_THE_CONTENT,
}
FAILURES: Mapping[str, Failure] = {failure.id: failure for moment in MOMENTS.values() for failure in moment}
BEHAVIOURS: Mapping[str, Behaviour] = {
    failure.id: failure.behaviour or endless for failure in FAILURES.values() if failure.at == "provider"
}


# -- docs/failures.md --------------------------------------------------------------------------------------------------

HEADER = "<!-- Generated from tests/sidecar/failure_table.py by `make generate`. Do not edit. -->\n"
ABOUT = """
# What failures come to

Every row is played by `tests/sidecar/test_failures.py`: by a plain call and by a streamed one, for a model with a
fallback and for one without; status, body, headers, metrics and breaker are what this page says.

## What a call can come to

**next**: nothing has gone to the client, so the next candidate is tried: the retries that the model and the budget
allow, siblings, fallbacks.

- One of them serves: its answer, as if the failure had not been. `x-llmroute-upstream` names it,
  `x-llmroute-attempts` counts the calls to upstreams, `x-fallback-model` names the model where it is another one than
  was asked for, and `gateway_fallback_used_total` counts that.
- None does: `502`, code `upstream_failed`, with `attempts: [{model, upstream, reason, status}]`: the words and
  statuses below, and nothing else of what upstreams said. `retry-after` is the shortest wait that an upstream asked
  for (**told to wait** below). `x-should-retry: false`, unless all there was is throttled and back within a minute.

**as it is**: the upstream's answer is the client's: status, headers and body. No fallback.

**error event**: part of the stream has gone out, so nothing is retried. After the last whole event comes an error event
in the stream's protocol, code `upstream_failed`; no `[DONE]`. `llmroute_streams_truncated_total` counts it.

**cut**: part of the answer has gone out and no event can follow it (a plain answer, one with a content-length, the
middle of an event): the connection is closed before the answer's end, so that nobody takes it for whole. Counted as
above.

`x-llmroute-origin` says who made an answer: `gateway` for the 502, `upstream` for all others.

## When

The point of no return is the first content: of a stream its first event that says something (not headers, comments,
pings, a role alone), of a plain answer its end, or 1 MiB of it. Where a model asks to be kept alive
(`models[].keepAlive`), it is at the latest when the stream is begun with a sign of life: what comes as **next** below
is then an **error event**, and an answer that is no stream (a 400, say) is told in one too.

## What is counted

Each try counts in `gateway_upstream_requests_total{upstream, status}` under the upstream's status, or `error` where
none came. Its breaker hears **a failure** (some in a row open it), **a refused credential** (the same, and told in
`/v1/circuit-breakers`), **a rest** (429: not broken; no try until the time is over, 5 s where none is named, at most an
hour) or **nothing** (the answer is a good one, or the client's mistake).

A retry is a further try at the same target. Before it comes a wait: the back-off with full jitter, or what the upstream
asked for where that is longer. It is not made where that is more than 30 s or does not fit into the call's deadline,
after a 429 or a refused credential, or where the upstream's budget (`upstreams[].retryBudget`) is spent; the next
candidate is then tried at once. Moving on to another candidate is no retry, unless it is the same upstream and model
again. Nor is it one, or counted, when a kept connection turns out to have been closed before it was used again (it ends
within a second and without a byte): the call goes out once more, over a new connection.

## The table
"""
COLUMNS = """\
| the upstream | plain | streamed | reason | counted as | its breaker hears | told to wait |
|---|---|---|---|---|---|---|
"""


def failures_page() -> str:
    """docs/failures.md."""
    return HEADER + ABOUT + "".join(_section(moment, failures) for moment, failures in MOMENTS.items())


def _section(moment: str, failures: Sequence[Failure]) -> str:
    return f"\n### {moment}\n\n{COLUMNS}" + "".join(map(_row, failures))


def _row(failure: Failure) -> str:
    comes = [each for each in (failure.plain, failure.streamed) if each is not None]
    cells = [
        failure.does,
        *(f"**{each.way}**" if each else "" for each in (failure.plain, failure.streamed)),
        _either([f"`{each.reason}`" for each in comes]),
        _either([f"`{each.status or 'error'}`" for each in comes]),
        _either([each.breaker for each in comes]),
        _either([f"{each.retry_after[1]} s" for each in comes if each.retry_after]),
    ]
    return f"| {' | '.join(cells)} |\n"


def _either(texts: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(texts))

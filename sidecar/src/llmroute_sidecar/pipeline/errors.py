"""The error table: every way the gateway says no, its status, type and code, in OpenAI's shape or Anthropic's.

The one place for it; docs/errors.md is generated from `TABLE`. Texts are ours: no exception, key or prompt gets in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from llmroute_sidecar.policy.retry import format_retry_after
from llmroute_sidecar.upstream.exchange import Headers

ErrorCode = Literal[
    "invalid_api_key",
    "model_not_allowed",
    "host_not_allowed",
    "origin_not_allowed",
    "invalid_request",
    "request_too_large",
    "headers_too_large",
    "model_not_found",
    "unknown_url",
    "method_not_allowed",
    "rate_limit_exceeded",
    "insufficient_quota",
    "limits_unavailable",
    "circuit_open",
    "upstream_failed",
    "not_ready",
    "overloaded",
    "internal_error",
]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. `retry` False tells the SDKs that trying the same again is of no use (`x-should-retry`)."""

    status: int
    type: str
    anthropic_type: str
    case: str
    retry: bool = True


TABLE: Mapping[ErrorCode, Row] = {
    "invalid_api_key": Row(401, "invalid_request_error", "authentication_error", "no key, unknown or expired key"),
    "model_not_allowed": Row(403, "invalid_request_error", "permission_error", "the key may not use this model"),
    # Not 421: it asks clients to try another connection (RFC 9110 §15.5.20), and no other one is answered differently.
    "host_not_allowed": Row(
        403,
        "invalid_request_error",
        "permission_error",
        "[by a name that is not this machine's](security.md#web-pages), on a loopback address",
    ),
    "origin_not_allowed": Row(
        403,
        "invalid_request_error",
        "permission_error",
        "[a web page of another site](security.md#web-pages) calls a route that asks for no key",
    ),
    "invalid_request": Row(
        400,
        "invalid_request_error",
        "invalid_request_error",
        "not HTTP, no JSON or form, no model, wrong types, too deep",
    ),
    "request_too_large": Row(413, "invalid_request_error", "request_too_large", "the body is above the limit"),
    "headers_too_large": Row(431, "invalid_request_error", "invalid_request_error", "the head is above the limit"),
    "model_not_found": Row(
        404, "invalid_request_error", "not_found_error", "no entry for the model and no default upstream"
    ),
    "unknown_url": Row(404, "invalid_request_error", "not_found_error", "no such path"),
    "method_not_allowed": Row(405, "invalid_request_error", "invalid_request_error", "the path has no such method"),
    "rate_limit_exceeded": Row(
        429,
        "requests",
        "rate_limit_error",
        "a limit is reached; the type is its kind: `requests`, `tokens` or `concurrency`",
    ),
    "insufficient_quota": Row(429, "insufficient_quota", "rate_limit_error", "a budget is used up"),
    "limits_unavailable": Row(
        503,
        "server_error",
        "overloaded_error",
        "a limit of scope Gateway cannot be counted, as the shared state is away, and the route fails closed",
    ),
    "circuit_open": Row(503, "server_error", "overloaded_error", "every candidate's breaker is open, or it rests"),
    "upstream_failed": Row(502, "server_error", "api_error", "every candidate failed", retry=False),
    "not_ready": Row(503, "server_error", "overloaded_error", "draining, or no configuration yet"),
    "overloaded": Row(
        503, "server_error", "overloaded_error", "too many connections, or large bodies, are under way at once"
    ),
    "internal_error": Row(500, "server_error", "api_error", "a fault of the gateway itself", retry=False),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of the gateway's own making."""

    status: int
    headers: Headers
    body: bytes
    code: ErrorCode | None = None


class AttemptRecord(msgspec.Struct, frozen=True):
    """One try at one candidate, as a client may see it: names of the configuration, a word, a status; nothing of the
    host."""

    model: str
    upstream: str
    reason: str
    status: int | None = None


SDK_PATIENCE_SECONDS = 60.0
"""The longest `Retry-After` that every SDK waits for. Told a longer one, some try again at once, to no avail."""
JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


def error(
    code: ErrorCode,
    message: str,
    *,
    anthropic: bool = False,
    param: str | None = None,
    headers: Headers | None = None,
    attempts: Sequence[AttemptRecord] | None = None,
    retry_after: float | None = None,
    worth_retrying: bool | None = None,
    kind: str | None = None,
) -> Answer:
    """The answer for a row of the table. `retry_after` is in seconds; `worth_retrying` overrules the row's `retry`,
    `kind` its OpenAI type."""
    row = TABLE[code]
    if anthropic:
        inner: dict[str, object] = {"type": row.anthropic_type, "message": message, "code": code}
    else:
        inner = {"message": message, "type": kind or row.type, "param": param, "code": code}
    if attempts is not None:
        inner["attempts"] = attempts
    body = _encode({"type": "error", "error": inner} if anthropic else {"error": inner})
    lines: Headers = [JSON, *(headers or ())]
    if code == "invalid_api_key":
        lines.append((b"www-authenticate", b"Bearer"))
    if retry_after is not None:
        lines.append((b"retry-after", format_retry_after(retry_after).encode()))
        if retry_after > SDK_PATIENCE_SECONDS:
            worth_retrying = False
    if not (row.retry if worth_retrying is None else worth_retrying):
        lines.append((b"x-should-retry", b"false"))
    return Answer(row.status, lines, body, code)


def is_anthropic(path: str) -> bool:
    """Whether errors on this path are told in Anthropic's shape."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def stream_error(path: str) -> bytes:
    """The event that ends a stream whose upstream broke off: an error in its protocol, and no `[DONE]` after it."""
    message = "the upstream broke off before the answer was complete"
    if is_anthropic(path):
        return _error_event(path, {"type": "api_error", "message": message})
    return _error_event(path, {"message": message, "type": "server_error", "param": None, "code": "upstream_failed"})


def error_as_event(path: str, body: bytes) -> bytes:
    """An upstream's answer that is an error, as the event that ends a stream which has begun already. What holds no
    error that could be told is told as `stream_error`."""
    try:
        said = _decode_error(body).error
    except (msgspec.DecodeError, RecursionError):
        said = None
    return stream_error(path) if said is None else _error_event(path, said)


class _SaidError(msgspec.Struct):
    error: dict[str, object] | None = None


_decode_error = msgspec.json.Decoder(_SaidError).decode


def _error_event(path: str, error: Mapping[str, object]) -> bytes:
    if is_anthropic(path):
        return b"event: error\ndata: " + _encode({"type": "error", "error": error}) + b"\n\n"
    if path == "/v1/responses":  # its error event has no `error`; the SDKs raise where there is one, so both are said
        data = _encode({**error, "type": "error", "sequence_number": 0, "error": error})
        return b"event: error\ndata: " + data + b"\n\n"
    return b"data: " + _encode({"error": error}) + b"\n\n"

"""What no request's head may have, whatever it asks for, and the bounds on what one client may ask of a connection.

Sans-IO: looks at a parsed head, says what is wrong with it. What the request means is the pipeline's matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.errors import ErrorCode
from llmroute_sidecar.policy.web_pages import LocalHosts, not_answered_to


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on what one client may ask of a connection. Sizes in bytes, times in seconds."""

    connections: int = 4096
    """Open at a time."""
    body: int = 32 * 1024 * 1024
    bodies: int = 128 * 1024 * 1024
    """Of all calls together (room.py)."""
    head: int = 64 * 1024
    header_count: int = 128
    path: int = 8 * 1024
    head_seconds: float = 15.0
    """From a request's first byte (or the connection's begin) to the end of its head."""
    body_seconds: float = 30.0
    """Silence within a body."""
    keep_alive_seconds: float = 90.0
    """Between requests; longer than the SDKs keep theirs. Also how long an answer may lie unread."""
    close_seconds: float = 10.0
    """From the end of a connection's last answer until it is cut, for a client that does not read it."""
    pipelined: int = 32
    """Requests waiting behind the one that is served."""
    waiting: int = 64 * 1024
    """Bytes of bodies waiting behind the one that is served, above which no more is read."""
    discard: int = 1024 * 1024
    """Rest of a refused request's body that is read to keep the connection; beyond it the connection is closed."""
    write_buffer: int = 64 * 1024
    """Unsent bytes above which an upstream is held back."""


_SERVED: Mapping[bytes, tuple[tuple[bytes, ...], str]] = {
    b"transfer-encoding": ((b"chunked",), "the only transfer coding served here is chunked"),
    b"content-encoding": ((b"", b"identity"), "the body must be plain: no Content-Encoding is read here"),
    b"expect": ((b"100-continue",), "the only expectation served here is 100-continue"),
}
"""What these headers may say, and the words for anything else."""
_NOT_MEANT = (b"expect", "1.0")
"""RFC 9110 §10.1.1: an expectation of an HTTP/1.0 client is ignored."""


def wrong_with_head(
    call: Call, version: str, header_count: int, size: int, limits: ServerLimits
) -> tuple[ErrorCode, str] | None:
    """The row of the error table and the words for a head that cannot be served; None where it can."""
    if header_count > limits.header_count:
        return "headers_too_large", f"more than {limits.header_count} headers"
    if size > limits.head:
        return "headers_too_large", head_too_large(limits)
    if len(call.path) + len(call.query) > limits.path:
        return "headers_too_large", f"the path is above {limits.path} bytes"
    if version not in ("1.0", "1.1"):
        return "invalid_request", "only HTTP/1.1 is served here"
    hosts = 0
    for name, value in call.read_here:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                return "invalid_request", "Content-Length must be a number"
            if int(value) > limits.body:
                return "request_too_large", body_too_large(limits)
        elif name in _SERVED and value.lower() not in _SERVED[name][0] and (name, version) != _NOT_MEANT:
            return "invalid_request", _SERVED[name][1]
    if hosts > 1 or (not hosts and version == "1.1"):
        return "invalid_request", "a request has exactly one Host header (RFC 9112 §3.2)"
    if call.method == "CONNECT":
        return "invalid_request", "this is no proxy: CONNECT is not served here"
    known = call.template == call.path  # a template of ours that is the path itself is plain
    if not (known or _is_plain_path(call.path)) or not _is_plain_query(call.query):
        return "invalid_request", "the path must be plain ASCII without %-escapes and dot segments"
    return None


def wrong_with_host(call: Call, local_hosts: LocalHosts) -> tuple[ErrorCode, str] | None:
    """The same for a name that a listener on loopback does not answer to."""
    for name, value in call.read_here:
        if name == b"host" and not local_hosts.answer_to(value):
            return "host_not_allowed", not_answered_to(value)
    return None


def body_too_large(limits: ServerLimits) -> str:
    return f"the body is above {limits.body} bytes"


def no_room(limits: ServerLimits) -> str:
    return f"the bodies of all calls under way would be above {limits.bodies} bytes; try again"


def head_too_large(limits: ServerLimits) -> str:
    return f"the head is above {limits.head} bytes"


def _is_plain_path(path: str) -> bool:
    """A path that means the same to everyone: no escapes, dot segments or fragment, nothing outside printable ASCII."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable():
        return False
    if "%" in path or "\\" in path or "#" in path or "//" in path:
        return False
    return "/." not in path or not ("/../" in path + "/" or "/./" in path + "/")


def _is_plain_query(query: str) -> bool:
    return not query or (query.isascii() and query.isprintable() and " " not in query and "#" not in query)

"""Which headers go on to an upstream and which come back from it (RFC 9110 §7.6.1: hop-by-hop ones never).

The client's key stays here, the upstream's credential is put in its place; host, length, type and encoding are the
gateway's own.
"""

from llmroute_sidecar.pipeline.call import Call, id_lines
from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.upstream.exchange import Headers

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_SENT_ON = _HOP_BY_HOP | {
    b"accept-encoding",  # events and usage are read on their way: no compression
    b"api-key",  # Azure's and Google's names for a credential: which one is used is not the client's to choose
    b"authorization",
    b"content-length",
    b"content-type",  # what the body was read as here, so that no upstream reads another model in it
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"traceparent",
    b"x-api-key",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-goog-api-key",
    b"x-request-id",
    b"x-trace-id",
}
_NOT_HANDED_BACK = _HOP_BY_HOP | {
    b"alt-svc",  # the upstream's other doors are not ours
    b"content-length",
    b"date",
    b"server",
    b"set-cookie",
    b"x-request-id",
    b"x-trace-id",
    b"traceparent",
    b"x-fallback-model",
}
_OURS = (b"x-llmroute-",)
"""What is told under such names is told by the gateway, never by an upstream."""
_OURS_WITH_LIMITS = (*_OURS, b"x-ratelimit-")
ANTHROPIC_VERSION = b"2023-06-01"
_NONE: frozenset[bytes] = frozenset()


def request_headers(call: Call, upstream: Upstream) -> Headers:
    """The headers of the request to `upstream`, less host, length and ids."""
    fixed, replaced = upstream.fixed_headers, upstream.fixed_names
    dropped = _named_by_connection(call.headers)
    headers = [
        header
        for header in call.headers
        if header[0] not in _NOT_SENT_ON and header[0] not in replaced and header[0] not in dropped
    ]
    headers += fixed
    headers.append((b"content-type", call.content_type))
    if upstream.protocol == "Anthropic" and not any(name == b"anthropic-version" for name, _ in headers):
        headers.append((b"anthropic-version", ANTHROPIC_VERSION))
    return headers


def answer_headers(call: Call, upstream_headers: Headers) -> Headers:
    """The headers of an upstream's answer for the client, with the gateway's own."""
    dropped = _named_by_connection(upstream_headers)
    ours = _OURS_WITH_LIMITS if call.limit_headers else _OURS
    headers: Headers = []
    for name, value in upstream_headers:
        if name == b"x-request-id":
            headers.append((b"x-upstream-request-id", value))
        elif name in _NOT_HANDED_BACK or name in dropped or name.startswith(ours):
            continue
        else:
            headers.append((name, value))
    headers.append((b"x-llmroute-origin", b"upstream"))
    headers += where_it_went(call)
    if call.fallback_model is not None:
        headers.append((b"x-fallback-model", call.fallback_model.encode()))
    headers += call.limit_headers
    return headers


def begun_headers(call: Call, fallback_model: str | None) -> Headers:
    """The headers of a stream that is begun before its upstream has answered."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-llmroute-origin", b"gateway"),
        *where_it_went(call),
    ]
    if fallback_model is not None:
        headers.append((b"x-fallback-model", fallback_model.encode()))
    return headers + call.limit_headers


def where_it_went(call: Call) -> Headers:
    """On every answer of a call that came as far as being tried: the upstream that was called last, and how often one
    was called. Those that were passed over (open breakers, limits) do not count."""
    if call.target is None:
        return [(b"x-llmroute-attempts", b"0")]
    return [(b"x-llmroute-upstream", call.target.name.encode()), (b"x-llmroute-attempts", b"%d" % call.tries)]


def ids_sent_on(call: Call) -> bytes:
    """The ids under which an attempt goes on, as header lines: of a traced call it is a span of its own."""
    ids = call.ids
    return ids.lines if call.trace is None else id_lines(ids.request_id, ids.trace_id, call.trace.traceparent)


def content_length(headers: Headers) -> int | None:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def header_map(headers: Headers) -> dict[str, str]:
    """Names in lower case to values; the first of each name."""
    values: dict[str, str] = {}
    for name, value in headers:
        values.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return values


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    named = _NONE
    for name, value in headers:
        if name == b"connection":
            named = named.union(token.strip().lower() for token in value.split(b","))
    return named

"""The form of a request's log line. What it says is `pipeline/tell.py`'s matter."""

import msgspec


class Tokens(msgspec.Struct, frozen=True, gc=False):
    input: int
    output: int
    estimated: bool


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A request's line. What has no default stands in each of them, if as null."""

    timestamp: str
    level: str
    message: str
    logger: str
    request_id: str
    trace_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    upstream: str | None
    fallback_model: str | None
    client_ip: str
    model: str | None
    client: str | None
    attempts: int
    tokens: Tokens | None = None
    code: str | None = None
    limit: str | None = None
    tried: list[str] | None = None
    exc_info: str | None = None

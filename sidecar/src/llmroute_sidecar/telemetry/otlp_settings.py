"""Where spans go and how, from the `--otlp-endpoint` option and OpenTelemetry's own environment variables.

    OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT, _HEADERS, _TIMEOUT, _CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY, _PROTOCOL
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
    OTEL_BSP_SCHEDULE_DELAY, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE
    OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER

A variable that makes no sense is named in a warning and passed over: such variables are often set for a whole pod, and
telling nothing is better than serving nothing. Its value is never told: the headers hold secrets.
"""

import math
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from llmroute_contract.scalars import UpstreamUrl, parse_upstream_url
from llmroute_sidecar.snapshot import TlsMaterial

T = TypeVar("T")

DEFAULT_SERVICE_NAME = "llmroute"
_SAMPLERS = {"parentbased_always_on": 1.0, "parentbased_always_off": 0.0, "parentbased_traceidratio": None}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
"""A header's name, in lower case (RFC 9110 §5.6.2)."""


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Times are seconds. `url` is the collector's without the path, which stands apart."""

    url: UpstreamUrl
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: TlsMaterial | None = None
    timeout: float = 10.0
    delay: float = 5.0
    """How long spans wait for others, at most."""
    queue_max: int = 2048
    batch_max: int = 512
    ratio: float = 1.0
    """The share of the traces which begin here that is sampled."""
    resource: Mapping[str, str] = field(default_factory=dict)
    pool_max_connections: int = 1


def read_settings(
    environment: Mapping[str, str], endpoint: str | None, version: str, warn: Callable[[str], None]
) -> OtlpSettings | None:
    """None where no endpoint is given, or spans are not wanted. Raises ValueError where `endpoint`, the option, is no
    good; `warn` hears of what else is not."""
    reader = _Reader(environment, warn)
    target = _target(reader, endpoint)
    if target is None:
        return None
    if endpoint is None and (reader.text("OTEL_SDK_DISABLED").lower() == "true" or _exporter(reader) == "none"):
        return None
    settings = OtlpSettings(*target, resource=_resource(reader, version))
    headers = reader.parsed("HEADERS", _parse_headers)
    timeout = reader.parsed("TIMEOUT", _milliseconds)
    queue_max = reader.parsed_at("OTEL_BSP_MAX_QUEUE_SIZE", _count) or settings.queue_max
    batch_max = reader.parsed_at("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _count) or settings.batch_max
    return replace(
        settings,
        headers=settings.headers if headers is None else headers,
        tls=_tls(reader),
        timeout=timeout or settings.timeout,
        delay=reader.parsed_at("OTEL_BSP_SCHEDULE_DELAY", _milliseconds) or settings.delay,
        queue_max=queue_max,
        batch_max=min(batch_max, queue_max),
        ratio=_ratio(reader),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads variables, those for traces before those for all signals."""

    environment: Mapping[str, str]
    warn: Callable[[str], None]

    def text(self, name: str) -> str:
        """ "" where it is not set, which OpenTelemetry says is the same as empty."""
        return self.environment.get(name, "").strip()

    def name(self, end: str) -> str | None:
        """Which variable of the exporter's is set."""
        for start in ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"):
            if self.text(start + end):
                return start + end
        return None

    def parsed(self, end: str, parse: Callable[[str], T]) -> T | None:
        name = self.name(end)
        return None if name is None else self.parsed_at(name, parse)

    def parsed_at(self, name: str, parse: Callable[[str], T]) -> T | None:
        text = self.text(name)
        if not text:
            return None
        try:
            return parse(text)
        except (ValueError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self.warn(f"{name} is passed over: {why}")
            return None


def _exporter(reader: _Reader) -> str:
    return reader.text("OTEL_TRACES_EXPORTER").lower()


def _target(reader: _Reader, endpoint: str | None) -> tuple[UpstreamUrl, str] | None:
    if endpoint is not None:
        return _address(_base(endpoint))
    name = reader.name("ENDPOINT")
    if name is None:
        return None
    protocol = reader.name("PROTOCOL")
    if protocol is not None and reader.text(protocol) == "grpc":
        reader.warn(f"no traces are exported: {protocol} is grpc, and the gateway speaks http/json")
        return None
    whole = name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    return reader.parsed_at(name, lambda text: _address(text if whole else _base(text)))


def _base(text: str) -> str:
    """The endpoint of all signals has each one's path added to it."""
    return f"{text.rstrip('/')}/v1/traces"


def _address(text: str) -> tuple[UpstreamUrl, str]:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    url = parse_upstream_url(text)
    rest = text.split("://", 1)[1]
    return replace(url, path=""), url.path if "/" in rest.rstrip("/") else "/"


def _parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """`name=value,name=value`, values with %-escapes (W3C Baggage, as OpenTelemetry has it). Raises ValueError without
    the text in it."""
    pairs = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not part.strip():
            continue
        if not equals or not name.strip():
            raise ValueError("it is not a list of name=value, with commas between them")
        pairs.append((unquote(name.strip()), unquote(value.strip())))
    return tuple(pairs)


def _parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    headers = tuple((name.lower(), value) for name, value in _parse_pairs(text))
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ValueError("a header in it has a name or a value that HTTP does not allow")
    return headers


def _milliseconds(text: str) -> float:
    return _count(text) / 1000


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000_000:
        raise ValueError("it is not a whole number above 0")
    return int(text)


def _ratio(reader: _Reader) -> float:
    sampler = reader.text("OTEL_TRACES_SAMPLER") or "parentbased_traceidratio"
    if sampler not in _SAMPLERS:
        reader.warn(f"OTEL_TRACES_SAMPLER is passed over: it is none of {', '.join(_SAMPLERS)}")
        return 1.0
    fixed = _SAMPLERS[sampler]
    if fixed is not None:
        return fixed
    given = reader.parsed_at("OTEL_TRACES_SAMPLER_ARG", _share)
    return 1.0 if given is None else given


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError("it is not a number from 0 to 1")
    return value


def _tls(reader: _Reader) -> TlsMaterial | None:
    ca, cert, key = (
        reader.parsed(end, lambda path: Path(path).read_bytes())
        for end in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    )
    return None if ca is None and cert is None else TlsMaterial(ca, cert, key)


def _resource(reader: _Reader, version: str) -> Mapping[str, str]:
    given = dict(reader.parsed_at("OTEL_RESOURCE_ATTRIBUTES", _parse_pairs) or ())
    named = reader.text("OTEL_SERVICE_NAME")
    own = {"service.name": DEFAULT_SERVICE_NAME, "service.version": version, "service.instance.id": str(uuid.uuid4())}
    return {**own, **given, **({"service.name": named} if named else {})}

"""The small texts of an LLMRoute, each parsed once into a value that cannot be wrong: durations, names, URLs.

Owns the patterns (the CRD carries the same ones) and the parsing. Which field uses which is for `llmroute.py` to say.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NewType
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator, GetCoreSchemaHandler, StringConstraints, WithJsonSchema
from pydantic_core import core_schema

Seconds = NewType("Seconds", float)

DURATION_PATTERN = r"^([0-9]{1,7}(ms|s|m|h)){1,4}$"
_DURATION_PART = re.compile(r"([0-9]{1,7})(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: object) -> Seconds:
    """Seconds of a text such as `200ms`, `30s` or `1m30s`.

    Raises ValueError, saying what is expected, for anything else. The form is Go's, as kubectl users know it,
    less its fractions and signs.
    """
    if isinstance(text, float | int) and not isinstance(text, bool):
        raise ValueError(f"must be a duration with a unit, such as 30s or 200ms; {text} has none")
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"must be a duration such as 200ms, 30s or 1m30s, not {text!r}")
    return Seconds(sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as `seconds` (rounded to a millisecond)."""
    millis = round(seconds * 1000)
    if millis % 1000:
        return f"{millis}ms"
    whole = millis // 1000
    minutes, rest = divmod(whole, 60)
    if minutes and not rest:
        return f"{minutes}m"
    return f"{whole}s"


@dataclass(frozen=True, slots=True)
class DurationBetween:
    """Annotates a field of seconds that is written as a duration text from `least` to `most`, both included."""

    least: str
    most: str

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        low, high = parse_duration(self.least), parse_duration(self.most)

        def parse(text: object) -> float:
            seconds = parse_duration(text)
            if not low <= seconds <= high:
                raise ValueError(f"must be from {self.least} to {self.most}, not {text}")
            return float(seconds)

        return core_schema.no_info_plain_validator_function(
            parse, serialization=core_schema.plain_serializer_function_ser_schema(format_duration)
        )

    def __get_pydantic_json_schema__(self, _schema: core_schema.CoreSchema, _handler: object) -> dict[str, Any]:
        rule = f"duration(self) >= duration('{self.least}') && duration(self) <= duration('{self.most}')"
        return {
            "type": "string",
            "pattern": DURATION_PATTERN,
            "maxLength": 32,
            "x-kubernetes-validations": [{"rule": rule, "message": f"must be from {self.least} to {self.most}"}],
        }


def _parse_instant(value: object) -> datetime:
    if isinstance(value, datetime):
        instant = value  # YAML reads an unquoted timestamp as one
    elif isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"must be an RFC 3339 time such as 2027-01-01T00:00:00Z, not {value!r}") from None
    else:
        raise ValueError(f"must be an RFC 3339 time such as 2027-01-01T00:00:00Z, not {value!r}")
    if instant.tzinfo is None:
        raise ValueError("must name its time zone, as in 2027-01-01T00:00:00Z")
    return instant.astimezone(UTC)


Instant = Annotated[
    datetime,
    BeforeValidator(_parse_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
Label = Annotated[str, StringConstraints(pattern=LABEL_PATTERN, min_length=1, max_length=63)]
"""A DNS label (RFC 1123): names of upstreams, limits, gateways."""

SECRET_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"  # noqa: S105 - the pattern of a name, no secret
SecretName = Annotated[str, StringConstraints(pattern=SECRET_NAME_PATTERN, min_length=1, max_length=253)]
SECRET_KEY_PATTERN = r"^[-_A-Za-z0-9]([-._A-Za-z0-9]*)$"  # noqa: S105 - likewise; no leading dot, so no `..`
SecretKey = Annotated[str, StringConstraints(pattern=SECRET_KEY_PATTERN, min_length=1, max_length=253)]
ClientName = SecretKey
"""A client is named by its entry's key in the Secret of client keys."""

MODEL_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9._:/@+]*)$"
ModelName = Annotated[str, StringConstraints(pattern=MODEL_PATTERN, min_length=1, max_length=200)]
MODEL_MATCH_PATTERN = r"^(\*|[A-Za-z0-9]([-A-Za-z0-9._:/@+]*)\*?)$"
ModelMatch = Annotated[str, StringConstraints(pattern=MODEL_MATCH_PATTERN, min_length=1, max_length=200)]
"""A model's name; a trailing `*` matches a prefix, `*` alone every model."""

USD_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"
Usd = Annotated[str, StringConstraints(pattern=USD_PATTERN, max_length=16)]
"""US dollars, as a decimal text: a float would lose cents."""


def matches_model(pattern: str, model: str) -> bool:
    """Whether `pattern` (a `ModelMatch`) covers the name `model`."""
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == model


UpstreamScheme = Literal["http", "https", "mock", "litellm"]
SCHEMES: tuple[UpstreamScheme, ...] = ("http", "https", "mock", "litellm")


@dataclass(frozen=True, slots=True)
class UpstreamUrl:
    """An upstream's address, taken apart. `path` is the base to which `/chat/completions` and the like are added."""

    scheme: UpstreamScheme
    host: str
    port: int
    path: str
    query: tuple[tuple[str, str], ...]

    @property
    def authority(self) -> str:
        """`host[:port]` as the Host header has it (RFC 9110 §7.2): the port only where it is not the default."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        default = {"http": 80, "https": 443}.get(self.scheme, 0)
        return name if self.port == default else f"{name}:{self.port}"


URL_MAX_LENGTH = 1024
_URL_TEXT = re.compile(r"^[\x21-\x7e]+$")
_HOST = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$")


def parse_upstream_url(text: str) -> UpstreamUrl:
    """The parts of an upstream's `url`.

    An http(s) URL without a path means `/v1`, as the OpenAI SDKs' base_url does. Raises ValueError with what is wrong:
    another scheme, a user or password inside, a fragment, a query on http(s), no host, a bad port.
    """
    if len(text) > URL_MAX_LENGTH or not _URL_TEXT.match(text):
        raise ValueError(f"must be a URL of at most {URL_MAX_LENGTH} printable ASCII characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL: its host or port cannot be read") from None
    scheme = next((known for known in SCHEMES if known == parts.scheme), None)
    if scheme is None or "://" not in text:
        raise ValueError("must begin with http://, https://, mock:// or litellm://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; use credential.secretRef")
    if not parts.hostname or not _HOST.match(parts.hostname):
        raise ValueError("must name a host after ://")
    if parts.fragment or text.endswith("#"):
        raise ValueError("must not have a #fragment")
    if scheme in ("http", "https") and (parts.query or "?" in text):
        raise ValueError("must not have a ?query; it is a base to which paths are added")
    if port == 0:
        raise ValueError("must not name port 0")
    if "%" in parts.path or "/../" in parts.path + "/" or "/./" in parts.path + "/":
        raise ValueError("must have a plain path: no %-escapes, no dot segments")
    path = parts.path.rstrip("/")
    if scheme in ("http", "https") and not path:
        path = "/v1"
    default_port = {"http": 80, "https": 443}.get(scheme, 0)
    query = tuple(parse_qsl(parts.query, keep_blank_values=True)) if scheme == "mock" else ()
    return UpstreamUrl(scheme, parts.hostname, port or default_port, path, query)

"""The small texts of an LLMRoute, each parsed once into a value that cannot be wrong: durations, names, URLs.

Owns the patterns (the CRD carries the same ones) and the parsing; fields.py makes types of fields of them. A gateway
that serves needs these and not those, which bring pydantic.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Literal, NewType
from urllib.parse import parse_qsl

Seconds = NewType("Seconds", float)

DURATION_PATTERN = r"^([0-9]{1,7}(ms|s|m)|[0-9]{1,5}h){1,4}$"
"""Four of the largest parts are 46 years: far from where Go's durations, which CEL has, overflow (292)."""
_DURATION_PART = re.compile(r"([0-9]{1,7})(ms|s|m|h)")
_UNIT_MILLIS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_MOST_IN_MS = 10_000_000  # a number has at most seven digits


def parse_duration(text: object) -> Seconds:
    """Seconds of a text such as `200ms`, `30s` or `1m30s`.

    Raises ValueError, saying what is expected, for anything else. The form is Go's, as kubectl users know it,
    less its fractions and signs.
    """
    if isinstance(text, float | int) and not isinstance(text, bool):
        raise ValueError(f"must be a duration with a unit, such as 30s or 200ms; {text} has none")
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"must be a duration such as 200ms, 30s or 1m30s, not {_shown(text)}")
    # Whole milliseconds first: `1s200ms` and `1200ms` are then the same float, and compile to the same bytes.
    return Seconds(sum(int(number) * _UNIT_MILLIS[unit] for number, unit in _DURATION_PART.findall(text)) / 1000)


def _shown(value: object) -> str:
    """`value` as a message may show it: short, whatever a person's file holds."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def format_duration(seconds: float) -> str:
    """A short text that `parse_duration` reads back as `seconds` (rounded to a millisecond; below 115 days)."""
    millis = round(seconds * 1000)
    whole, rest = divmod(millis, 1000)
    if rest:
        return f"{millis}ms" if millis < _MOST_IN_MS else f"{whole}s{rest}ms"
    for unit, size in (("h", 3600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


INSTANT_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
    r"(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
INSTANT_EXPECTED = "must be an RFC 3339 time such as 2027-01-01T00:00:00Z"


def parse_instant(value: object) -> datetime:
    """RFC 3339, as CEL's timestamp() takes it; `fromisoformat` alone would take dates, weeks and spaces too."""
    if isinstance(value, datetime):  # some YAML readers make one of an unquoted time
        instant = value
    elif isinstance(value, str) and re.fullmatch(INSTANT_PATTERN, value):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"is no time that there is: {error}") from None
    else:
        raise ValueError(f"{INSTANT_EXPECTED}, not {_shown(value)}")
    if instant.tzinfo is None:
        raise ValueError("must name its time zone, as in 2027-01-01T00:00:00Z")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999, in UTC") from None


LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""RFC 1123, as Kubernetes names its objects."""
SECRET_KEY_PATTERN = r"^[-_A-Za-z0-9]([-._A-Za-z0-9]*)$"  # noqa: S105 - likewise; no leading dot, so no `..`
MODEL_PATTERN = r"^[A-Za-z0-9@]([-A-Za-z0-9._:/@+]*)$"
"""What providers name models: `gpt-4o`, `meta-llama/Llama-3.1-8B`, `ft:gpt-4o:acme::7p4`, `@cf/meta/llama-3-8b`."""
MODEL_MATCH_PATTERN = r"^(\*|[A-Za-z0-9@]([-A-Za-z0-9._:/@+]*)\*?)$"
USD_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"

IN_WORDS = {
    LABEL_PATTERN: "lower-case letters, digits and '-' between them",
    SUBDOMAIN_PATTERN: "lower-case letters, digits, and '-' or '.' between them",
    SECRET_KEY_PATTERN: "letters, digits, '-', '_' and '.', which is not the first",
    MODEL_PATTERN: "a model's name, without spaces or '*'",
    MODEL_MATCH_PATTERN: "a model's name, without spaces; a '*' may stand at its end",
    USD_PATTERN: "dollars alone, such as 20 or 0.25",
}
"""What a pattern lets through, told beside it."""


def microdollars(usd: str) -> int:
    """A `Usd` text as a whole number of millionths; exact, as it has at most six decimals."""
    whole, _, rest = usd.partition(".")
    return int(whole) * 1_000_000 + int(rest.ljust(6, "0"))


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
HOST_PATTERN = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
PORT_PATTERN = r"(6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
PATH_PATTERN = r"(/[-A-Za-z0-9._~!$&()*+,;=:@/]*)?"
"""The parts of a URL as we take them, for the CRD too: what is not said here is refused, never guessed."""
_URL_TEXT = re.compile(r"[\x21-\x7e]+")
_URL_PARTS = re.compile(r"[a-z]+://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(?P<fragment>#.*)?")
_AUTHORITY = re.compile(f"(?P<host>{HOST_PATTERN})(:(?P<port>{PORT_PATTERN}))?")


def parse_upstream_url(text: str) -> UpstreamUrl:
    """The parts of an upstream's `url`.

    An http(s) URL without a path means `/v1`, as the OpenAI SDKs' base_url does. Raises ValueError with what is wrong:
    another scheme, a user or password inside, a fragment, a query (which mock:// alone has), no host, a bad port, a
    path with escapes or dot segments. Not `urlsplit`: that finds the host `::1` in `https://example.com[::1]`.
    """
    if len(text) > URL_MAX_LENGTH or not _URL_TEXT.fullmatch(text):
        raise ValueError(f"must be a URL of at most {URL_MAX_LENGTH} printable ASCII characters without spaces")
    scheme = next((known for known in SCHEMES if text.startswith(f"{known}://")), None)
    parts = _URL_PARTS.fullmatch(text)
    if scheme is None or parts is None:
        raise ValueError("must begin with http://, https://, mock:// or litellm://")
    if "@" in parts["authority"]:
        raise ValueError("must not hold a user or password; use credential.secretRef")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise ValueError("must name a host after ://, and no port or one from 1 to 65535")
    if parts["fragment"] is not None:
        raise ValueError("must not have a #fragment")
    if scheme != "mock" and parts["query"] is not None:
        raise ValueError("must not have a ?query; it is a base to which paths are added")
    path = parts["path"]
    if "%" in text or not re.fullmatch(PATH_PATTERN, path) or {".", ".."} & set(path.split("/")):
        raise ValueError(
            "must have a plain path: no %-escapes, no dot segments, none of the characters that URLs escape"
        )
    path = path.rstrip("/")
    if scheme in ("http", "https") and not path:
        path = "/v1"
    port = int(authority["port"] or {"http": 80, "https": 443}.get(scheme, 0))
    query = tuple(parse_qsl(parts["query"] or "", keep_blank_values=True))
    return UpstreamUrl(scheme, _host(authority["host"]), port, path, query)


def _host(text: str) -> str:
    """In lower case; an IPv6 address without its brackets."""
    if not text.startswith("["):
        return text.lower()
    try:
        return str(IPv6Address(text[1:-1]))
    except ValueError:
        raise ValueError(f"must have an IPv6 address in brackets, not {_shown(text)}") from None

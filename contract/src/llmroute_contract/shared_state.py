"""Where the gateways of a fleet keep what they count together: the address of a Valkey or Redis server.

Owns the form of the address. It never holds a password: that is in a Secret, whose entries `SECRET_ENTRIES` names.

    rediss://state.example:6380/0?timeout=250ms
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from llmroute_contract.scalars import HOST_PATTERN, PORT_PATTERN, parse_duration

SECRET_ENTRIES = ("username", "password", "ca.crt", "tls.crt", "tls.key")
"""Of the Secret that goes with an address; each may be missing."""
DEFAULT_PORT = 6379
DEFAULT_TIMEOUT = 0.1
_MOST_TIMEOUT = 10.0
_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_URL_MAX_LENGTH = 512
EXPECTED = (
    "must be redis://HOST[:PORT][/DATABASE][?timeout=100ms], or rediss:// for TLS (valkey:// and valkeys:// mean the "
    "same)"
)


@dataclass(frozen=True, slots=True)
class SharedStateUrl:
    """An address, parsed."""

    tls: bool
    host: str
    port: int
    database: int
    timeout: float
    """Seconds that a call waits for an answer, at most."""


def parse_shared_state_url(text: str) -> SharedStateUrl:
    """Raises ValueError, saying what is expected and never quoting the address, which might hold a password."""
    if not text.isprintable() or " " in text or len(text) > _URL_MAX_LENGTH:
        raise ValueError(EXPECTED)
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError(EXPECTED) from None
    if "@" in url.netloc:
        raise ValueError("must not hold a user or password; put them into the Secret of --shared-state-secret")
    place = re.fullmatch(rf"({HOST_PATTERN})(?::({PORT_PATTERN}))?", url.netloc)
    database = re.fullmatch(r"/?([0-9]{0,4})", url.path)
    if url.scheme not in _SCHEMES or place is None or database is None or url.fragment:
        raise ValueError(EXPECTED)
    port = url.port or DEFAULT_PORT
    return SharedStateUrl(_SCHEMES[url.scheme], url.hostname or "", port, int(database[1] or 0), _timeout(url.query))


def _timeout(query: str) -> float:
    timeout = DEFAULT_TIMEOUT
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "timeout":
            raise ValueError(EXPECTED)
        timeout = parse_duration(value)
    if not 0.001 <= timeout <= _MOST_TIMEOUT:
        raise ValueError("its timeout must be from 1ms to 10s")
    return timeout

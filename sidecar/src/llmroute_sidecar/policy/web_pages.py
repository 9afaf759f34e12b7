"""What web pages may not do that a browser on the gateway's own machine shows: read what a listener on a loopback
address says, and make calls where no key is asked for.

Theory of operation
===================

*Reading.* A page can let its own name lead to 127.0.0.1 (DNS rebinding); to the browser the gateway is then that page's
server, whose answers it may read. The name stays in Host, which no page can change. So a listener on a loopback address
answers to names alone that no page's owner can have: `localhost` and what ends in it (RFC 6761 §6.3), addresses, what
container engines call the machine they run on (`internal` is no public domain), and what the person who starts it
adds. A listener on other addresses is called by whatever name a Service or an ingress gives it: Host is not looked at
there.

*Calling.* A page of any site may send a POST without asking the server first, if that looks like a form's: few headers,
none of them a key's, and a type of those that forms have, or none (Fetch, CORS-safelisted request-header). It cannot
read the answer, but the call is made and paid for. All other calls are preceded by a question (preflight), to which the
gateway never says yes: one with a key, or of the type `application/json`, has come another way. Of the rest a browser
says, and no page can change it:

    Sec-Fetch-Site: same-origin, none     not of another site
    Origin: on this machine               a developer's page (http://localhost:3000), welcome
    Origin: the same as Host              not of another site; browsers without Sec-Fetch-Site say no more
    Origin: neither http nor https        a program with a browser inside (app://…), no page of the web
    Origin: any other, or null            of another site
    Sec-Fetch-Site: cross-site alone      of another site
    neither header                        no browser: SDKs, curl
"""

import ipaddress
from collections.abc import Iterable, Sequence

_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")
_KNOWN_MAX = 64
_OWN_SITE = (b"same-origin", b"none")


class LocalHosts:
    """The Host headers that a listener on a loopback address answers to; `more` are names beside those above."""

    __slots__ = ("_known", "_names")

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._names = frozenset((*_NAMES, *(name.lower() for name in more)))
        self._known: set[bytes] = set()

    def answer_to(self, host: bytes) -> bool:
        """Whether a request with this value of Host is for us. Nearly all have the same."""
        if host in self._known:
            return True
        if not self._is_ours(host.decode("latin-1").lower()):
            return False
        if len(self._known) < _KNOWN_MAX:
            self._known.add(host)
        return True

    def _is_ours(self, host: str) -> bool:
        name, port = _name_and_port(host)
        if port and not port.isdecimal():
            return False
        return not host or name.removesuffix(".") in self._names or _is_under_localhost(name) or _is_address(name)


def not_answered_to(host: bytes) -> str:
    """The words for another one."""
    return (
        f"on a loopback address the gateway does not answer to the name {host[:100].decode('latin-1')!r}: "
        "call localhost or the address, or start the gateway with --allow-host NAME"
    )


def is_of_another_site(
    origins: Sequence[bytes], fetch_sites: Sequence[bytes], hosts: Sequence[bytes], content_types: Sequence[bytes]
) -> bool:
    """Whether these headers' values, as they came, are of a POST that a page of another site sends unasked."""
    if not origins and not fetch_sites:
        return False
    if len(content_types) == 1 and content_types[0].partition(b";")[0].strip().lower() == b"application/json":
        return False
    if len(fetch_sites) == 1 and fetch_sites[0] in _OWN_SITE:
        return False
    if not origins:
        return b"cross-site" in fetch_sites
    return any(not _is_welcome(origin, hosts) for origin in origins)


def _is_welcome(origin: bytes, hosts: Sequence[bytes]) -> bool:
    scheme, separator, place = origin.lower().partition(b"://")
    if scheme not in (b"http", b"https"):
        return bool(separator)
    if any(place == host.lower() for host in hosts):
        return True
    name, _ = _name_and_port(place.decode("latin-1"))
    return name == "localhost" or _is_under_localhost(name) or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Whether this is an address, and leads to this machine alone."""
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = read.ipv4_mapped if isinstance(read, ipaddress.IPv6Address) else None
    return (mapped or read).is_loopback


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_under_localhost(name: str) -> bool:
    return name.endswith(".localhost")


def _name_and_port(text: str) -> tuple[str, str]:
    """Of `name:port`, `[address]:port` or either alone."""
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        return name, port.removeprefix(":")
    name, _, port = text.partition(":")
    return name, port

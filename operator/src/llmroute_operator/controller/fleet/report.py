"""What a sidecar tells of itself at `/status`, as far as the controller tells it on. Pure.

It is another's text (whoever makes pods in a namespace can put any server there): read with types, cut to length,
without control characters, and told in its own namespace alone.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

TEXT_MAX = 200
TOLD_MAX = 64
"""Entries of each list that are kept."""


class UnreadableReport(ValueError):
    """Not what a gateway answers."""


class MissingSecret(msgspec.Struct, frozen=True):
    """`key` is None where the whole Secret is missing. `field` is the one of the route that names it."""

    route: str
    field: str
    secret: str
    key: str | None = None
    trouble: str = "is not there"


class UnavailableUpstream(msgspec.Struct, frozen=True):
    route: str
    upstream: str
    reason: str


class _Route(msgspec.Struct):
    name: str
    accepted: bool
    reason: str = ""


class _Status(msgspec.Struct):
    namespace: str | None = None
    gateway: str | None = None
    revision: str | None = None
    error: str | None = None
    routes: list[_Route] = []
    missing_secret_entries: list[MissingSecret] = []
    unavailable_upstreams: list[UnavailableUpstream] = []
    problems: list[str] = []


@dataclass(frozen=True, slots=True)
class Report:
    namespace: str
    gateway: str
    revision: str
    """Empty: it serves nothing yet."""
    error: str = ""
    """Why the newest configuration could not be read."""
    rejected: tuple[tuple[str, str], ...] = ()
    """Routes whose newest version it does not take, and why."""
    missing: tuple[MissingSecret, ...] = ()
    unavailable: tuple[UnavailableUpstream, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong with what it serves."""
        return not (self.error or self.rejected or self.missing or self.unavailable or self.problems)


_decoder = msgspec.json.Decoder(_Status)


def read_report(body: bytes) -> Report:
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableReport("its answer is not a gateway's status") from None
    return Report(
        namespace=sys.intern(_text(status.namespace or "")),
        gateway=sys.intern(_text(status.gateway or "")),
        revision=sys.intern(_text(status.revision or "", 64)),
        error=_text(status.error or ""),
        rejected=tuple((_text(one.name), _text(one.reason)) for one in status.routes if not one.accepted)[:TOLD_MAX],
        missing=tuple(
            MissingSecret(
                _text(one.route), _text(one.field), _text(one.secret), one.key and _text(one.key), _text(one.trouble)
            )
            for one in status.missing_secret_entries[:TOLD_MAX]
        ),
        unavailable=tuple(
            UnavailableUpstream(_text(one.route), _text(one.upstream), _text(one.reason))
            for one in status.unavailable_upstreams[:TOLD_MAX]
        ),
        problems=tuple(_texts(status.problems[:TOLD_MAX])),
    )


def _texts(texts: Iterable[str]) -> Iterable[str]:
    return (_text(text) for text in texts)


def _text(text: str, most: int = TEXT_MAX) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."

"""Who calls: from the key in a request's headers to the client it stands for, and whether that client may have a
model.

Only SHA-256 digests of keys are held. A presented key is digested and looked up by its digest, then compared in
constant time: how long that takes depends on no byte of any key, since nobody can choose a digest's bytes.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmroute_contract.scalars import matches_model

KEY_MAX_BYTES = 4096
KEYS_PER_CLIENT = 64


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one route."""

    name: str
    route: str
    models: tuple[str, ...] | None
    """Patterns of the models it may use; None: all of the route."""
    expires_at: float | None
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """More than one key was presented, or one header twice with different values; answered 401."""


def parse_keys(content: bytes) -> tuple[bytes, ...]:
    """The keys in a Secret's entry: one a line, so that an old and a new one overlap in a rotation. Blank lines and
    `#` lines are skipped, as are keys above KEY_MAX_BYTES; at most KEYS_PER_CLIENT are taken."""
    lines = (line.strip() for line in content.splitlines())
    keys = [line for line in lines if line and not line.startswith(b"#") and len(line) <= KEY_MAX_BYTES]
    return tuple(keys[:KEYS_PER_CLIENT])


def presented_key(x_api_key: Sequence[bytes], authorization: Sequence[bytes]) -> bytes | Ambiguous | None:
    """The key in `X-API-Key` or `Authorization: Bearer`, from those headers' values as they came.

    None where there is none: a blank value is no key, nor is a credential of another scheme. Ambiguous where a header
    stands twice with different values, or the two name different keys: which one counts would be a guess.
    """
    if not x_api_key and len(authorization) == 1:  # nearly every call
        return _bearer(authorization[0]) or None
    key = _only([value.strip() for value in x_api_key])
    bearer = _only([_bearer(value) for value in authorization])
    if isinstance(key, Ambiguous) or isinstance(bearer, Ambiguous):
        return Ambiguous()
    if key and bearer and key != bearer:
        return Ambiguous()
    return key or bearer or None


def _bearer(value: bytes) -> bytes:
    scheme, _, rest = value.strip().partition(b" ")  # RFC 6750 §2.1: a space; the scheme in any case (RFC 9110 §11.1)
    return rest.strip() if scheme.lower() == b"bearer" else b""


def _only(keys: list[bytes]) -> bytes | Ambiguous:
    """What all of `keys` say; b"" where there are none."""
    if not keys:
        return b""
    return keys[0] if keys.count(keys[0]) == len(keys) else Ambiguous()


class KeyRing:
    """Immutable: which digest is whose."""

    __slots__ = ("_clients",)

    def __init__(self, clients: dict[bytes, tuple[Client, ...]]) -> None:
        self._clients = {digest: (digest, found) for digest, found in clients.items()}

    @classmethod
    def build(cls, entries: Iterable[tuple[bytes, Client]]) -> "KeyRing":
        """From keys and their clients. One key may stand for a client in several routes; in one route the first has
        it."""
        clients: dict[bytes, tuple[Client, ...]] = {}
        for key, client in entries:
            digest = hashlib.sha256(key).digest()
            known = clients.get(digest, ())
            if all(other.route != client.route for other in known):
                clients[digest] = (*known, client)
        return cls(clients)

    def find(self, presented: bytes) -> tuple[Client, ...]:
        """The clients that the key stands for, at most one of each route; () for an unknown key."""
        digest = hashlib.sha256(presented).digest()
        held = self._clients.get(digest)
        if held is None or not hmac.compare_digest(held[0], digest):
            return ()
        return held[1]

    def __repr__(self) -> str:
        return f"KeyRing({len(self._clients)} keys)"


def may_use(client: Client, model: str, now_unix: float) -> Literal["yes", "model_not_allowed", "expired"]:
    """Whether the client may have the model. A key that expired is worth nothing, so that is told first."""
    if client.expires_at is not None and now_unix >= client.expires_at:
        return "expired"
    if client.models is not None and not any(matches_model(pattern, model) for pattern in client.models):
        return "model_not_allowed"
    return "yes"

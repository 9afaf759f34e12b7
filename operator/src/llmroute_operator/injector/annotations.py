"""What a pod's author asks for in annotations, checked one by one: each refusal names the annotation, what it says and
what is allowed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from llmroute_contract.pods import (
    ANNOTATION_PREFIX,
    CLIENT_ANNOTATION,
    DEFAULT_GATEWAY,
    GATEWAY_ANNOTATION,
    REVISION_ANNOTATION,
)
from llmroute_contract.scalars import LABEL_PATTERN, SECRET_KEY_PATTERN, SUBDOMAIN_PATTERN
from llmroute_operator.injector.quantity import parse_quantity
from llmroute_operator.injector.settings import LOG_LEVELS, PORT_LEAST, PORT_MOST, LogLevel

T = TypeVar("T")

CPU_REQUEST, CPU_LIMIT = "llmroute.dev/cpu-request", "llmroute.dev/cpu-limit"
MEMORY_REQUEST, MEMORY_LIMIT = "llmroute.dev/memory-request", "llmroute.dev/memory-limit"
LOG_LEVEL = "llmroute.dev/log-level"
DATA_PORT_ANNOTATION, ADMIN_PORT_ANNOTATION = "llmroute.dev/data-port", "llmroute.dev/admin-port"
CONTAINERS = "llmroute.dev/containers"
ANTHROPIC = "llmroute.dev/anthropic"

GATEWAY_NAME_MAX_LENGTH = 40
_SHOWN_MAX = 60
_NAME_MAX = 253
_CPU = (Decimal("0.001"), Decimal(64))
_MEMORY = (Decimal(32 * 2**20), Decimal(64 * 2**30))


@dataclass(frozen=True, slots=True)
class ClientChoice:
    """Which entry of which Secret of client keys; `secret` None: the only one there is."""

    entry: str
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """None stands for: as the settings have it."""

    gateway: str = DEFAULT_GATEWAY
    client: ClientChoice | None = None
    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None
    log_level: LogLevel | None = None
    data_port: int | None = None
    admin_port: int | None = None
    containers: tuple[str, ...] | None = None
    """Those that are given variables. None: all."""
    anthropic: bool | None = None


@dataclass(frozen=True, slots=True)
class WrongAnnotations:
    messages: tuple[str, ...]


def read_wishes(annotations: Mapping[str, str]) -> Wishes | WrongAnnotations:
    wrong: list[str] = []

    def read(name: str, parse: Callable[[str], T]) -> T | None:
        text = annotations.get(name)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            wrong.append(f"annotation {name} is {shown(text)}: {error}")
            return None

    wishes = Wishes(
        gateway=read(GATEWAY_ANNOTATION, _gateway) or DEFAULT_GATEWAY,
        client=read(CLIENT_ANNOTATION, _client),
        cpu_request=read(CPU_REQUEST, _cpu),
        cpu_limit=read(CPU_LIMIT, _cpu),
        memory_request=read(MEMORY_REQUEST, _memory),
        memory_limit=read(MEMORY_LIMIT, _memory),
        log_level=read(LOG_LEVEL, _log_level),
        data_port=read(DATA_PORT_ANNOTATION, _port),
        admin_port=read(ADMIN_PORT_ANNOTATION, _port),
        containers=read(CONTAINERS, _containers),
        anthropic=read(ANTHROPIC, _true_or_false),
    )
    for request, limit in ((CPU_REQUEST, CPU_LIMIT), (MEMORY_REQUEST, MEMORY_LIMIT)):
        both = not wrong and request in annotations and limit in annotations
        if both and parse_quantity(annotations[request]) > parse_quantity(annotations[limit]):
            wrong.append(
                f"annotation {request} is {shown(annotations[request])}: must not be more than {limit}, "
                f"{shown(annotations[limit])}"
            )
    return WrongAnnotations(tuple(wrong)) if wrong else wishes


_KNOWN = frozenset(
    (
        GATEWAY_ANNOTATION,
        CLIENT_ANNOTATION,
        REVISION_ANNOTATION,
        CPU_REQUEST,
        CPU_LIMIT,
        MEMORY_REQUEST,
        MEMORY_LIMIT,
        LOG_LEVEL,
        DATA_PORT_ANNOTATION,
        ADMIN_PORT_ANNOTATION,
        CONTAINERS,
        ANTHROPIC,
    )
)


def unknown_annotations(annotations: Mapping[str, str]) -> list[str]:
    """Ours by their prefix, and none that there is: most likely mistyped. Told, not refused: a newer chart may have
    them while an older injector still runs."""
    return sorted(name for name in annotations if name.startswith(ANNOTATION_PREFIX) and name not in _KNOWN)


def shown(text: str) -> str:
    """As a message may have it: in quotes, short, on one line."""
    return repr(text) if len(text) <= _SHOWN_MAX else repr(text[: _SHOWN_MAX - 3] + "...")


def _gateway(text: str) -> str:
    if len(text) > GATEWAY_NAME_MAX_LENGTH or not re.fullmatch(LABEL_PATTERN, text):
        raise ValueError(
            f"must be a gateway's name, as in a route's spec.gateway: at most {GATEWAY_NAME_MAX_LENGTH} lower-case "
            "letters, digits and hyphens"
        )
    return text


def _client(text: str) -> ClientChoice:
    secret, slash, entry = text.rpartition("/")
    is_entry = len(entry) <= _NAME_MAX and re.fullmatch(SECRET_KEY_PATTERN, entry)
    is_secret = not slash or (len(secret) <= _NAME_MAX and re.fullmatch(SUBDOMAIN_PATTERN, secret))
    if not is_entry or not is_secret:
        raise ValueError("must be a client's name, the entry's in the Secret of client keys, or SECRET/NAME")
    return ClientChoice(entry, secret or None)


def _cpu(text: str) -> str:
    return _between(text, _CPU, "1m", "64")


def _memory(text: str) -> str:
    return _between(text, _MEMORY, "32Mi", "64Gi")


def _between(text: str, bounds: tuple[Decimal, Decimal], least: str, most: str) -> str:
    try:
        found = parse_quantity(text)
    except ValueError:
        found = None
    if found is None or not bounds[0] <= found <= bounds[1]:
        raise ValueError(f"must be a quantity from {least} to {most}")
    return text


def _log_level(text: str) -> LogLevel:
    for level in LOG_LEVELS:
        if text == level:
            return level
    raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not PORT_LEAST <= int(text) <= PORT_MOST:
        raise ValueError(f"must be a port from {PORT_LEAST} to {PORT_MOST}")
    return int(text)


def _containers(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if not all(re.fullmatch(LABEL_PATTERN, name) for name in names):
        raise ValueError("must be names of containers with commas between them, or empty for none")
    return names


def _true_or_false(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError('must be "true" or "false"')
    return text == "true"

"""Prints the gateways: tables for people, JSON for programs. Pure, but for the stream."""

import dataclasses
import json
from collections.abc import Iterator, Sequence

from llmroute_sidecar.status.gather import GatewayState, PodState

_TEXT_MAX = 1000
_HEAD = ("POD", "REVISION", "STATE", "BREAKERS", "TELLS")


def as_text(gateways: Sequence[GatewayState]) -> str:
    return "\n".join(line for one in gateways for line in _lines(one))


def as_json(gateways: Sequence[GatewayState]) -> str:
    return json.dumps(
        [{**dataclasses.asdict(one), "synced": one.synced, "total": len(one.pods)} for one in gateways], indent=2
    )


def _lines(gateway: GatewayState) -> Iterator[str]:
    revision = f"revision {gateway.revision}" if gateway.revision else "no route"
    yield f"gateway {gateway.namespace}/{gateway.gateway}: {revision}, {gateway.synced}/{len(gateway.pods)} synced"
    if gateway.routes:
        yield f"  routes: {', '.join(gateway.routes)}"
    if gateway.pods:
        rows = [_HEAD, *(_row(pod, gateway.revision) for pod in sorted(gateway.pods, key=lambda pod: pod.name))]
        widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield f"  {'  '.join(cells)}".rstrip()
    yield ""


def _row(pod: PodState, wanted: str) -> tuple[str, str, str, str, str]:
    if pod.failure:
        return pod.name, "-", "unreachable", "-", _plain(pod.failure)
    state = "synced" if pod.revision and pod.revision == wanted else "behind"
    breakers = ", ".join(f"{upstream} {state}" for upstream, state in pod.breakers.items())
    return pod.name, _plain(pod.revision) or "-", state, _plain(breakers) or "-", _plain("; ".join(pod.tells)) or "-"


def _plain(text: str) -> str:
    """A pod's text, cut, without what would move a terminal's cursor."""
    shown = "".join(character if character.isprintable() else " " for character in text[: _TEXT_MAX + 1])
    return shown if len(shown) <= _TEXT_MAX else f"{shown[: _TEXT_MAX - 3]}..."

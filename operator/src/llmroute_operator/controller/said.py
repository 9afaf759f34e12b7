"""A condition as it is said, and the joining of its sentences. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MESSAGE_MAX = 8192
"""Characters of a message: a quarter of what the CRD allows, for a message is read by a person and stored with each
route."""

Kind = Literal["Accepted", "ResolvedRefs", "Programmed", "Synced", "PodRestartRequired", "PodsWithoutGateway"]


@dataclass(frozen=True, slots=True)
class Condition:
    type: Kind
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def message(sentences: Sequence[str], *last: str) -> str:
    """As many of `sentences` as fit, how many more there are, and `last` in any case."""
    ending = " ".join(last)[: MESSAGE_MAX // 2]
    room = MESSAGE_MAX - len(ending) - 32
    told: list[str] = []
    for place, sentence in enumerate(sentences):
        if len(sentence) >= room:
            if not told:
                told.append(f"{sentence[: room - 4]} ...")
                place += 1  # noqa: PLW2901 - this one is told, if not to its end
            if place < len(sentences):
                told.append(f"And {len(sentences) - place} more.")
            break
        room -= len(sentence) + 1
        told.append(sentence)
    return " ".join([*told, ending]) if ending else " ".join(told)

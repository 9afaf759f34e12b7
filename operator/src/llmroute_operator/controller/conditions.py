"""What a route's status should say, and whether it says so already. Pure.

Accepted:      is this generation served, as the person wrote it? If not: each field, why, and what is served instead.
ResolvedRefs:  does every name that the route uses exist?
Programmed:    does the gateway's ConfigMap hold this generation?

Each is said of the generation that was looked at (`observedGeneration`). Other conditions in the list are of other
hands and left alone: server-side apply merges the list by type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from llmroute_contract.compile import Verdict
from llmroute_contract.compiled import configmap_name
from llmroute_contract.llmroute import API_VERSION, KIND
from llmroute_operator.controller.configmap import Served, timestamp
from llmroute_operator.controller.route import Route

MESSAGE_MAX = 8192
"""Characters of a message: a quarter of what the CRD allows, for a message is read by a person and stored with each
route."""

UNRESOLVED = ("UnknownUpstream", "UnknownFallback", "UnknownModel")
TOLD_NOT_REFUSED = "UnknownModel"
"""Does not keep a route from being accepted: the model may come yet."""

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """The ConfigMap is as it was compiled."""

    revision: str


@dataclass(frozen=True, slots=True)
class NotWritten:
    """The ConfigMap could not be written, and holds what it held before."""

    reason: Literal["Pending", "ApplyFailed"]
    message: str
    served: Served


@dataclass(frozen=True, slots=True)
class Condition:
    type: Literal["Accepted", "ResolvedRefs", "Programmed"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def conditions_of(route: Route, verdict: Verdict, outcome: Written | NotWritten) -> tuple[Condition, ...]:
    serving = _serving(route, verdict, outcome)
    return _accepted(route, verdict, serving), _resolved(route, verdict), _programmed(route, serving, outcome)


def _serving(route: Route, verdict: Verdict, outcome: Written | NotWritten) -> int | None:
    """The generation that gateways get."""
    return verdict.serving if isinstance(outcome, Written) else outcome.served.generation_of(route.name.name)


def _accepted(route: Route, verdict: Verdict, serving: int | None) -> Condition:
    inactive = [f"Not acted on: {'; '.join(verdict.inactive)}."] if verdict.inactive else []
    if verdict.accepted:
        return Condition(
            "Accepted", "True", "Accepted", _message([f"Generation {route.generation} is accepted.", *inactive])
        )
    problems = [problem for problem in verdict.problems if problem.reason != TOLD_NOT_REFUSED]
    if serving is None:
        served = "Nothing of this route is served."
    elif serving == route.generation:
        served = f"The rest of generation {serving} is served."
    else:
        served = f"Generation {serving} is served instead of {route.generation}."
    return Condition(
        "Accepted",
        "False",
        problems[0].reason,
        _message([f"{problem}." for problem in problems], served, *inactive),
    )


def _resolved(route: Route, verdict: Verdict) -> Condition:
    problems = [problem for problem in verdict.problems if problem.reason in UNRESOLVED]
    if problems:
        return Condition("ResolvedRefs", "False", problems[0].reason, _message([f"{problem}." for problem in problems]))
    if isinstance(route.spec, tuple):
        return Condition(
            "ResolvedRefs", "Unknown", "Invalid", "The spec cannot be read, so its names were not looked up."
        )
    return Condition("ResolvedRefs", "True", "ResolvedRefs", "Every name that the route uses exists.")


def _programmed(route: Route, serving: int | None, outcome: Written | NotWritten) -> Condition:
    name = configmap_name(route.gateway)
    if isinstance(outcome, NotWritten):
        held = f"generation {serving}" if serving is not None else "nothing of this route"
        return Condition("Programmed", "False", outcome.reason, _message([outcome.message], f"{name} holds {held}."))
    if serving == route.generation:
        return Condition("Programmed", "True", "Programmed", f"ConfigMap {name} holds generation {serving}.")
    if serving is None:
        message = f"ConfigMap {name} holds nothing of this route."
    else:
        message = f"ConfigMap {name} holds generation {serving}, not {route.generation}."
    return Condition("Programmed", "False", "NotAccepted", message)


def _message(sentences: Sequence[str], *last: str) -> str:
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


# --- the status document


def status_of(route: Route, verdict: Verdict, outcome: Written | NotWritten, now: datetime) -> Status:
    """`status`, as far as it is ours. A condition that says what it said keeps the time of its last transition."""
    before = _conditions_in(route.status)
    return {
        "observedGeneration": route.generation,
        "conditions": [
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": route.generation,
                "lastTransitionTime": _transition(before.get(condition.type), condition, now),
                "reason": condition.reason,
                "message": condition.message,
            }
            for condition in conditions_of(route, verdict, outcome)
        ],
        "revision": outcome.revision if isinstance(outcome, Written) else outcome.served.revision,
    }


def says(present: Mapping[str, Any], wanted: Status) -> bool:
    """Whether `present` says all that is `wanted`."""
    before = _conditions_in(present)
    return all(present.get(name) == wanted[name] for name in ("observedGeneration", "revision")) and all(
        condition.items() <= before.get(condition["type"], {}).items() for condition in wanted["conditions"]
    )


def status_manifest(route: Route, status: Status) -> dict[str, Any]:
    """The body of the server-side apply on `/status`. The uid keeps it from another route of the same name."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": route.name.name, "namespace": route.name.namespace, "uid": route.uid},
        "status": status,
    }


def _transition(before: Mapping[str, Any] | None, condition: Condition, now: datetime) -> str:
    if before is not None and before.get("status") == condition.status and before.get("lastTransitionTime"):
        return str(before["lastTransitionTime"])
    return timestamp(now)


def _conditions_in(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions") or ()}

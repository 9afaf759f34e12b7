"""What a route's status should say, and whether it says so already. Pure.

Accepted:      is this generation served, as the person wrote it? If not: each field, why, and what is served instead.
ResolvedRefs:  does every name that the route uses exist, and every Secret, in the pods?
Programmed:    does the gateway's ConfigMap hold this generation?

What comes of the pods beside that (Synced and others, `sidecars`) is `fleet/conditions.py`'s. While too little is known
of them, what was said of them stays as it is.

Each is said of the generation that was looked at (`observedGeneration`). Other conditions in the list are of other
hands and left alone: server-side apply merges the list by type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from llmroute_contract.compile import Verdict
from llmroute_contract.compiled import CompiledShares, configmap_name
from llmroute_contract.llmroute import API_VERSION, KIND
from llmroute_contract.shares import say_shares
from llmroute_operator.controller.configmap import Served, timestamp
from llmroute_operator.controller.fleet.conditions import Facts, conditions_of_pods, sidecars_of, unresolved
from llmroute_operator.controller.route import Route
from llmroute_operator.controller.said import Condition, message

UNRESOLVED = ("UnknownUpstream", "UnknownFallback", "UnknownModel")
OF_PODS = ("Synced", "PodRestartRequired", "PodsWithoutGateway")
UNRESOLVED_IN_PODS = ("SecretMissing", "UpstreamUnavailable")
"""Reasons of ResolvedRefs that only pods can tell."""
TOLD_NOT_REFUSED = "UnknownModel"
"""Does not keep a route from being accepted: the model may come yet."""

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """The ConfigMap is as it was compiled."""

    revision: str
    kept_by: Mapping[str, str] = field(default_factory=dict)
    """Routes that another gateway goes on with, from which they have moved: that gateway."""


@dataclass(frozen=True, slots=True)
class NotWritten:
    """The ConfigMap could not be written, and holds what it held before."""

    reason: Literal["Pending", "ApplyFailed"]
    message: str
    served: Served


def conditions_of(
    route: Route, verdict: Verdict, outcome: Written | NotWritten, facts: Facts | None
) -> tuple[Condition, ...]:
    serving = _serving(route, verdict, outcome)
    return (
        _accepted(route, verdict, serving, _keeper(route, outcome)),
        _resolved(route, verdict, _revision(outcome), facts),
        _programmed(route, serving, outcome),
        *(conditions_of_pods(route, _revision(outcome), facts) if facts is not None else ()),
    )


def _revision(outcome: Written | NotWritten) -> str:
    return outcome.revision if isinstance(outcome, Written) else outcome.served.revision


def _serving(route: Route, verdict: Verdict, outcome: Written | NotWritten) -> int | None:
    """The generation that gateways get."""
    return verdict.serving if isinstance(outcome, Written) else outcome.served.generation_of(route.name.name)


def _keeper(route: Route, outcome: Written | NotWritten) -> str | None:
    return outcome.kept_by.get(route.name.name) if isinstance(outcome, Written) else None


def _accepted(route: Route, verdict: Verdict, serving: int | None, keeper: str | None) -> Condition:
    inactive = [f"Not acted on: {'; '.join(verdict.inactive)}."] if verdict.inactive else []
    if verdict.accepted:
        return Condition(
            "Accepted", "True", "Accepted", message([f"Generation {route.generation} is accepted.", *inactive])
        )
    problems = [problem for problem in verdict.problems if problem.reason != TOLD_NOT_REFUSED]
    if serving is None and keeper is not None:
        served = f"Gateway {keeper!r}, from which it moves, serves an earlier generation until this is mended."
    elif serving is None:
        served = "Nothing of this route is served."
    elif serving == route.generation:
        served = f"The rest of generation {serving} is served."
    else:
        served = f"Generation {serving} is served instead of {route.generation}."
    return Condition(
        "Accepted",
        "False",
        problems[0].reason,
        message([f"{problem}." for problem in problems], served, *inactive),
    )


def _resolved(route: Route, verdict: Verdict, revision: str, facts: Facts | None) -> Condition:
    problems = [problem for problem in verdict.problems if problem.reason in UNRESOLVED]
    if problems:
        return Condition("ResolvedRefs", "False", problems[0].reason, message([f"{problem}." for problem in problems]))
    if isinstance(route.spec, tuple):
        return Condition(
            "ResolvedRefs", "Unknown", "Invalid", "The spec cannot be read, so its names were not looked up."
        )
    if facts is None:
        said = _conditions_in(route.status).get("ResolvedRefs", {})
        if said.get("reason") in UNRESOLVED_IN_PODS:
            return Condition("ResolvedRefs", "False", said["reason"], said["message"])
    else:
        reason, sentences = unresolved(route, revision, facts.standings)
        if sentences:
            return Condition("ResolvedRefs", "False", reason, message(sentences))
    return Condition("ResolvedRefs", "True", "ResolvedRefs", "Every name that the route uses exists.")


def _programmed(route: Route, serving: int | None, outcome: Written | NotWritten) -> Condition:
    name = configmap_name(route.gateway)
    if isinstance(outcome, NotWritten):
        held = f"generation {serving}" if serving is not None else "nothing of this route"
        return Condition("Programmed", "False", outcome.reason, message([outcome.message], f"{name} holds {held}."))
    if serving == route.generation:
        return Condition("Programmed", "True", "Programmed", f"ConfigMap {name} holds generation {serving}.")
    if serving is None:
        held = f"ConfigMap {name} holds nothing of this route."
    else:
        held = f"ConfigMap {name} holds generation {serving}, not {route.generation}."
    return Condition("Programmed", "False", "NotAccepted", held)


# --- the status document


def status_of(
    route: Route,
    verdict: Verdict,
    outcome: Written | NotWritten,
    now: datetime,
    facts: Facts | None = None,
    shares: CompiledShares | None = None,
) -> Status:
    """`status`, as far as it is ours. A condition that says what it said keeps the time of its last transition."""
    before = _conditions_in(route.status)
    conditions = [
        {
            "type": condition.type,
            "status": condition.status,
            "observedGeneration": route.generation,
            "lastTransitionTime": _transition(before.get(condition.type), condition, now),
            "reason": condition.reason,
            "message": condition.message,
        }
        for condition in conditions_of(route, verdict, outcome, facts)
    ]
    if facts is None:
        conditions += [dict(before[kind]) for kind in OF_PODS if kind in before]
        sidecars = route.status.get("sidecars")
    else:
        sidecars = sidecars_of(_revision(outcome), facts.standings)
    limits = _limits(route, shares)
    return {
        "observedGeneration": route.generation,
        "conditions": conditions,
        "revision": _revision(outcome),
        **({"sidecars": sidecars} if sidecars is not None else {}),
        **({"limits": limits} if limits else {}),
    }


def _limits(route: Route, shares: CompiledShares | None) -> list[dict[str, str]]:
    """`status.limits`."""
    if shares is None or isinstance(route.spec, tuple):
        return []
    shared = [limit for limit in route.spec.limits or () if limit.scope == "Gateway"]
    return [{"name": limit.name, "share": say_shares(limit, shares)} for limit in shared]


def says(present: Mapping[str, Any], wanted: Status) -> bool:
    """Whether `present` says all that is `wanted`, and nothing of ours beside it."""
    before = _conditions_in(present)
    said = {condition["type"] for condition in wanted["conditions"]}
    return (
        all(present.get(name) == wanted.get(name) for name in ("observedGeneration", "revision", "sidecars", "limits"))
        and all(condition.items() <= before.get(condition["type"], {}).items() for condition in wanted["conditions"])
        and not any(kind in before and kind not in said for kind in OF_PODS)
    )


def without_pods(status: Mapping[str, Any]) -> tuple[object, ...]:
    """What of a status another's change to is put back at once. What pods told is not in it: two controllers that see
    them differently for a while (one cannot reach them, say) would write against each other as fast as they can. It is
    looked at when there is news of a pod, and at each relist."""
    told = tuple(
        condition
        for condition in status.get("conditions") or ()
        if condition.get("type") not in OF_PODS and condition.get("reason") not in UNRESOLVED_IN_PODS
    )
    return status.get("observedGeneration"), status.get("revision"), told


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

"""What a route's status says of the pods that serve it. Pure.

Synced:             does every pod of the gateway serve the newest revision?
PodRestartRequired: there only while true: pods do not mount a Secret that the route needs
PodsWithoutGateway: there only while true: pods ask for this gateway and have none

Secrets that are mounted and not there, and upstreams that pods cannot call, belong to ResolvedRefs (`unresolved`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.secrets import secrets_needed
from llmroute_operator.controller.fleet.pod import GatewayPod
from llmroute_operator.controller.fleet.roster import Standing
from llmroute_operator.controller.fleet.without import NAMED_MAX, Without, what_to_do
from llmroute_operator.controller.route import Route
from llmroute_operator.controller.said import Condition, message

SAMPLES_MAX = 5
SAMPLE_MAX = 300
"""Characters of a sample's reason."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a gateway's pods."""

    standings: Sequence[Standing]
    without: Without
    state_secret: str | None = None
    """The Secret of the shared state, which routes need that count there."""


def conditions_of_pods(route: Route, revision: str, facts: Facts) -> tuple[Condition, ...]:
    return (_synced(revision, facts.standings), *_restart_required(route, facts), *_without(route, facts))


def sidecars_of(revision: str, standings: Sequence[Standing]) -> dict[str, Any]:
    """`status.sidecars`, each field of it: what a default would fill in would look like another's edit."""
    behind = [one for one in standings if not _is_current(one, revision)]
    return {
        "total": len(standings),
        "synced": len(standings) - len(behind),
        "summary": f"{len(standings) - len(behind)}/{len(standings)}",
        "samples": [
            {
                "pod": one.pod.id.name,
                "revision": one.report.revision if one.report else "",
                "reason": _why(one)[:SAMPLE_MAX],
            }
            for one in behind[:SAMPLES_MAX]
        ],
    }


def _is_current(standing: Standing, revision: str) -> bool:
    report = standing.report
    return not standing.failure and report is not None and report.revision == revision and _is_its_own(standing)


def _is_its_own(standing: Standing) -> bool:
    report = standing.report
    return report is not None and (report.namespace, report.gateway) == standing.pod.key


def _why(standing: Standing) -> str:
    report = standing.report
    if standing.failure:
        return standing.failure
    if report is None:
        return "it has not been asked yet"
    if not report.revision:
        return f"it has no configuration yet{f': {report.error}' if report.error else ''}"
    if not _is_its_own(standing):
        return f"it serves gateway {report.gateway!r} of namespace {report.namespace!r}; another ConfigMap is mounted"
    if report.rejected:
        route, reason = report.rejected[0]
        return f"it does not take route {route!r}: {reason}"
    if report.error:
        return f"it cannot read its configuration: {report.error}"
    return "it has not read the newest configuration yet"


def _synced(revision: str, standings: Sequence[Standing]) -> Condition:
    if not standings:
        return Condition("Synced", "True", "NoPods", "No pod has this gateway.")
    behind = [one for one in standings if not _is_current(one, revision)]
    count = f"{len(standings) - len(behind)} of {len(standings)} pods serve revision {revision}."
    if not behind:
        troubled = [one for one in standings if one.report is not None and one.report.problems]
        told = []
        if troubled and troubled[0].report is not None:
            first = f"{troubled[0].pod.id.name}: {troubled[0].report.problems[0]}"
            told = [f"Of a problem tell {_pods(len(troubled))}, {first}."]
        return Condition("Synced", "True", "Synced", message([count, *told]))
    rejecting = next((one for one in behind if one.report is not None and one.report.rejected), None)
    silent = next((one for one in behind if one.failure), None)
    if rejecting is not None:
        reason, shown = "Rejected", rejecting
    elif silent is not None:
        reason, shown = "Unreachable", silent
    else:
        reason, shown = "RollingOut", behind[0]
    return Condition("Synced", "False", reason, message([count, f"{shown.pod.id.name}: {_why(shown)}."]))


def _restart_required(route: Route, facts: Facts) -> Iterable[Condition]:
    if isinstance(route.spec, tuple):
        return
    standings, needed = facts.standings, secrets_needed(route.spec)
    if facts.state_secret is not None and _counts_together(route.spec):
        needed |= {facts.state_secret}
    lacking = [one.pod for one in standings if not needed <= one.pod.secrets]
    if not lacking:
        return
    missed = sorted({name for pod in lacking for name in needed - pod.secrets})
    secrets = f"Secret{'s' if len(missed) > 1 else ''} {', '.join(map(repr, missed))}"
    yield Condition(
        "PodRestartRequired",
        "True",
        "SecretNotMounted",
        message(
            [
                f"{len(lacking)} of {len(standings)} pods were made before this route needed {secrets}, and do not "
                f"mount it: {_named([pod.id.name for pod in lacking], len(lacking))}.",
                "They serve what they can without it.",
                f"To mount it, {_remedy(route, lacking)}.",
            ]
        ),
    )


def _counts_together(spec: LLMRouteSpec) -> bool:
    scopes = [*(limit.scope for limit in spec.limits or ()), *(upstream.breaker.scope for upstream in spec.upstreams)]
    return "Gateway" in scopes


def _without(route: Route, facts: Facts) -> Iterable[Condition]:
    found = facts.without
    if found.count:
        yield Condition(
            "PodsWithoutGateway",
            "True",
            "NotInjected",
            message(
                [
                    f"{_pods(found.count)} of this namespace ask for gateway {route.gateway!r} and have none: "
                    f"{_named(found.named, found.count)}.",
                    "A pod gets its gateway when it is made: these are older than their label or the injector.",
                    f"To give them one, {what_to_do(route.name.namespace, found.owners)}.",
                ]
            ),
        )


def unresolved(route: Route, revision: str, standings: Sequence[Standing]) -> tuple[str, list[str]]:
    """A reason and sentences for ResolvedRefs: what the newest revision names and pods cannot use. Secrets that a pod
    does not mount are PodRestartRequired's."""
    name = route.name.name
    missing: dict[str, list[str]] = defaultdict(list)
    unavailable: dict[str, list[str]] = defaultdict(list)
    current = [one for one in standings if one.report is not None and one.report.revision == revision]
    for one in current:
        assert one.report is not None
        for entry in one.report.missing:
            if entry.route == name and entry.secret in one.pod.secrets:
                what = f"entry {entry.key!r} of Secret {entry.secret!r}" if entry.key else f"Secret {entry.secret!r}"
                missing[f"{entry.field}: {what} {entry.trouble}"].append(one.pod.id.name)
        for upstream in one.report.unavailable:
            if upstream.route == name and not upstream.reason.endswith("_missing"):  # the Secret is told already
                text = f"spec.upstreams[{upstream.upstream}]: cannot be called ({upstream.reason})"
                unavailable[text].append(one.pod.id.name)
    sentences = [
        f"{text} in {len(pods)} of {len(standings)} pods{_which(pods, standings)}."
        for found in (missing, unavailable)
        for text, pods in sorted(found.items())
    ]
    return ("SecretMissing" if missing else "UpstreamUnavailable"), sentences


def _which(pods: Sequence[str], standings: Sequence[Standing]) -> str:
    return "" if len(pods) == len(standings) else f" ({_named(pods[:NAMED_MAX], len(pods))})"


def _remedy(route: Route, pods: Sequence[GatewayPod]) -> str:
    return what_to_do(route.name.namespace, list(dict.fromkeys(pod.owner for pod in pods)))


def _named(names: Sequence[str], count: int) -> str:
    shown = list(names[:NAMED_MAX])
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"

"""How many routes of each namespace say of themselves that something is wrong: their conditions, as numbers. Pure.

What is wrong, and what to do, is in the condition's message and stays there.
"""

from collections.abc import Iterable, Mapping

from llmroute_operator.controller.route import Route
from llmroute_operator.controller.said import Kind

WRONG: Mapping[Kind, str] = {
    "Accepted": "False",
    "ResolvedRefs": "False",
    "Programmed": "False",
    "Synced": "False",
    "PodRestartRequired": "True",
    "PodsWithoutGateway": "True",
}
"""The status by which each condition tells of trouble."""


def routes_in_trouble(routes: Iterable[Route]) -> Mapping[tuple[str, str], int]:
    """By namespace and condition; zeros too, so that what was wrong is seen to be right again."""
    counts: dict[tuple[str, str], int] = {}
    for route in routes:
        namespace = route.name.namespace
        told = {condition["type"]: condition["status"] for condition in route.status.get("conditions") or ()}
        for kind, wrong in WRONG.items():
            counts[namespace, kind] = counts.get((namespace, kind), 0) + (told.get(kind) == wrong)
    return counts

"""Checks of names that must exist: what no rule within one field can see.

`check_route` looks inside one route; `check_fallbacks` across all routes of a gateway. Both return Problems, never
raise. A problem named by `REFUSING` keeps the new generation from being served; the others are told while the route
serves on.
"""

from collections.abc import Iterable, Mapping, Sequence

from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.problem import Problem, Reason
from llmroute_contract.scalars import matches_model

REFUSING: frozenset[Reason] = frozenset(
    {"Invalid", "UnknownUpstream", "UnknownFallback", "FallbackCycle", "ConfigMapTooLarge"}
)


def check_route(spec: LLMRouteSpec) -> tuple[Problem, ...]:
    """Names that stand twice, and upstreams that do not exist."""
    problems: list[Problem] = []
    for field, entries in (
        ("auth.clients", spec.auth.clients),
        ("upstreams", spec.upstreams),
        ("models", spec.models),
        ("limits", spec.limits),
    ):
        problems += _repeated(f"spec.{field}", [entry.name for entry in entries or ()])
    known = {upstream.name for upstream in spec.upstreams}
    for index, model in enumerate(spec.models or ()):
        for place, target in enumerate(model.targets):
            if target.upstream not in known:
                problems.append(
                    _unknown_upstream(f"spec.models[{index}].targets[{place}].upstream", target.upstream, known)
                )
    if spec.default_upstream is not None and spec.default_upstream not in known:
        problems.append(_unknown_upstream("spec.defaultUpstream", spec.default_upstream, known))
    return tuple(problems)


def _repeated(field: str, names: Sequence[str]) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for index, name in enumerate(names):
        if name in first:
            problems.append(
                Problem(
                    f"{field}[{index}].name",
                    "Invalid",
                    f"{name!r} is the name of {field}[{first[name]}] already",
                )
            )
        first.setdefault(name, index)
    return problems


def _unknown_upstream(field: str, name: str, known: Iterable[str]) -> Problem:
    return Problem(
        field, "UnknownUpstream", f"no upstream is named {name!r}; this route has {', '.join(sorted(known))}"
    )


def check_fallbacks(spec: LLMRouteSpec, gateway_models: Mapping[str, Sequence[str]]) -> tuple[Problem, ...]:
    """Fallbacks of `spec` that name no model of the gateway, or lead back to where they started.

    `gateway_models` holds every model pattern of the gateway (this route's own too) with its fallbacks.
    """
    problems: list[Problem] = []
    find = ModelFinder(gateway_models)
    for index, model in enumerate(spec.models or ()):
        for place, fallback in enumerate(model.fallbacks or ()):
            field = f"spec.models[{index}].fallbacks[{place}]"
            if find(fallback) is None:
                problems.append(Problem(field, "UnknownFallback", f"no model of this gateway is named {fallback!r}"))
                continue
            way = _way_back(model.name, fallback, gateway_models, find)
            if way is not None:
                problems.append(
                    Problem(
                        field,
                        "FallbackCycle",
                        f"leads back to where it starts: {' -> '.join([model.name, *way])}",
                    )
                )
    return tuple(problems)


class ModelFinder:
    """Finds the pattern that serves a model: an exact name first, then the longest prefix."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names = set(patterns)
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(sorted((name for name in names if name.endswith("*")), key=lambda p: (-len(p), p)))

    def __call__(self, model: str) -> str | None:
        """The pattern, or None where no entry serves `model`."""
        if model in self._exact:
            return model
        return next((pattern for pattern in self._prefixes if matches_model(pattern, model)), None)


def _way_back(
    start: str, fallback: str, fallbacks_of: Mapping[str, Sequence[str]], find: ModelFinder
) -> list[str] | None:
    """The names on a way from `fallback` to the entry `start`, or None. Iterative: chains may be 1,000 long."""
    pending: list[tuple[str, list[str]]] = [(fallback, [fallback])]
    seen: set[str] = set()
    while pending:
        name, way = pending.pop()
        entry = find(name)
        if entry == start:
            return way
        if entry is None or entry in seen:
            continue
        seen.add(entry)
        pending += [(following, [*way, following]) for following in fallbacks_of.get(entry, ())]
    return None


def check_client_models(spec: LLMRouteSpec, gateway_models: Iterable[str]) -> tuple[Problem, ...]:
    """Models allowed to a client that the gateway does not have: a mistyped name would silently allow nothing."""
    if spec.default_upstream is not None:
        return ()  # any name may reach the default upstream
    patterns = list(gateway_models)
    find = ModelFinder(patterns)
    problems = []
    for index, client in enumerate(spec.auth.clients or ()):
        for place, allowed in enumerate(client.models or ()):
            known = find(allowed) is not None or (
                allowed.endswith("*") and any(matches_model(allowed, pattern.rstrip("*")) for pattern in patterns)
            )
            if not known:
                problems.append(
                    Problem(
                        f"spec.auth.clients[{index}].models[{place}]",
                        "UnknownModel",
                        f"no model of this gateway fits {allowed!r}; it allows nothing",
                    )
                )
    return tuple(problems)

"""Checks of names that must exist: what no rule within one field can see.

`check_route` looks inside one route; the others at one route beside the models of its gateway. All return Problems,
never raise. Which of them keep a route's new generation from being served is for `compile.py` to say.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from llmroute_contract.compiled import CompiledRoute
from llmroute_contract.cycles import Graph, shortest_way
from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.problem import Problem

WAY_SHOWN = 8  # names of a cycle that a message shows
NAMES_SHOWN = 10  # upstreams or models of a route that a message shows


class ModelFinder:
    """Finds the pattern that serves a model: an exact name first, then the longest prefix.

    Several routes may name a pattern: it is there until each of them has taken it away.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._claims = Counter(patterns)
        # One look per length that occurs, not per prefix: a thousand prefixes have a dozen lengths.
        self._prefix_lengths = sorted({len(name) for name in self._claims if name.endswith("*")}, reverse=True)

    def __call__(self, model: str) -> str | None:
        """The pattern, or None where no entry serves `model`."""
        if model in self._claims and not model.endswith("*"):
            return model
        for length in self._prefix_lengths:
            if length <= len(model) + 1 and (pattern := f"{model[: length - 1]}*") in self._claims:
                return pattern
        return None

    def add(self, pattern: str) -> None:
        self._claims[pattern] += 1
        if pattern.endswith("*") and len(pattern) not in self._prefix_lengths:
            insort(self._prefix_lengths, len(pattern), key=lambda length: -length)

    def remove(self, pattern: str) -> bool:
        """Whether nobody names it any more."""
        self._claims[pattern] -= 1
        if self._claims[pattern] > 0:
            return False
        del self._claims[pattern]
        return True


class ServedNames:
    """All patterns of a gateway, to ask whether one that is not an entry's fits any of them."""

    def __init__(self, patterns: Collection[str]) -> None:
        self._find = ModelFinder(patterns)
        self._stems = sorted(name.removesuffix("*") for name in patterns)

    def fit(self, pattern: str) -> bool:
        """Whether `pattern` covers a name that an entry serves."""
        if not pattern.endswith("*"):
            return self._find(pattern) is not None
        stem = pattern[:-1]
        place = bisect_left(self._stems, stem)
        return (place < len(self._stems) and self._stems[place].startswith(stem)) or self._find(stem) is not None


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
    problems += _repeated("spec.prices", [price.model for price in spec.prices or ()], "model")
    known = {upstream.name for upstream in spec.upstreams}
    problems += [
        _unknown_upstream(f"spec.models[{index}].targets[{place}].upstream", target.upstream, known)
        for index, model in enumerate(spec.models or ())
        for place, target in enumerate(model.targets)
        if target.upstream not in known
    ]
    if spec.default_upstream is not None and spec.default_upstream not in known:
        problems.append(_unknown_upstream("spec.defaultUpstream", spec.default_upstream, known))
    return tuple(problems)


def _repeated(field: str, names: Sequence[str], key: str = "name") -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for index, name in enumerate(names):
        if first.setdefault(name, index) != index:
            message = f"{name!r} is the {key} of {field}[{first[name]}] already"
            problems.append(Problem(f"{field}[{index}].{key}", "Invalid", message))
    return problems


def _unknown_upstream(field: str, name: str, known: Collection[str]) -> Problem:
    message = f"no upstream is named {name!r}; this route has {_shown(sorted(known))}"
    return Problem(field, "UnknownUpstream", message)


def _shown(names: Sequence[str]) -> str:
    return ", ".join([*names[:NAMES_SHOWN], *(["..."] if len(names) > NAMES_SHOWN else [])])


def unknown_fallbacks(route: CompiledRoute, find: ModelFinder, refused: Mapping[str, str]) -> list[Problem]:
    """Fallbacks of `route` that no served model fits. `refused` are the models of refused routes, with the route."""
    return [
        Problem(
            f"spec.models[{index}].fallbacks[{place}]", "UnknownFallback", _unknown_fallback(fallback, route, refused)
        )
        for index, model in enumerate(route.models)
        for place, fallback in enumerate(model.fallbacks)
        if find(fallback) is None
    ]


def _unknown_fallback(fallback: str, route: CompiledRoute, refused: Mapping[str, str]) -> str:
    if fallback in refused:
        return f"model {fallback!r} is not served: route {refused[fallback]!r}, which has it, is refused"
    shown = _shown([model.name for model in route.models])
    return f"no model of this gateway is named {fallback!r}; this route has {shown}"


def fallback_graph(fallbacks_of: Mapping[str, Sequence[str]], find: ModelFinder) -> Graph:
    """From each entry to those that serve its fallbacks."""
    return {
        entry: [found for fallback in fallbacks if (found := find(fallback)) is not None]
        for entry, fallbacks in fallbacks_of.items()
    }


def cyclic_fallback(field: str, entry: str, following: str, graph: Graph) -> Problem:
    """Of the step from `entry` to `following`, from which a way leads back."""
    way = [entry, *shortest_way(graph, following, entry)]
    if len(way) > WAY_SHOWN:
        way = [*way[: WAY_SHOWN - 2], "...", *way[-1:]]
    return Problem(field, "FallbackCycle", f"leads back to where it starts: {' -> '.join(way)}")


def unknown_models(spec: LLMRouteSpec, served: ServedNames) -> list[Problem]:
    """Models that a client is allowed, or a log rule chooses, and that the gateway does not have: a mistyped name
    would silently do nothing.
    """
    problems = [
        _unknown_model(f"spec.auth.clients[{index}].models[{place}]", allowed, "it allows nothing")
        for index, client in enumerate(spec.auth.clients or ())
        for place, allowed in enumerate(client.models or ())
        if not served.fit(allowed)
    ]
    problems += [
        _unknown_model(f"spec.logging.sample[{index}].model", rule.model, "the rule matches nothing")
        for index, rule in enumerate(spec.logging.sample if spec.logging else ())
        if rule.model is not None and not served.fit(rule.model)
    ]
    return problems


def _unknown_model(field: str, name: str, so: str) -> Problem:
    return Problem(field, "UnknownModel", f"no model of this gateway fits {name!r}; {so}")

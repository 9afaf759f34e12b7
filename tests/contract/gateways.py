"""Whole gateways for properties: a few routes over a few model names, each with what it was before and what it is now.

Small on purpose: with six names and four routes every example is a tangle of conflicts, prefixes and circles. Forms are
parsed once and kept, so that an example costs its compilation only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from random import Random
from typing import Any, NamedTuple

from hypothesis import strategies as st

from llmroute_contract import compiled as c
from llmroute_contract.compile import Compilation, RouteSource, compile_gateway
from llmroute_contract.problem import Problem
from tests.contract.routes import model, source

NAMES = ("a", "ab", "b", "c", "a*", "*")
EXACT = NAMES[:4]


class Form(NamedTuple):
    """What a route says: models with their fallbacks, whether it has the default upstream; or no valid spec at all."""

    models: tuple[tuple[str, tuple[str, ...]], ...]
    default: bool
    valid: bool


@dataclass(frozen=True)
class Route:
    name: str
    age: int
    before: Form | None
    """None: the route is new."""
    now: Form


@cache
def _source(name: str, form: Form, age: int, generation: int) -> RouteSource:
    if not form.valid:
        problem = Problem("spec.upstreams[0].url", "Invalid", "must begin with http://")
        return RouteSource(name, (problem,), generation, source(name, age=age, defaultUpstream="main").created)
    changes: dict[str, Any] = {"defaultUpstream": "main"} if form.default or not form.models else {}
    return source(name, [model(name, *fallbacks) for name, fallbacks in form.models], age=age, **changes)


def accepted_forms(compilation: Compilation) -> Mapping[str, c.CompiledRoute]:
    """What the controller reads back from the ConfigMap."""
    index = c.decode(compilation.files[c.GATEWAY_FILE], c.CompiledGateway)
    return {entry.name: c.decode(compilation.files[entry.file], c.CompiledRoute) for entry in index.routes}


def sources_before(gateway: Sequence[Route]) -> list[RouteSource]:
    return [_source(route.name, route.before, route.age, 1) for route in gateway if route.before is not None]


def sources_now(gateway: Sequence[Route], last: Mapping[str, c.CompiledRoute]) -> list[RouteSource]:
    made = []
    for route in gateway:
        generation = 1 if route.now == route.before else 2
        now = _source(route.name, route.now, route.age, generation)
        made.append(RouteSource(now.name, now.spec, generation, now.created, last.get(route.name)))
    return made


def compiled(sources: Sequence[RouteSource]) -> Compilation:
    return compile_gateway("shop", "default", sources)


_ENTRIES = [(name, fallbacks) for length in range(3) for fallbacks in permutations(EXACT, length) for name in NAMES]
_MODELS = [
    (),
    *((entry,) for entry in _ENTRIES),
    *((one, other) for one, other in combinations(_ENTRIES, 2) if one[0] != other[0]),
]
# Numbers and not nested strategies: drawing costs less than compiling, and a smaller number is a smaller form.
_KINDS = ((False, True), (False, True), (False, True), (True, True), (False, False))  # (default, valid)


def _form(number: int, kind: int) -> Form:
    default, valid = _KINDS[kind]
    return Form(_MODELS[number], default, valid)


# Numbers and not nested strategies: they are cheap to draw, and a smaller number is a smaller form.
_FORMS = st.builds(
    _form,
    st.one_of(st.integers(0, len(_ENTRIES)), st.integers(0, len(_MODELS) - 1)),
    st.integers(0, len(_KINDS) - 1),
)
_STATES = st.one_of(
    st.tuples(st.none(), _FORMS),
    st.tuples(_FORMS, _FORMS),
    _FORMS.map(lambda form: (form, form)),
)


@st.composite
def gateways(draw: st.DrawFn) -> tuple[Route, ...]:
    states = draw(st.lists(st.tuples(_STATES, st.integers(0, 2)), min_size=1, max_size=4))
    return tuple(Route(f"r{index}", age, before, now) for index, ((before, now), age) in enumerate(states))


def any_gateway(random: Random) -> tuple[Route, ...]:
    """As `gateways`, but twenty times as fast, and not to be made smaller."""

    def form() -> Form:
        return _form(random.randrange(len(_MODELS)), random.randrange(len(_KINDS)))

    routes = []
    for index in range(random.randint(1, 5)):
        now = form()
        before = random.choice((None, now, form()))
        routes.append(Route(f"r{index}", random.randrange(3), before, now))
    return tuple(routes)

"""What holds of every gateway, however its routes are tangled: each rule of `compile.py`, as a property.

Hypothesis searches for small gateways that break a rule; beside it thousands of random ones go through all of them.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_contract import compiled as c
from llmroute_contract.compile import Compilation, RouteSource, Verdict
from llmroute_contract.cycles import knots
from llmroute_contract.references import ModelFinder, fallback_graph
from tests.contract.gateways import (
    Form,
    Route,
    accepted_forms,
    any_gateway,
    compiled,
    gateways,
    sources_before,
    sources_now,
)

WORKS_ALL_THE_SAME = {"UnknownModel", "ModelConflict", "DefaultUpstreamConflict"}
RANDOM_GATEWAYS = 40
BROKEN = (
    Form((("c", ("b",)),), default=False, valid=True),
    Form((), default=True, valid=False),
)
"""Forms of a route that are refused: the first where nothing serves `b`."""


class History:
    """A gateway: what was accepted of its routes before, and what comes of them now."""

    def __init__(self, gateway: tuple[Route, ...]) -> None:
        self.gateway = gateway
        self.last = accepted_forms(compiled(sources_before(gateway)))
        self.sources = sources_now(gateway, self.last)
        self.now = compiled(self.sources)

    def __repr__(self) -> str:
        return repr(self.gateway)

    @cached_property
    def served(self) -> Mapping[str, c.CompiledRoute]:
        return accepted_forms(self.now)

    @cached_property
    def owners(self) -> Mapping[str, tuple[str, c.CompiledModel]]:
        """Each served model and whose it is."""
        return {model.name: (route.name, model) for route in self.served.values() for model in route.models}

    @property
    def refused(self) -> set[str]:
        return {name for name, verdict in self.now.verdicts.items() if is_refused(verdict)}

    def older_routes_take_from(self, name: str, route: c.CompiledRoute) -> bool:
        """Whether a model or the default upstream of `route` is served by another one."""
        others = {model for model, (owner, _) in self.owners.items() if owner != name}
        defaults = {one.name for one in self.served.values() if one.default_upstream is not None} - {name}
        return any(model.name in others for model in route.models) or bool(route.default_upstream and defaults)

    def again(self) -> Compilation:
        """Compiled with what has just been written as what was last accepted."""
        return compiled(
            [RouteSource(s.name, s.spec, s.generation, s.created, self.served.get(s.name)) for s in self.sources]
        )


def is_refused(verdict: Verdict) -> bool:
    """Whether the new generation is kept out as a whole."""
    return any(problem.reason not in WORKS_ALL_THE_SAME for problem in verdict.problems)


def the_order_of_the_routes_does_not_matter(history: History) -> None:
    for sources in (history.sources[::-1], history.sources[1:] + history.sources[:1], history.sources):
        other = compiled(sources)
        assert other.files == history.now.files
        assert other.verdicts == history.now.verdicts


def fallbacks_of_an_accepted_route_name_served_models(history: History) -> None:
    find = ModelFinder(history.owners)
    for owner, model in history.owners.values():
        assert owner in history.refused or all(find(fallback) is not None for fallback in model.fallbacks)


def no_circle_of_fallbacks_goes_through_an_accepted_route(history: History) -> None:
    fallbacks = {name: model.fallbacks for name, (_, model) in history.owners.items()}
    graph = fallback_graph(fallbacks, ModelFinder(history.owners))
    assert {history.owners[name][0] for knot in knots(graph) for name in knot} <= history.refused


def each_model_and_the_default_upstream_belong_to_one_route(history: History) -> None:
    names = [model.name for route in history.served.values() for model in route.models]
    assert len(names) == len(set(names))
    assert len([route for route in history.served.values() if route.default_upstream is not None]) <= 1


def of_a_refused_generation_the_last_accepted_form_is_served_byte_for_byte(history: History) -> None:
    generation = {source.name: source.generation for source in history.sources}
    for name in history.refused:
        verdict = history.now.verdicts[name]
        served = history.now.files.get(c.route_file(name))
        last = history.last.get(name)
        if verdict.serving == generation[name] and (last is None or last.generation != verdict.serving):
            continue  # accepted at first, then overtaken by a route that could follow it: see compile.py
        if last is None:
            assert (served, verdict.serving) == (None, None)
        elif not history.older_routes_take_from(name, last):
            assert served == c.encode(last)
            assert verdict.serving == last.generation


def what_was_accepted_is_never_dropped(history: History) -> None:
    assert history.served.keys() >= history.last.keys() & history.now.verdicts.keys()


def compiled_once_more_it_stays_as_it_is(history: History) -> None:
    again = history.again()
    assert again.files == history.now.files
    assert again.verdicts == history.now.verdicts


def beside_one_broken_edit_accepted_routes_stay_accepted(history: History) -> None:
    kept = [Route(route.name, route.age, route.before, route.before) for route in history.gateway if route.before]
    if not all(verdict.accepted for verdict in compiled(sources_now(kept, history.last)).verdicts.values()):
        return
    for place, route in enumerate(kept):
        for broken in BROKEN:
            edited = Route(route.name, route.age, route.before, broken)
            verdicts = compiled(sources_now([*kept[:place], edited, *kept[place + 1 :]], history.last)).verdicts
            if "FallbackCycle" in {problem.reason for problem in verdicts[route.name].problems}:
                continue
            if is_refused(verdicts[route.name]):  # a prefix may serve the name that should be unknown
                assert [name for name, verdict in verdicts.items() if not verdict.accepted] == [route.name]


def files_decode_to_the_values_that_they_were_made_of(history: History) -> None:
    files = history.now.files
    index = c.decode(files[c.GATEWAY_FILE], c.CompiledGateway)
    assert files.keys() == {c.GATEWAY_FILE, *(entry.file for entry in index.routes)}
    assert index.revision == history.now.revision == c.revision_of(index.routes)
    for entry in index.routes:
        route = c.decode(files[entry.file], c.CompiledRoute)
        assert c.encode(route) == files[entry.file]
        assert (c.digest(files[entry.file]), route.generation) == (entry.digest, entry.generation)


def the_files_fit_into_the_configmap(history: History) -> None:
    assert sum(map(len, history.now.files.values())) <= c.CONFIGMAP_MAX_BYTES


RULES: tuple[Callable[[History], None], ...] = (
    the_order_of_the_routes_does_not_matter,
    fallbacks_of_an_accepted_route_name_served_models,
    no_circle_of_fallbacks_goes_through_an_accepted_route,
    each_model_and_the_default_upstream_belong_to_one_route,
    of_a_refused_generation_the_last_accepted_form_is_served_byte_for_byte,
    what_was_accepted_is_never_dropped,
    compiled_once_more_it_stays_as_it_is,
    beside_one_broken_edit_accepted_routes_stay_accepted,
    files_decode_to_the_values_that_they_were_made_of,
    the_files_fit_into_the_configmap,
)


@pytest.fixture(params=["roomy", "small"])
def configmap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ConfigMap with room for all, or for two or three of the small routes."""
    if request.param == "small":
        monkeypatch.setattr(c, "CONFIGMAP_MAX_BYTES", 3000)


@pytest.mark.usefixtures("configmap")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_of_every_gateway(rule: Callable[[History], None]) -> None:
    @settings(max_examples=100, deadline=None)
    @given(gateway=gateways())
    def holds(gateway: tuple[Route, ...]) -> None:
        rule(History(gateway))

    holds()


@pytest.mark.usefixtures("configmap")
def test_all_rules_hold_of_thousands_of_gateways() -> None:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**64))
    def hold(seed: int) -> None:
        random = Random(seed)
        for _ in range(RANDOM_GATEWAYS):
            history = History(any_gateway(random))
            for rule in RULES:
                rule(history)

    hold()


def test_a_route_is_not_refused_for_a_model_that_a_broken_edit_seemed_to_take_away() -> None:
    good = Form((("c", ("a",)),), default=False, valid=True)
    edited = Route("edited", 0, Form((("a", ()),), False, True), Form((("b", ("nowhere",)),), False, True))
    history = History((edited, Route("beside", 1, good, good)))
    assert history.refused == {"edited"}
    assert history.now.verdicts["beside"].accepted

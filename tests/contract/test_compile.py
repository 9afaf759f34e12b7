"""The compiler by rule: a few routes, what is served of them, and what is told. See `compile.py` for the rules."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from llmroute_contract import compiled as c
from llmroute_contract.compile import Compilation, RouteSource, Verdict, compile_gateway
from llmroute_contract.llmroute import parse_spec
from llmroute_contract.problem import TOLD_MAX, Problem
from llmroute_contract.references import ModelFinder, ServedNames
from tests.contract.gateways import accepted_forms
from tests.contract.routes import BEGINNING, Document, model, source, spec_document

INVALID = (Problem("spec.upstreams[0].url", "Invalid", "must begin with http://"),)


def compiled(*sources: RouteSource) -> Compilation:
    return compile_gateway("shop", "default", sources)


def verdict(name: str, *sources: RouteSource) -> Verdict:
    return compiled(*sources).verdicts[name]


def told(name: str, *sources: RouteSource) -> list[str]:
    return [str(problem) for problem in verdict(name, *sources).problems]


def served_models(*sources: RouteSource) -> dict[str, list[str]]:
    return {name: [entry.name for entry in route.models] for name, route in accepted_forms(compiled(*sources)).items()}


def accepted(name: str, models: Sequence[Document], **changes: Any) -> c.CompiledRoute:
    """The form of a route that stood alone, as its generation 1."""
    return accepted_forms(compiled(source(name, models, **changes)))[name]


# --- alone


def test_a_good_route_is_served() -> None:
    found = compiled(source("chat", [model("gpt-4o")], generation=7))
    assert found.verdicts["chat"] == Verdict(accepted=True, problems=(), serving=7)
    assert found.files.keys() == {"gateway.json", "route.chat.json"}


def test_no_routes_make_an_empty_gateway() -> None:
    index = c.decode(compiled().files["gateway.json"], c.CompiledGateway)
    assert (index.namespace, index.gateway, index.routes) == ("shop", "default", ())


def test_defaults_are_written_out() -> None:
    route = accepted("chat", [model("a")], limits=[{"name": "l", "per": "Model", "requests": 5}])
    (upstream,), (entry,), (limit,) = route.upstreams, route.models, route.limits
    assert (upstream.connect_timeout, upstream.first_token_timeout, upstream.request_timeout) == (5, 60, 600)
    assert (upstream.breaker_max_failures, upstream.breaker_reset, upstream.pool_max_connections) == (5, 30, 100)
    assert (entry.retry_attempts, entry.retry_backoff, entry.targets[0].weight) == (1, 0.2, 1)
    assert (limit.window, limit.scope) == (60, "Pod")


def test_a_concurrency_limit_has_no_window() -> None:
    route = accepted("chat", [model("a")], limits=[{"name": "slots", "per": "Gateway", "concurrency": 3}])
    assert route.limits[0].window is None


def test_names_that_stand_twice_and_unknown_upstreams_are_told_all_at_once() -> None:
    bad = source(
        "chat",
        [{"name": "a", "targets": [{"upstream": "main"}, {"upstream": "mian"}]}, model("a")],
        defaultUpstream="other",
    )
    assert told("chat", bad) == [
        "spec.models[1].name: 'a' is the name of spec.models[0] already",
        "spec.models[0].targets[1].upstream: no upstream is named 'mian'; this route has main",
        "spec.defaultUpstream: no upstream is named 'other'; this route has main",
    ]
    assert verdict("chat", bad).serving is None


def test_of_many_upstreams_a_message_names_a_few() -> None:
    upstreams = [{"name": f"u{number:02}", "url": "mock://local"} for number in range(64)]
    bad = source("chat", [{"name": "a", "targets": [{"upstream": "x"}]}], upstreams=upstreams)
    assert told("chat", bad)[0].endswith("u08, u09, ...")


def test_of_very_many_problems_the_first_are_told() -> None:
    bad = source("chat", [{**model(f"m{number}"), "targets": [{"upstream": "x"}] * 16} for number in range(1000)])
    assert len(verdict("chat", bad).problems) == TOLD_MAX


# --- fallbacks


def test_a_fallback_may_be_served_by_another_route_a_prefix_or_an_exact_name() -> None:
    routes = [source("a", [model("one", "two", "llama-3")], age=2), source("b", [model("two"), model("llama*")], age=1)]
    assert all(found.accepted for found in compiled(*routes).verdicts.values())


def test_an_unknown_fallback_refuses_its_route_alone() -> None:
    routes = [source("bad", [model("a", "tow")], age=2), source("good", [model("two")], age=1)]
    assert told("bad", *routes) == [
        "spec.models[0].fallbacks[0]: no model of this gateway is named 'tow'; this route has a"
    ]
    assert served_models(*routes) == {"good": ["two"]}


def test_the_default_upstream_is_no_model_to_fall_back_on() -> None:
    assert not verdict("a", source("a", [model("one", "two")], defaultUpstream="main")).accepted


def test_a_fallback_on_a_refused_routes_model_names_that_route() -> None:
    routes = [
        source("bad", [model("b", "nowhere")], age=2),
        source("good", [model("a", "b")], age=1),
    ]
    assert told("good", *routes) == [
        "spec.models[0].fallbacks[0]: model 'b' is not served: route 'bad', which has it, is refused"
    ]


CIRCLES: dict[str, tuple[list[list[Document]], str, str]] = {
    "itself": ([[model("a", "a")]], "spec.models[0].fallbacks[0]", "a -> a"),
    "its own prefix": ([[model("a*", "a-1")]], "spec.models[0].fallbacks[0]", "a* -> a*"),
    "two of one route": ([[model("a", "b"), model("b", "a")]], "spec.models[0].fallbacks[0]", "a -> b -> a"),
    "two routes": ([[model("a", "b")], [model("b", "a")]], "spec.models[0].fallbacks[0]", "b -> a -> b"),
    "three routes": (
        [[model("a", "b")], [model("b", "c")], [model("x"), model("c", "x", "a")]],
        "spec.models[1].fallbacks[1]",
        "c -> a -> b -> c",
    ),
    "over a prefix of another route": (
        [[model("gpt*", "llama")], [model("llama", "gpt-4o")]],
        "spec.models[0].fallbacks[0]",
        "llama -> gpt* -> llama",
    ),
}


@pytest.mark.parametrize(("routes", "field", "way"), CIRCLES.values(), ids=CIRCLES)
def test_a_circle_of_fallbacks_is_told_to_the_youngest_route(
    routes: list[list[Document]], field: str, way: str
) -> None:
    sources = [source(f"r{index}", models, age=-index) for index, models in enumerate(routes)]
    youngest = sources[-1].name
    assert told(youngest, *sources)[0] == f"{field}: leads back to where it starts: {way}"


def test_a_long_circle_is_shown_shortened() -> None:
    ring = source("ring", [model(f"m{n}", f"m{(n + 1) % 1000}") for n in range(1000)])
    assert told("ring", ring)[0].endswith("m0 -> m1 -> m2 -> m3 -> m4 -> m5 -> ... -> m0")


def test_a_diamond_is_no_circle() -> None:
    diamond = source("d", [model("a", "b", "c"), model("b", "d"), model("c", "d"), model("d")])
    assert verdict("d", diamond).accepted


def test_the_route_that_closed_the_circle_is_refused_not_one_whose_fallback_was_there_before() -> None:
    """The young route fell back on the old one's model first; then the old one was edited."""
    routes = [
        source("old", [model("a", "b")], age=9, generation=2, last=accepted("old", [model("a")])),
        source("young", [model("b", "a")], age=1, last=_young_beside_old()),
    ]
    assert told("old", *routes) == ["spec.models[0].fallbacks[0]: leads back to where it starts: a -> b -> a"]
    assert verdict("old", *routes).serving == 1
    assert verdict("young", *routes).accepted


def _young_beside_old() -> c.CompiledRoute:
    both = compiled(source("old", [model("a")], age=9), source("young", [model("b", "a")], age=1))
    return accepted_forms(both)["young"]


# --- last accepted forms


def test_a_refused_generation_leaves_the_last_accepted_one_served_byte_for_byte() -> None:
    last = accepted("chat", [model("a"), model("b")])
    found = compiled(source("chat", [model("a", "nowhere")], generation=2, last=last))
    assert found.files["route.chat.json"] == c.encode(last)
    assert found.verdicts["chat"].serving == 1
    assert not found.verdicts["chat"].accepted


def test_a_spec_that_cannot_be_read_leaves_the_last_accepted_one_served() -> None:
    last = accepted("chat", [model("a")])
    found = compiled(RouteSource("chat", INVALID, 2, BEGINNING, last))
    assert found.files["route.chat.json"] == c.encode(last)
    assert found.verdicts["chat"] == Verdict(accepted=False, problems=INVALID, serving=1)


def test_a_fallback_on_a_model_that_only_a_last_accepted_form_has_is_known() -> None:
    broken = RouteSource("old", INVALID, 2, BEGINNING, accepted("old", [model("a")]))
    assert verdict("young", broken, source("young", [model("b", "a")])).accepted


def test_a_model_that_was_taken_out_is_missed_by_who_falls_back_on_it_but_served_on() -> None:
    before = compiled(source("a", [model("one"), model("two")], age=2), source("b", [model("x", "two")], age=1))
    last = accepted_forms(before)
    routes = [
        source("a", [model("one")], age=2, generation=2, last=last["a"]),
        source("b", [model("x", "two")], age=1, last=last["b"]),
    ]
    assert verdict("a", *routes).accepted
    assert told("b", *routes) == [
        "spec.models[0].fallbacks[0]: no model of this gateway is named 'two'; this route has x"
    ]
    assert served_models(*routes) == {"a": ["one"], "b": ["x"]}


# --- conflicts


def test_of_two_routes_with_one_model_the_older_keeps_it() -> None:
    routes = [source("young", [model("a"), model("b")], age=1), source("old", [model("a")], age=2)]
    assert served_models(*routes) == {"old": ["a"], "young": ["b"]}
    assert told("young", *routes) == [
        "spec.models[0].name: model 'a' belongs to the older route 'old'; the other models of this route are served"
    ]
    assert (verdict("young", *routes).accepted, verdict("young", *routes).serving) == (False, 1)
    assert verdict("old", *routes).accepted


def test_of_two_routes_of_one_age_the_first_by_name_is_the_older() -> None:
    assert served_models(source("b", [model("m")]), source("a", [model("m")])) == {"a": ["m"], "b": []}


def test_a_route_without_an_age_is_younger_than_all() -> None:
    unborn = RouteSource("a", parse_spec(spec_document([model("m")])))
    assert served_models(unborn, source("b", [model("m")])) == {"b": ["m"], "a": []}


def test_a_pattern_and_a_name_that_it_covers_are_no_conflict() -> None:
    routes = [source("a", [model("gpt*")], age=2), source("b", [model("gpt-4o")], age=1)]
    assert all(found.accepted for found in compiled(*routes).verdicts.values())


def test_a_gateway_has_one_default_upstream() -> None:
    routes = [
        source("old", [model("a")], age=2, defaultUpstream="main"),
        source("young", [model("b")], age=1, defaultUpstream="main"),
    ]
    (text,) = told("young", *routes)
    assert text.startswith("spec.defaultUpstream: the default upstream is set by the older route 'old'; the models of")
    forms = accepted_forms(compiled(*routes))
    assert (forms["old"].default_upstream, forms["young"].default_upstream) == ("main", None)


def test_a_model_goes_over_to_the_next_route_when_its_owner_is_gone() -> None:
    young = source("young", [model("a")], age=1)
    assert served_models(young) == {"young": ["a"]}


# --- size


@pytest.fixture
def small_configmap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two of the routes below, not for three."""
    monkeypatch.setattr(c, "CONFIGMAP_MAX_BYTES", 2000)


@pytest.mark.usefixtures("small_configmap")
def test_what_does_not_fit_is_refused_and_says_by_how_much() -> None:
    routes = [source(name, [model(name)], age=-age) for age, name in enumerate(["a", "b", "c"])]
    assert served_models(*routes) == {"a": ["a"], "b": ["b"]}
    (text,) = told("c", *routes)
    assert text.startswith("spec: compiles to ")
    assert "more than the ConfigMap of gateway 'default' has room for; split the route over several gateways" in text


@pytest.mark.usefixtures("small_configmap")
def test_what_was_accepted_keeps_its_place_before_an_older_newcomer() -> None:
    last = {name: accepted(name, [model(name)]) for name in "bc"}
    routes = [
        source("a", [model("a")], age=9),
        *(source(name, [model(name)], age=1, last=last[name]) for name in "bc"),
    ]
    assert served_models(*routes).keys() == {"b", "c"}


@pytest.mark.usefixtures("small_configmap")
def test_a_route_that_grows_too_large_is_served_as_it_was() -> None:
    last = accepted("a", [model("a")])
    grown = source("a", [model(f"m{n}") for n in range(100)], generation=2, last=last)
    found = compiled(grown)
    assert [problem.reason for problem in found.verdicts["a"].problems] == ["ConfigMapTooLarge"]
    assert found.files["route.a.json"] == c.encode(last)


def test_a_thousand_small_routes_fit_into_one_gateway() -> None:
    routes = [source(f"r{n}", [model(f"m{n}")], age=n) for n in range(1000)]
    found = compiled(*routes)
    assert all(one.accepted for one in found.verdicts.values())
    assert sum(map(len, found.files.values())) < c.CONFIGMAP_MAX_BYTES


def test_last_accepted_forms_of_a_version_with_more_room_are_dropped_youngest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routes = [source(n, [model(n)], age=-i, last=accepted(n, [model(n)])) for i, n in enumerate("abc")]
    monkeypatch.setattr(c, "CONFIGMAP_MAX_BYTES", 2000)
    assert served_models(*routes).keys() == {"a", "b"}
    assert [problem.reason for problem in verdict("c", *routes).problems] == ["ConfigMapTooLarge"]


# --- told beside


def test_a_model_that_a_client_may_use_and_nobody_serves_is_told_but_not_refused() -> None:
    auth = {
        "keysFrom": {"secretRef": {"name": "keys"}},
        "clients": [{"name": "web", "models": ["gpt-4o", "llama*", "gtp-4o", "*"]}],
    }
    sample = [{"model": "claude*", "rate": 0.5}, {"model": "gpt*", "rate": 0.5}]
    route = source("chat", [model("gpt-4o"), model("llama-3")], auth=auth, logging={"sample": sample})
    found = verdict("chat", route)
    assert [str(problem) for problem in found.problems] == [
        "spec.auth.clients[0].models[2]: no model of this gateway fits 'gtp-4o'; it allows nothing",
        "spec.logging.sample[0].model: no model of this gateway fits 'claude*'; the rule matches nothing",
    ]
    assert found.accepted


def test_with_a_default_upstream_no_model_is_unknown() -> None:
    auth = {"keysFrom": {"secretRef": {"name": "keys"}}, "clients": [{"name": "web", "models": ["anything"]}]}
    assert told("chat", source("chat", [model("a")], auth=auth, defaultUpstream="main")) == []


def test_fields_that_this_version_does_not_act_on_are_told() -> None:
    route = source(
        "chat",
        [model("a")],
        upstreams=[{"name": "main", "url": "https://a.example"}, {"name": "l", "url": "litellm://openai/gpt-4o"}],
        limits=[
            {"name": "requests", "per": "Client", "requests": 1, "scope": "Gateway"},
            {"name": "tokens", "per": "Client", "tokens": 1},
        ],
    )
    fields = [text.split(" ")[0] for text in verdict("chat", route).inactive]
    assert len(fields) == len(set(fields))
    assert all(field.startswith("spec.") for field in fields)


def test_a_sampling_rule_for_what_is_always_logged_is_told() -> None:
    sample = [{"status": "5xx", "rate": 0.1}, {"status": "4xx", "rate": 0.1}, {"status": "503", "rate": 1}]
    assert verdict("chat", source("chat", [model("a")], logging={"sample": sample})).inactive == (
        "spec.logging.sample[0] has no effect: requests that end with a 5xx are always logged",
        "spec.logging.sample[2] has no effect: requests that end with a 5xx are always logged",
    )


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("https://a.example/v1/chat/completions", "/chat/completions"),
        ("http://a.example/v1/messages/", "/messages"),
        ("https://a.example/v1", None),
        ("mock://local", None),
    ],
)
def test_a_url_that_was_copied_from_an_example_call_is_told(url: str, end: str | None) -> None:
    (told,) = verdict("chat", source("chat", [model("a")], upstreams=[{"name": "main", "url": url}])).inactive or ("",)
    assert told.startswith(f"spec.upstreams[0].url ends with {end}, " if end else "")
    assert bool(told) is (end is not None)


def test_a_refused_route_has_no_inactive_fields_for_they_would_not_be_those_that_are_served() -> None:
    limits = [{"name": "tokens", "per": "Client", "tokens": 1}]
    assert verdict("chat", source("chat", [model("a", "nowhere")], limits=limits)).inactive == ()


# --- finding


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4*"),
        ("gpt-3", "gpt*"),
        ("gpt", "gpt*"),
        ("llama", None),
        ("", None),
    ],
)
def test_an_exact_name_serves_first_then_the_longest_prefix(name: str, pattern: str | None) -> None:
    assert ModelFinder(["gpt*", "gpt-4o", "gpt-4*"])(name) == pattern


def test_a_pattern_is_there_until_all_who_named_it_have_taken_it_away() -> None:
    find = ModelFinder(["a*"])
    find.add("a*")
    find.add("ab*")
    assert (find.remove("a*"), find("abc"), find("ac")) == (False, "ab*", "a*")
    assert (find.remove("ab*"), find.remove("a*"), find("abc")) == (True, True, None)


@pytest.mark.parametrize("pattern", ["gpt-4o", "gpt*", "llama-3-8b", "lla*", "llama-3-8*", "*"])
def test_a_pattern_fits_where_it_covers_a_name_that_is_served(pattern: str) -> None:
    assert ServedNames(["gpt-4o", "llama-3*"]).fit(pattern)


@pytest.mark.parametrize("pattern", ["gpt-4o-x*", "claude", "claude*", "llama"])
def test_a_pattern_that_covers_nothing_served_fits_nothing(pattern: str) -> None:
    assert not ServedNames(["gpt-4o", "llama-3*"]).fit(pattern)


def test_problems_compare_and_show_as_field_and_message() -> None:
    problem = Problem("spec.models[0].name", "Invalid", "is required")
    assert str(problem) == "spec.models[0].name: is required"
    assert str(msgspec.structs.replace(problem, field="")) == "is required"

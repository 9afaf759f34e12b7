"""The plan: who serves a model, in which order, on any graph of fallbacks."""

from collections.abc import Iterator
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_contract.references import ModelFinder
from llmroute_sidecar.policy import plan as plan_module
from llmroute_sidecar.policy.plan import DEFAULT_NAME, MAX_CANDIDATES, Candidate, ModelEntry, ModelTable, Target


def entry(name: str, *fallbacks: str, targets: tuple[Target, ...] | None = None) -> ModelEntry:
    return ModelEntry(
        name, "route", (Target(f"up-{name}", None, 1),) if targets is None else targets, fallbacks, 2, 0.2
    )


def upstreams(table: ModelTable, model: str) -> list[str]:
    return [candidate.upstream for candidate in table.plan(model)]


# -- finding -----------------------------------------------------------------------------------------------------------

FOUND = [
    ("gpt-4", "gpt-4"),
    ("gpt-4o", "gpt-4*"),
    ("gpt-4o-mini", "gpt-4o-*"),
    ("gpt-4o-", "gpt-4o-*"),
    ("gpt-3.5", "gpt*"),
    ("gpt", "gpt*"),
    ("gpt-4*", "gpt-4*"),
    ("llama", None),
    ("", None),
]


@pytest.mark.parametrize(("model", "name"), FOUND)
def test_an_exact_name_comes_first_then_the_longest_prefix(model: str, name: str | None) -> None:
    table = ModelTable([entry(each) for each in ("gpt*", "gpt-4*", "gpt-4", "gpt-4o-*")], None)
    found = table.find(model)
    assert (found and found.name) == name


def test_the_default_upstream_serves_what_nothing_else_does() -> None:
    table = ModelTable([entry("gpt-4")], ("route", "route/openai"))
    found = table.find("anything")
    assert found is not None
    assert (found.name, found.route) == (DEFAULT_NAME, "route")
    assert table.plan("anything") == (Candidate("anything", found, "route/openai", "anything", is_fallback=False),)
    assert upstreams(table, "gpt-4") == ["up-gpt-4"]
    assert table.models() == ("gpt-4",)


def test_without_a_default_an_unknown_model_has_no_candidates() -> None:
    assert ModelTable([entry("gpt-4")], None).plan("other") == ()


def test_models_are_the_exact_names_sorted() -> None:
    assert ModelTable([entry("b"), entry("a*"), entry("a"), entry("*")], None).models() == ("a", "b")


def test_of_two_entries_with_one_name_the_first_has_it() -> None:
    table = ModelTable([entry("a", targets=(Target("first", None, 1),)), entry("a")], None)
    assert upstreams(table, "a") == ["first"]


# -- planning ----------------------------------------------------------------------------------------------------------


def test_targets_stand_in_order_those_of_weight_0_last() -> None:
    targets = tuple(Target(name, None, weight) for name, weight in [("a", 0), ("b", 1), ("c", 0), ("d", 90)])
    assert upstreams(ModelTable([entry("m", targets=targets)], None), "m") == ["b", "d", "a", "c"]


def test_the_model_goes_up_under_the_targets_name_or_its_own() -> None:
    chat = entry("chat*", "spare", targets=(Target("openai", "gpt-4o", 1), Target("vllm", None, 1)))
    spare = entry("spare")
    assert ModelTable([chat, spare], None).plan("chat-x") == (
        Candidate("chat-x", chat, "openai", "gpt-4o", is_fallback=False),
        Candidate("chat-x", chat, "vllm", "chat-x", is_fallback=False),
        Candidate("spare", spare, "up-spare", "spare", is_fallback=True),
    )


def test_a_fallbacks_own_fallbacks_come_before_the_next_one() -> None:
    table = ModelTable([entry("chat", "a", "b"), entry("a", "c"), entry("b", "d"), entry("c"), entry("d")], None)
    assert upstreams(table, "chat") == ["up-chat", "up-a", "up-c", "up-b", "up-d"]


@pytest.mark.parametrize("default", [None, ("route", "route/openai")])
def test_a_fallback_that_no_entry_names_is_passed_over(default: tuple[str, str] | None) -> None:
    table = ModelTable([entry("chat", "gone", "b"), entry("b")], default)
    assert upstreams(table, "chat") == ["up-chat", "up-b"]


def test_a_cycle_ends_where_it_began() -> None:
    table = ModelTable([entry("a", "b"), entry("b", "c", "b"), entry("c", "a")], None)
    assert upstreams(table, "b") == ["up-b", "up-c", "up-a"]


def test_a_plan_is_made_once() -> None:
    table = ModelTable([entry("a"), entry("b*")], None)
    assert table.plan("a") is table.plan("a")
    assert table.plan("b1") is table.plan("b1")


def test_made_up_names_do_not_fill_memory_nor_push_out_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MADE_UP_PLANS", 10)
    table = ModelTable([entry("a"), entry("b*")], None)
    kept = table.plan("a")
    for number in range(1000):
        assert table.plan(f"b{number}")[0].upstream_model == f"b{number}"
        assert table.plan(f"unknown{number}") == ()
        assert len(table._plans) <= 11
    assert table.plan("a") is kept


# -- any graph ---------------------------------------------------------------------------------------------------------

NAMES = st.text("ab", min_size=1, max_size=4)
PATTERNS = st.one_of(NAMES, st.text("ab", max_size=3).map(lambda prefix: prefix + "*"))
TARGETS = st.lists(
    st.builds(Target, st.sampled_from(["up1", "up2", "up3"]), st.none() | NAMES, st.integers(0, 2)), max_size=4
)
ENTRIES = st.lists(
    st.builds(
        ModelEntry,
        PATTERNS,
        st.just("route"),
        TARGETS.map(tuple),
        st.lists(NAMES, max_size=4).map(tuple),
        st.just(1),
        st.just(0.0),
    ),
    max_size=12,
    unique_by=lambda each: each.name,
)


def walk(entries: dict[str, ModelEntry], model: str, seen: set[str]) -> Iterator[tuple[str, Target]]:
    """The rule as one would say it, without its bound: a model's targets, then each fallback the same."""
    name = ModelFinder(entries)(model)
    if name is None or model in seen:
        return
    seen.add(model)
    for last in (False, True):
        yield from ((model, target) for target in entries[name].targets if (target.weight == 0) == last)
    for fallback in entries[name].fallbacks:
        yield from walk(entries, fallback, seen)


@given(ENTRIES, st.lists(NAMES, min_size=1, max_size=5))
@settings(max_examples=500, deadline=None)
def test_any_graph_is_walked_as_the_rule_says(entries: list[ModelEntry], models: list[str]) -> None:
    table, by_name = ModelTable(entries, None), {each.name: each for each in entries}
    for model in models:
        found = table.find(model)
        assert (found and found.name) == ModelFinder(by_name)(model)
        expected = list(walk(by_name, model, set()))[:MAX_CANDIDATES]
        plan = table.plan(model)
        assert [(each.model, each.upstream, each.upstream_model) for each in plan] == [
            (name, target.upstream, target.model or name) for name, target in expected
        ]
        assert all(each.is_fallback == (each.model != model) for each in plan)
        assert all(each.entry is table.find(each.model) for each in plan)
        assert table.plan(model) is plan or plan == ()
        runs = [name for name, _ in groupby(each.model for each in plan)]
        assert len(runs) == len(set(runs)), "each model stands in a plan once"


@given(st.integers(1, 400), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_graph_in_which_all_fall_back_to_many_is_bounded(size: int, width: int) -> None:
    table = ModelTable([entry(f"m{i}", *(f"m{(i * 7 + j) % size}" for j in range(width))) for i in range(size)], None)
    assert len(table.plan("m0")) <= min(size, MAX_CANDIDATES)

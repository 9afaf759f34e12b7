"""The plan: who serves a model, in which order, on any graph of fallbacks; and who is chosen for each call."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_contract.references import ModelFinder
from llmroute_sidecar.policy import plan as plan_module
from llmroute_sidecar.policy.plan import (
    DEFAULT_NAME,
    MAX_CANDIDATES,
    NOWHERE,
    Candidate,
    ModelEntry,
    ModelTable,
    Target,
    in_turn,
)
from llmroute_sidecar.policy.turns import Turns


def entry(name: str, *fallbacks: str, targets: tuple[Target, ...] | None = None) -> ModelEntry:
    return ModelEntry(
        name, "route", (Target(f"up-{name}", None, 1),) if targets is None else targets, fallbacks, 2, 0.2
    )


def upstreams(table: ModelTable, model: str) -> list[str]:
    return [candidate.upstream for candidate in table.plan(model).candidates]


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
    assert table.plan("anything").candidates == (
        Candidate("anything", found, "route/openai", "anything", is_fallback=False),
    )
    assert upstreams(table, "gpt-4") == ["up-gpt-4"]
    assert table.models() == ("gpt-4",)


def test_without_a_default_an_unknown_model_has_no_candidates() -> None:
    assert ModelTable([entry("gpt-4")], None).plan("other") is NOWHERE


def test_models_are_the_exact_names_sorted() -> None:
    assert ModelTable([entry("b"), entry("a*"), entry("a"), entry("*")], None).models() == ("a", "b")


def test_of_two_entries_with_one_name_the_first_has_it() -> None:
    table = ModelTable([entry("a", targets=(Target("first", None, 1),)), entry("a")], None)
    assert upstreams(table, "a") == ["first"]


# -- planning ----------------------------------------------------------------------------------------------------------


def test_targets_stand_by_weight_then_in_order() -> None:
    targets = tuple(Target(name, None, weight) for name, weight in [("a", 0), ("b", 1), ("c", 0), ("d", 90), ("e", 1)])
    assert upstreams(ModelTable([entry("m", targets=targets)], None), "m") == ["d", "b", "e", "a", "c"]


def test_the_model_goes_up_under_the_targets_name_or_its_own() -> None:
    chat = entry("chat*", "spare", targets=(Target("openai", "gpt-4o", 1), Target("vllm", None, 1)))
    spare = entry("spare")
    assert ModelTable([chat, spare], None).plan("chat-x").candidates == (
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
        assert table.plan(f"b{number}").candidates[0].upstream_model == f"b{number}"
        assert table.plan(f"unknown{number}") is NOWHERE
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
    for weight in (2, 1, 0):
        yield from ((model, target) for target in entries[name].targets if target.weight == weight)
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
        candidates = plan.candidates
        assert [(each.model, each.upstream, each.upstream_model) for each in candidates] == [
            (name, target.upstream, target.model or name) for name, target in expected
        ]
        assert all(each.is_fallback == (each.model != model) for each in candidates)
        assert all(each.entry is table.find(each.model) for each in candidates)
        assert table.plan(model) is plan
        runs = [name for name, _ in groupby(each.model for each in candidates)]
        assert len(runs) == len(set(runs)), "each model stands in a plan once"
        chosen = list(in_turn(plan, table.turns({}), lambda _: None, lambda _: True)) if plan.parts else candidates
        assert [each.model for each in chosen] == [each.model for each in candidates], "models keep order and number"
        if len(expected) < MAX_CANDIDATES:
            assert Counter(chosen) == Counter(candidates), "choosing changes the order alone"


@given(st.integers(1, 400), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_graph_in_which_all_fall_back_to_many_is_bounded(size: int, width: int) -> None:
    table = ModelTable([entry(f"m{i}", *(f"m{(i * 7 + j) % size}" for j in range(width))) for i in range(size)], None)
    assert len(table.plan("m0").candidates) <= min(size, MAX_CANDIDATES)


# -- choosing ----------------------------------------------------------------------------------------------------------


class Chooser:
    """Calls of one table, one after the other."""

    def __init__(self, *entries: ModelEntry) -> None:
        self.table = ModelTable(entries, None)
        self.turns: dict[str, Turns] = self.table.turns({})

    def order(self, model: str, able: Sequence[str] | None = None, **headers: bytes) -> Iterator[str]:
        may: Callable[[Candidate], bool] = lambda each: able is None or each.upstream in able  # noqa: E731
        plan = self.table.plan(model)
        return (each.upstream for each in in_turn(plan, self.turns, headers.get, may))

    def served(self, model: str, times: int, able: Sequence[str] | None = None, **headers: bytes) -> dict[str, int]:
        """How often each upstream serves: the first one in order that is able."""
        found = Counter(
            next(name for name in self.order(model, able, **headers) if able is None or name in able)
            for _ in range(times)
        )
        return dict(sorted(found.items()))


def weighted(**weights: int) -> tuple[Target, ...]:
    return tuple(Target(name, None, weight) for name, weight in weights.items())


def test_a_model_with_one_weighted_target_has_nothing_to_choose() -> None:
    for targets in (weighted(a=3), weighted(a=3, b=0), weighted(a=0, b=0)):
        table = ModelTable([entry("m", targets=targets)], None)
        assert table.plan("m").parts == ()
        assert table.turns({}) == {}


def test_shares_are_exact_and_weight_0_serves_only_when_the_others_cannot() -> None:
    chooser = Chooser(entry("m", targets=weighted(spare=0, a=7, b=2, c=1)))
    assert chooser.served("m", 1000) == {"a": 700, "b": 200, "c": 100}
    assert chooser.served("m", 10, able=["spare"]) == {"spare": 10}


def test_what_a_lost_target_would_have_had_is_shared_by_weight_and_its_return_brings_no_flood() -> None:
    chooser = Chooser(entry("m", targets=weighted(a=7, b=2, c=1)))
    assert chooser.served("m", 300, able=["b", "c"]) == {"b": 200, "c": 100}
    assert chooser.served("m", 100, able=["a", "b", "c"]) == {"a": 70, "b": 20, "c": 10}


def test_siblings_come_before_fallbacks_and_each_model_chooses_by_its_own_weights() -> None:
    chat = entry("chat", "spare", targets=weighted(a=1, b=1))
    chooser = Chooser(chat, entry("spare", targets=weighted(c=2, d=1)))
    orders = ["".join(chooser.order("chat")) for _ in range(6)]
    assert orders == ["abcd", "badc", "abcd", "bacd", "abdc", "bacd"]


def test_a_fallbacks_turns_are_used_up_only_by_calls_that_reach_it() -> None:
    chooser = Chooser(entry("chat", "spare", targets=weighted(a=1, b=1)), entry("spare", targets=weighted(c=1, d=1)))
    for turn in range(20):
        assert next(chooser.order("chat")) == "ab"[turn % 2]
        assert next(chooser.order("spare")) == "cd"[turn % 2]


def test_names_of_one_prefix_take_turns_together() -> None:
    chooser = Chooser(entry("m*", targets=weighted(a=1, b=1)))
    assert [next(chooser.order(f"m{number}")) for number in range(4)] == ["a", "b", "a", "b"]


def test_turns_live_on_over_a_reload_unless_the_targets_change() -> None:
    targets = weighted(a=1, b=1)
    before = ModelTable([entry("m", targets=targets)], None).turns({})
    before["m"].first()
    same = ModelTable([entry("m", "other", targets=targets), entry("other")], None).turns(before)
    assert same["m"] is before["m"]
    assert ModelTable([entry("m", targets=weighted(a=1, b=2))], None).turns(before)["m"] is not before["m"]
    assert ModelTable([entry("other")], None).turns(before) == {}


def sticky(**weights: int) -> ModelEntry:
    return ModelEntry("m", "route", weighted(**weights), (), 1, 0.2, sticky_header="session")


def test_calls_of_one_session_go_to_one_target_and_share_their_siblings() -> None:
    chooser = Chooser(sticky(a=1, b=1, c=1, spare=0))
    for number in range(50):
        session = b"%d" % number
        orders = {tuple(chooser.order("m", session=session)) for _ in range(3)}
        assert len(orders) == 1
        assert orders.pop()[-1] == "spare"
    assert chooser.served("m", 30) == {"a": 10, "b": 10, "c": 10}, "without the header it goes by weight"

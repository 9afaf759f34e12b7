"""Prices: what a compiled route carries of them, and what is told where one is missing."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_contract import compiled as c
from llmroute_contract.compile import compile_gateway
from llmroute_contract.prices import known_prices, prices_of
from llmroute_contract.scalars import MODEL_MATCH_PATTERN, USD_PATTERN, microdollars
from tests.contract.routes import model, source, spec_document, spec_of

KNOWN = {"gpt-4o": ("2.5", "10"), "gpt-4o-mini": ("0.15", "0.6"), "claude": ("3", "15"), "ft:gpt-4o*": ("3.75", "15")}
SPEND = [{"name": "spend", "per": "Client", "budget": {"usd": "20", "period": "Day"}}]


def price(name: str, given: str = "1", made: str = "2") -> dict[str, str]:
    return {"model": name, "inputPerMillion": given, "outputPerMillion": made}


def carried(*models: Any, **changes: Any) -> dict[str, tuple[str, str]]:
    return prices_of(spec_of(spec_document(list(models), **changes)), KNOWN)


def test_a_route_carries_the_prices_that_its_targets_need() -> None:
    renamed = {"name": "chat", "targets": [{"upstream": "main", "model": "claude"}]}
    assert carried(model("gpt-4o"), renamed, model("llama")) == {"gpt-4o": ("2.5", "10"), "claude": ("3", "15")}


def test_an_upstream_that_names_its_model_is_asked_for_that_one() -> None:
    upstreams = [{"name": "main", "url": "litellm://anthropic/claude"}]
    assert carried(model("chat"), upstreams=upstreams).keys() == {"claude"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("gpt-4o*", {"gpt-4o", "gpt-4o-mini"}),
        ("ft:gpt-4o-2024:shop*", {"ft:gpt-4o*"}),
        ("ft:*", {"ft:gpt-4o*"}),
        ("ft:gpt-4o:shop::1", {"ft:gpt-4o*"}),
        ("*", set(KNOWN)),
        ("llama*", set()),
    ],
)
def test_where_clients_choose_the_name_it_carries_all_that_may_be_asked_for(asked: str, expected: set[str]) -> None:
    assert carried(model(asked)).keys() == expected


def test_a_default_upstream_needs_all_of_them() -> None:
    assert carried(model("llama"), defaultUpstream="main").keys() == KNOWN.keys()


def test_what_a_route_states_itself_counts_before_the_table_also_for_a_prefix() -> None:
    own = [price("gpt-4o*"), price("unused")]
    assert carried(model("gpt-4o"), model("gpt-4o-mini"), model("claude"), prices=own) == {
        "gpt-4o*": ("1", "2"),
        "unused": ("1", "2"),
        "claude": ("3", "15"),
    }


def test_a_budget_tells_which_model_has_no_price_and_the_route_is_accepted() -> None:
    models = [model("gpt-4o"), model("llama"), {"name": "x", "targets": [{"upstream": "main", "model": "mine"}]}]
    (verdict,) = compile_gateway("n", "g", [source("r", models, limits=SPEND)], KNOWN).verdicts.values()
    assert verdict.accepted
    assert [text.partition(":")[0] for text in verdict.inactive] == [
        "spec.limits[0].budget counts nothing of model 'llama' (spec.models[1].name)",
        "spec.limits[0].budget counts nothing of model 'mine' (spec.models[2].targets[0].model)",
    ]
    own = [price("llama", "0", "0"), price("mi*")]
    (verdict,) = compile_gateway("n", "g", [source("r", models, limits=SPEND, prices=own)], KNOWN).verdicts.values()
    assert verdict.inactive == ()
    (verdict,) = compile_gateway("n", "g", [source("r", models)], KNOWN).verdicts.values()
    assert verdict.inactive == ()  # nothing counts money


def test_the_same_table_makes_the_same_bytes_and_a_route_without_prices_none() -> None:
    def file(*models: Any, known: Any = KNOWN) -> bytes:
        return compile_gateway("n", "g", [source("r", models)], known).files["route.r.json"]

    shuffled = dict(reversed(KNOWN.items()))
    assert file(model("*")) == file(model("*"), known=shuffled)
    assert b"prices" not in file(model("llama"))
    assert c.decode(file(model("gpt-4o")), c.CompiledRoute).prices == {"gpt-4o": ("2.5", "10")}


def test_the_table_of_known_models_is_sane() -> None:
    known = known_prices()
    assert 100 < len(known) < 1000
    assert known["gpt-4o"] == ("2.5", "10")
    for name, prices in known.items():
        assert re.fullmatch(MODEL_MATCH_PATTERN, name), name
        for text in prices:
            assert re.fullmatch(USD_PATTERN, text), name
            assert microdollars(text) <= 1_000_000_000, name  # a thousand dollars for a million tokens


@given(st.from_regex(USD_PATTERN, fullmatch=True).filter(str.isascii))
def test_a_price_is_a_whole_number_of_millionths(usd: str) -> None:
    assert microdollars(usd) == Decimal(usd) * 1_000_000

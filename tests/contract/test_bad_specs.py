"""The Python model refuses whatever `bad_specs.py` lists, and names the field."""

from datetime import timedelta

import pytest

from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import LLMRoute, parse_route
from llmroute_contract.problem import Problem
from tests.contract.bad_specs import BAD_SPECS, BadSpec
from tests.contract.routes import BEGINNING, Document, full_route


def _problems(bad: BadSpec) -> tuple[Problem, ...]:
    parsed = parse_route(bad.document)
    if isinstance(parsed, tuple):
        return parsed
    younger = RouteSource(parsed.metadata.name, parsed.spec, 1, BEGINNING)
    older = [_older(document) for document in bad.older]
    verdicts = compile_gateway("shop", "default", [younger, *older]).verdicts
    assert all(verdicts[route.name].accepted for route in older), "the older route is not to blame"
    assert not verdicts[younger.name].accepted
    return verdicts[younger.name].problems


def _older(document: Document) -> RouteSource:
    parsed = parse_route(document)
    assert isinstance(parsed, LLMRoute), parsed
    return RouteSource(parsed.metadata.name, parsed.spec, 1, BEGINNING - timedelta(days=1))


@pytest.mark.parametrize("bad", BAD_SPECS, ids=lambda bad: bad.id)
def test_a_bad_spec_is_refused_with_its_fields_name_and_words_that_help(bad: BadSpec) -> None:
    told = {problem.field: problem.message for problem in _problems(bad)}
    assert bad.words in told.get(bad.field, ""), told


@pytest.mark.parametrize("bad", BAD_SPECS, ids=lambda bad: bad.id)
def test_what_the_api_server_lets_through_parses_or_names_a_url(bad: BadSpec) -> None:
    parsed = parse_route(bad.document)
    if bad.refused_by == "condition" and isinstance(parsed, tuple):
        assert bad.id.startswith("url-"), "the schema of the CRD says more than the model"


def test_the_full_route_is_good() -> None:
    assert isinstance(parse_route(full_route()), LLMRoute)


def test_no_two_bad_specs_have_one_id() -> None:
    assert len({bad.id for bad in BAD_SPECS}) == len(BAD_SPECS) >= 45

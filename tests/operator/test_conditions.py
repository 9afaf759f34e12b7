"""What a person is told of a route, in each case that there is."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_contract.compile import Compilation, RouteSource, Verdict, compile_gateway
from llmroute_contract.problem import Problem
from llmroute_contract.status import LLMRouteStatus
from llmroute_operator.controller.conditions import (
    NotWritten,
    Written,
    says,
    status_manifest,
    status_of,
)
from llmroute_operator.controller.configmap import Served, served_from
from llmroute_operator.controller.route import GatewayKey, Route, read_route
from llmroute_operator.controller.said import MESSAGE_MAX
from tests.contract.routes import Document, model
from tests.operator.documents import route_document

KEY = GatewayKey("shop", "default")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def compiled(*routes: Route, before: Compilation | None = None) -> Compilation:
    last = served_of(before).routes if before is not None else {}
    return compile_gateway(
        *KEY,
        [RouteSource(one.name.name, one.spec, one.generation, one.created, last.get(one.name.name)) for one in routes],
    )


def served_of(compilation: Compilation) -> Served:
    return served_from(KEY, {name: data.decode() for name, data in compilation.files.items()})


def told(
    route: Route, compilation: Compilation, outcome: Written | NotWritten | None = None, now: datetime = NOW
) -> dict[str, Any]:
    return status_of(route, compilation.verdicts[route.name.name], outcome or Written(compilation.revision), now)


def conditions(status: Document) -> dict[str, tuple[str, str, str]]:
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]}


def parsed(document: Document) -> Route:
    return read_route(document)


def test_a_good_route_is_accepted_resolved_and_programmed() -> None:
    route = parsed(route_document(generation=3))
    status = told(route, compilation := compiled(route))
    assert conditions(status) == {
        "Accepted": ("True", "Accepted", "Generation 3 is accepted."),
        "ResolvedRefs": ("True", "ResolvedRefs", "Every name that the route uses exists."),
        "Programmed": ("True", "Programmed", "ConfigMap llmroute-gateway-default holds generation 3."),
    }
    assert status["observedGeneration"] == 3
    assert status["revision"] == compilation.revision
    assert {one["observedGeneration"] for one in status["conditions"]} == {3}


def test_fields_that_are_not_acted_on_are_told() -> None:
    route = parsed(
        route_document(limits=[{"name": "spend", "per": "Client", "budget": {"usd": "20", "period": "Day"}}])
    )
    status, _, message = conditions(told(route, compiled(route)))["Accepted"]
    assert status == "True"
    assert "Not acted on: spec.limits[0].budget counts nothing of model 'chat'" in message


BAD: Sequence[tuple[str, Document, str, str]] = [
    (
        "UnknownUpstream",
        {"models": [{"name": "chat", "targets": [{"upstream": "nowhere"}]}]},
        "spec.models[0].targets[0].upstream: no upstream is named 'nowhere'; this route has main.",
        "False",
    ),
    (
        "UnknownFallback",
        {"models": [model("chat", "nobody")]},
        "spec.models[0].fallbacks[0]: no model of this gateway is named 'nobody'; this route has chat.",
        "False",
    ),
    (
        "FallbackCycle",
        {"models": [model("a", "b"), model("b", "a")]},
        "spec.models[0].fallbacks[0]: leads back to where it starts: a -> b -> a.",
        "True",
    ),
    ("Invalid", {"upstreams": []}, "spec.upstreams: must not be empty", "Unknown"),
]


@pytest.mark.parametrize(("reason", "change", "words", "resolved"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_first_generation_is_told_with_its_field_and_that_nothing_is_served(
    reason: str, change: Document, words: str, resolved: str
) -> None:
    document = route_document()
    document["spec"] |= change
    route = parsed(document)
    found = conditions(told(route, compiled(route)))
    assert found["Accepted"][:2] == ("False", reason)
    assert words in found["Accepted"][2]
    assert found["Accepted"][2].endswith("Nothing of this route is served.")
    assert found["ResolvedRefs"][0] == resolved
    if resolved == "False":
        assert found["ResolvedRefs"][1] == reason
        assert words in found["ResolvedRefs"][2]
    assert found["Programmed"] == (
        "False",
        "NotAccepted",
        "ConfigMap llmroute-gateway-default holds nothing of this route.",
    )


@pytest.mark.parametrize(("reason", "change", "words", "resolved"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_new_generation_says_which_one_is_served(
    reason: str, change: Document, words: str, resolved: str
) -> None:
    before = compiled(parsed(route_document(generation=2)))
    document = route_document(generation=5)
    document["spec"] |= change
    route = parsed(document)
    found = conditions(told(route, compiled(route, before=before)))
    assert found["Accepted"][2].endswith("Generation 2 is served instead of 5.")
    assert found["Programmed"] == (
        "False",
        "NotAccepted",
        "ConfigMap llmroute-gateway-default holds generation 2, not 5.",
    )


def test_a_conflict_names_the_winner_and_that_the_rest_is_served() -> None:
    older = parsed(route_document("older", "same", created="2025-01-01T00:00:00Z"))
    younger = parsed(route_document("younger", "same", "own"))
    compilation = compiled(older, younger)
    assert conditions(told(older, compilation))["Accepted"][0] == "True"
    found = conditions(told(younger, compilation))
    assert found["Accepted"][:2] == ("False", "ModelConflict")
    assert "spec.models[0].name: model 'same' belongs to the older route 'older'" in found["Accepted"][2]
    assert found["Accepted"][2].endswith("The rest of generation 1 is served.")
    assert found["Programmed"][0] == "True"


def test_a_name_that_only_means_nothing_leaves_the_route_accepted() -> None:
    auth = {
        "mode": "Keys",
        "keysFrom": {"secretRef": {"name": "keys"}},
        "clients": [{"name": "web", "models": ["chta"]}],
    }
    route = parsed(route_document(auth=auth))
    found = conditions(told(route, compiled(route)))
    assert found["Accepted"][0] == "True"
    assert found["ResolvedRefs"][:2] == ("False", "UnknownModel")
    assert "spec.auth.clients[0].models[0]" in found["ResolvedRefs"][2]


@pytest.mark.parametrize("reason", ["Pending", "ApplyFailed"])
def test_a_configmap_that_could_not_be_written_is_told_with_what_it_holds(reason: Any) -> None:
    before = compiled(parsed(route_document(generation=2)))
    route = parsed(route_document("chat", "chat", "more", generation=3))
    outcome = NotWritten(reason, "The ConfigMap cannot be written: no.", served_of(before))
    status = told(route, compiled(route, before=before), outcome)
    found = conditions(status)
    assert found["Accepted"][0] == "True"
    assert found["Programmed"] == (
        "False",
        reason,
        "The ConfigMap cannot be written: no. llmroute-gateway-default holds generation 2.",
    )
    assert status["revision"] == before.revision, "not what was to be written"


def test_a_transition_keeps_its_time_until_the_status_changes() -> None:
    document = route_document()
    route = parsed(document)
    first = told(route, compiled(route))
    later = NOW + timedelta(hours=1)
    second_document = route_document(generation=2, version=2, status=first)
    second = parsed(second_document)
    status = told(second, compiled(second), now=later)
    assert {one["lastTransitionTime"] for one in status["conditions"]} == {"2026-11-25T12:00:00Z"}
    second_document["spec"]["models"][0]["targets"][0]["upstream"] = "nowhere"
    bad = parsed(second_document)
    times = {one["type"]: one["lastTransitionTime"] for one in told(bad, compiled(bad), now=later)["conditions"]}
    assert times["Accepted"] == "2026-11-25T13:00:00Z"


def test_a_status_that_is_there_already_is_not_written_again() -> None:
    route = parsed(route_document())
    status = told(route, compiled(route))
    foreign = {**status, "note": "another's", "conditions": [*status["conditions"], {"type": "Reviewed"}]}
    assert says(foreign, status)
    assert not says({}, status)
    assert not says({**status, "revision": ""}, status)
    for name in ("status", "reason", "message", "observedGeneration"):
        conditions = [{**status["conditions"][0], name: "?"}, *status["conditions"][1:]]
        assert not says({**status, "conditions": conditions}, status), name
    assert not says({**status, "conditions": status["conditions"][1:]}, status)


def test_the_manifest_of_a_status_is_of_this_very_route() -> None:
    route = parsed(route_document(uid="one"))
    document = status_manifest(route, told(route, compiled(route)))
    assert document["metadata"] == {"name": "chat", "namespace": "shop", "uid": "one"}
    assert set(document) == {"apiVersion", "kind", "metadata", "status"}


PROBLEMS = st.lists(
    st.builds(
        Problem,
        field=st.text("ab.[0]", max_size=300),
        reason=st.sampled_from(["Invalid", "UnknownUpstream", "UnknownFallback", "ModelConflict", "ConfigMapTooLarge"]),
        message=st.text(max_size=200) | st.integers(0, 50_000).map("x".__mul__),
    ),
    min_size=1,
    max_size=400,
)


@given(problems=PROBLEMS, inactive=st.lists(st.integers(1, 20_000).map("y".__mul__), max_size=3))
def test_a_status_fits_the_crd_whatever_is_wrong(problems: list[Problem], inactive: list[str]) -> None:
    route = parsed(route_document())
    verdict = Verdict(False, tuple(problems), None, tuple(inactive))
    status = status_of(route, verdict, NotWritten("Pending", "z" * 10_000, Served()), NOW)
    LLMRouteStatus.model_validate(status)
    assert max(len(one["message"]) for one in status["conditions"]) <= MESSAGE_MAX
    assert "Nothing of this route is served." in conditions(status)["Accepted"][2]


def test_of_many_problems_a_person_reads_the_first_and_how_many_more_there_are() -> None:
    problems = tuple(Problem(f"spec.models[{place}]", "Invalid", "is wrong " * 50) for place in range(100))
    route = parsed(route_document())
    message = conditions(status_of(route, Verdict(False, problems, None), Written("r"), NOW))["Accepted"][2]
    told_of = message.count("spec.models[")
    assert message.startswith("spec.models[0]: is wrong")
    assert f"And {100 - told_of} more." in message

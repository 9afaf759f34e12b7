"""Routes in trouble, counted by what their conditions say."""

import pytest

from llmroute_operator.controller.route import read_route
from llmroute_operator.controller.trouble import WRONG, routes_in_trouble


def route_that_says(namespace: str, **conditions: str) -> dict[str, object]:
    return {
        "metadata": {"namespace": namespace, "name": "chat", "uid": "1", "resourceVersion": "1"},
        "spec": {},
        "status": {"conditions": [{"type": kind, "status": status} for kind, status in conditions.items()]},
    }


def counted(*documents: dict[str, object]) -> dict[tuple[str, str], int]:
    counts = routes_in_trouble([read_route(document) for document in documents])
    return {place: count for place, count in counts.items() if count}


@pytest.mark.parametrize(("kind", "wrong"), WRONG.items())
def test_a_condition_is_trouble_in_its_bad_status_alone(kind: str, wrong: str) -> None:
    right = "False" if wrong == "True" else "True"
    assert counted(route_that_says("shop", **{kind: wrong})) == {("shop", kind): 1}
    assert counted(route_that_says("shop", **{kind: right}), route_that_says("shop", **{kind: "Unknown"})) == {}


def test_each_namespace_is_counted_by_itself_and_what_is_well_is_zero() -> None:
    bad, good = {"Accepted": "False"}, {"Accepted": "True"}
    documents = [route_that_says("shop", **bad), route_that_says("shop", **bad), route_that_says("pay", **good)]
    assert counted(*documents) == {("shop", "Accepted"): 2}
    counts = routes_in_trouble([read_route(document) for document in documents])
    assert set(counts) == {(namespace, kind) for namespace in ("shop", "pay") for kind in WRONG}
    assert routes_in_trouble([]) == {}


def test_a_new_route_that_says_nothing_yet_is_in_no_trouble() -> None:
    assert counted({**route_that_says("shop"), "status": {}}) == {}

"""A limit's shares: in sum never more than the limit, and nobody left with nothing in silence."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_contract import compiled as c
from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import Limit, parse_spec
from llmroute_contract.shares import FIRST_MAX, own_share, say_shares, share_of, shares_among, without_share
from tests.contract.routes import model, spec_document

REQUESTS = {"name": "all", "per": "Gateway", "requests": 10, "scope": "Gateway"}


def names(count: int) -> list[str]:
    return [f"pod-{number}" for number in range(count)]


def limit(**fields: Any) -> Limit:
    return Limit.model_validate({"name": "all", "per": "Gateway", "scope": "Gateway", **fields})


@given(amount=st.integers(1, 10**12), pods=st.integers(1, 400))
def test_the_shares_are_in_sum_never_more_than_the_limit(amount: int, pods: int) -> None:
    shares = shares_among(names(pods))
    total = sum(share_of(amount, shares, pod) for pod in names(pods))
    assert total <= amount
    if amount % pods <= FIRST_MAX:
        assert total == amount
    assert amount - total < pods


@given(amount=st.integers(1, 1000), pods=st.integers(1, 300))
def test_what_is_said_to_be_left_with_nothing_is(amount: int, pods: int) -> None:
    shares = shares_among(names(pods))
    nothing = sum(share_of(amount, shares, pod) == 0 for pod in names(pods))
    assert without_share(limit(requests=amount), shares) == nothing


@pytest.mark.parametrize(
    ("fields", "pods", "said"),
    [
        ({"tokens": 6000}, 4, "6000 tokens/60s, 4 pods, 1500 each"),
        ({"requests": 10, "window": "1h"}, 4, "10 requests/3600s, 4 pods, 3 each for the 2 oldest, 2 each for 2"),
        ({"requests": 10}, 1, "10 requests/60s, 1 pod, 10 each"),
        ({"requests": 10}, 50, "10 requests/60s, 50 pods, 1 each for the 10 oldest, nothing for 40"),
        ({"concurrency": 64}, 2, "64 at the same time, 2 pods, 32 each"),
        ({"budget": {"usd": "20", "period": "Day"}}, 8, "20 US dollars/Day, 8 pods, 2.5 each"),
    ],
)
def test_shares_are_said_in_words(fields: dict[str, Any], pods: int, said: str) -> None:
    assert say_shares(limit(**fields), shares_among(names(pods))) == said


def compiled(pods: int, *limits: dict[str, Any], **more: Any) -> Any:
    spec = parse_spec(spec_document([model("chat")], limits=list(limits)))
    assert not isinstance(spec, tuple), spec
    return compile_gateway("shop", "default", [RouteSource("chat", spec)], shares=shares_among(names(pods)), **more)


def test_only_a_gateway_with_such_a_limit_has_a_revision_that_changes_with_its_pods() -> None:
    of_pods = {**REQUESTS, "scope": "Pod"}
    assert compiled(2, of_pods).files == compiled(3, of_pods).files
    assert compiled(2, REQUESTS).revision != compiled(3, REQUESTS).revision
    assert compiled(2, REQUESTS).files["route.chat.json"] == compiled(3, REQUESTS).files["route.chat.json"]


def test_nothing_is_shared_out_where_a_server_counts() -> None:
    state = c.CompiledSharedState("redis://state:6379", None)
    assert compiled(2, REQUESTS, shared_state=state).shares is None


def test_a_limit_that_leaves_pods_with_nothing_is_told() -> None:
    assert compiled(10, REQUESTS).verdicts["chat"].inactive == ()
    (told,) = compiled(12, REQUESTS).verdicts["chat"].inactive
    assert told.startswith("spec.limits[0] is too small for 12 pods: 2 of them have no share of it and refuse every")


def test_a_gateway_takes_its_share_of_limits_over_all_pods_alone() -> None:
    budget = {"name": "spend", "per": "Client", "budget": {"usd": "1", "period": "Day"}, "scope": "Gateway"}
    files = compiled(4, REQUESTS, {**REQUESTS, "name": "own", "scope": "Pod"}, budget).files
    route, index = (
        c.decode(files["route.chat.json"], c.CompiledRoute),
        c.decode(files["gateway.json"], c.CompiledGateway),
    )
    assert isinstance(index.shares, c.CompiledShares)
    for pod, requests in (("pod-0", 3), ("pod-1", 3), ("pod-2", 2), ("pod-3", 2)):
        own = own_share(route, index.shares, pod)
        assert [one.requests for one in own.limits] == [requests, 10, None]
        assert own.limits[2].budget == c.CompiledBudget("0.250000", "Day")


def test_a_gateway_that_is_not_counted_yet_has_a_hundredth_and_one_at_least() -> None:
    two = shares_among(names(2))
    assert [share_of(amount, two, "newcomer") for amount in (1, 10, 1000, 10**6)] == [0, 1, 10, 10**4]
    many = shares_among(names(FIRST_MAX + 1))  # not all are named: it may be counted
    assert share_of(1010, many, "newcomer") == 10

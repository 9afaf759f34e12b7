"""The shared state in the contract: its address, its place in gateway.json, what a route says of it."""

import json
from typing import Any

import pytest

from llmroute_contract import compiled as c
from llmroute_contract.compile import Compilation, RouteSource, compile_gateway
from llmroute_contract.shared_state import SharedStateUrl, parse_shared_state_url
from tests.contract.routes import model, source

SHARED = c.CompiledSharedState("rediss://state.example:6380/0", "state")
SLOTS = {"name": "slots", "per": "Gateway", "concurrency": 1, "scope": "Gateway"}


def compiled(*sources: RouteSource, shared_state: c.CompiledSharedState | None = None) -> Compilation:
    return compile_gateway("n", "g", sources, shared_state=shared_state)


def route(**spec: Any) -> RouteSource:
    breaker = {"scope": "Gateway"}
    upstreams = [{"name": "main", "url": "https://a.example", "breaker": breaker}]
    return source("r", [model("a")], upstreams=upstreams, limits=[SLOTS], **spec)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("redis://state", SharedStateUrl(False, "state", 6379, 0, 0.1)),
        ("rediss://state.example:6380/2?timeout=250ms", SharedStateUrl(True, "state.example", 6380, 2, 0.25)),
        ("valkeys://10.0.0.1/", SharedStateUrl(True, "10.0.0.1", 6379, 0, 0.1)),
        ("redis://[::1]:7000", SharedStateUrl(False, "::1", 7000, 0, 0.1)),
    ],
)
def test_an_address_is_parsed(text: str, parsed: SharedStateUrl) -> None:
    assert parse_shared_state_url(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "state:6379",
        "http://state",
        "redis://",
        "redis://state:0",
        "redis://state:99999",
        "redis://state/zero",
        "redis://state?password=canary",
        "redis://state?timeout=11s",
        "redis://state?timeout=0ms",
        "redis://state?timeout=1",
        "redis://state#canary",
        "redis://st ate",
        "redis://[::1",
        "redis://user:canary@state",
        "redis://" + "a" * 600,
    ],
)
def test_what_is_no_address_is_told_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"must") as error:
        parse_shared_state_url(text)
    assert "canary" not in str(error.value)


def test_a_gateway_without_a_shared_state_has_the_bytes_it_always_had() -> None:
    files = compiled(source("r", [model("a")])).files
    assert "sharedState" not in json.loads(files["gateway.json"])
    assert not {"whenUnavailable"} & json.loads(files["route.r.json"]).keys()
    assert "breakerScope" not in json.loads(files["route.r.json"])["upstreams"][0]


def test_the_shared_state_is_in_gateway_json_and_part_of_the_revision() -> None:
    without, with_one = compiled(route()), compiled(route(), shared_state=SHARED)
    other = compiled(route(), shared_state=c.CompiledSharedState(SHARED.url, None))
    index = c.decode(with_one.files["gateway.json"], c.CompiledGateway)
    assert index.shared_state == SHARED
    assert index.revision == with_one.revision == c.revision_of(index.routes, SHARED)
    assert len({without.revision, with_one.revision, other.revision}) == 3
    assert without.files["route.r.json"] == with_one.files["route.r.json"]


def test_what_a_route_says_is_compiled_where_it_is_not_the_default() -> None:
    closed = compiled(route(sharedState={"whenUnavailable": "FailClosed"})).files["route.r.json"]
    found = c.decode(closed, c.CompiledRoute)
    assert (found.when_unavailable, found.upstreams[0].breaker_scope) == ("FailClosed", "Gateway")
    assert found.limits[0].scope == "Gateway"


def test_without_a_shared_state_what_needs_one_is_told() -> None:
    (verdict,) = compiled(route(sharedState={"whenUnavailable": "FailClosed"})).verdicts.values()
    assert [text.split(" ")[0] for text in verdict.inactive] == [
        "spec.limits[0].scope",
        "spec.upstreams[0].breaker.scope",
        "spec.sharedState",
    ]
    (verdict,) = compiled(route(sharedState={"whenUnavailable": "FailClosed"}), shared_state=SHARED).verdicts.values()
    assert verdict.inactive == ()

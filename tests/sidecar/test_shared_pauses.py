"""How soon gateways are back at their server, and how many come at once: a fleet by the policy's own rule, and a clock
that is only counted."""

import heapq
import random
from dataclasses import dataclass
from functools import cache

import pytest

from llmroute_sidecar.shared.pauses import LEAST, MOST, MOST_COSTLY, pause

PODS = 3_000


@dataclass
class Fleet:
    """When its pods tried, and when each was back, in seconds from the moment that they all lost the server."""

    tries: list[float]
    back: list[float]


@cache
def outage(seconds: float, reason: str = "connection_refused") -> Fleet:
    chance = random.Random(1)
    fleet = Fleet([], [])
    due = [pause(0.0, "connection_lost", chance.random()) for _ in range(PODS)]
    heapq.heapify(due)
    while due:
        now = heapq.heappop(due)
        fleet.tries.append(now)
        if now >= seconds:
            fleet.back.append(now)
        else:
            heapq.heappush(due, now + pause(now, reason, chance.random()))
    return fleet


def most_within(moments: list[float], seconds: float) -> int:
    """The most of `moments` (in order) that are within so many seconds of one another."""
    first, most = 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize(
    ("gone", "mean", "worst"),
    [(0.7, 0.15, 0.25), (3.0, 0.25, 0.45), (8.0, 0.45, 1.15), (20.0, 0.65, 1.5)],
)
def test_gateways_are_back_soon_after_their_server(gone: float, mean: float, worst: float) -> None:
    late = [moment - gone for moment in outage(gone).back]
    assert len(late) == PODS
    assert sum(late) / PODS < mean
    assert max(late) <= worst


@pytest.mark.parametrize("gone", [0.0, 0.7, 3.0, 20.0])
def test_a_fleet_comes_back_one_by_one(gone: float) -> None:
    assert most_within(outage(gone).back, 0.01) < PODS / 10


def test_a_server_that_is_gone_for_long_is_tried_seldom() -> None:
    tries = [moment for moment in outage(20.0).tries if 12 <= moment < 20]
    assert most_within(tries, 1.0) < 1.3 * PODS


def test_a_server_that_each_try_costs_something_is_tried_half_as_often() -> None:
    tries = [moment for moment in outage(30.0, "tls_failed").tries if 24 <= moment < 30]
    assert most_within(tries, 1.0) < 0.7 * PODS


def test_a_pause_is_bounded_on_both_sides() -> None:
    assert pause(0.0, "connection_lost", 0.0) == LEAST / 5
    assert pause(0.0, "connection_lost", 1.0) == LEAST
    assert pause(1e9, "connection_refused", 1.0) == MOST
    assert pause(1e9, "timeout", 1.0) == MOST_COSTLY

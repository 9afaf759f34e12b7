"""The accounts of mixed traffic (bench/mixed/accounts.py) find what they are there to find."""

from collections import Counter
from typing import Any

import pytest

from bench.mixed import accounts
from bench.mixed.customers import Ask, Ending, Heard

CHAT = Ask("/v1/chat/completions", "m", b"")
METRICS = """
gateway_requests_total{method="POST",path="/v1/chat/completions",status="200"} 1.0
gateway_requests_total{method="POST",path="/v1/chat/completions",status="429"} 1.0
gateway_requests_total{method="GET",path="/metrics",status="200"} 7.0
gateway_rate_limited_total 1.0
gateway_fallback_used_total{from_model="m",to_model="n"} 1.0
gateway_in_flight_requests 0.0
llmroute_attempts_total{upstream="steady",reason="served"} 1.0
"""


def heard(number: int, status: int, ending: Ending = "whole", **headers: str) -> Heard:
    return Heard(str(number), CHAT, ending, status, {name.replace("_", "-"): value for name, value in headers.items()})


def line(number: int, status: int, **more: Any) -> dict[str, Any]:
    return {"request_id": str(number), "path": CHAT.path, "status": status, **more}


HEARD = [heard(1, 200, x_fallback_model="n"), heard(2, 429)]
LINES = [line(1, 200), line(2, 429)]


def test_books_that_agree_have_no_fault() -> None:
    assert accounts.faults_of_answers(HEARD) == []
    assert accounts.faults_of_log(HEARD, LINES) == []
    assert accounts.faults_of_metrics(HEARD, LINES, METRICS) == []
    assert accounts.faults_of_connections(HEARD, set(), accounts.attempts_at(["steady"], METRICS), 1) == []
    assert accounts.faults_of_memory([100] * 9) == []


@pytest.mark.parametrize("ending", ["unanswered", "seems whole"])
def test_an_answer_that_is_none_is_a_fault(ending: Ending) -> None:
    assert len(accounts.faults_of_answers([*HEARD, heard(3, 200, ending)])) == 1


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (LINES[:1], "2: 0 log lines"),
        ([*LINES, line(2, 429)], "2: 2 log lines"),
        ([LINES[0], line(2, 200)], "heard 429, the log says 200"),
        ([LINES[0], line(2, 429, exc_info="KeyError")], "KeyError"),
        ([*LINES, line(3, 200)], "nobody's"),
    ],
)
def test_a_log_that_says_something_else_is_a_fault(lines: list[dict[str, Any]], fault: str) -> None:
    (found,) = accounts.faults_of_log(HEARD, lines)
    assert fault in found


def test_what_was_logged_of_a_client_that_left_is_as_good_as_anything() -> None:
    assert accounts.faults_of_log([heard(1, 0, "left")], [line(1, 499)]) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('status="200"} 1.0\ngateway_requests', 'status="200"} 2.0\ngateway_requests'),
        ("rate_limited_total 1.0", "rate_limited_total 0.0"),
        ('to_model="n"} 1.0', 'to_model="n"} 2.0'),
        ("in_flight_requests 0.0", "in_flight_requests 1.0"),
    ],
)
def test_metrics_that_say_something_else_are_a_fault(before: str, after: str) -> None:
    assert before in METRICS
    assert len(accounts.faults_of_metrics(HEARD, LINES, METRICS.replace(before, after))) == 1


def test_a_connection_that_was_lost_without_its_client_leaving_is_a_fault() -> None:
    seen = Counter({"served": 1})
    assert len(accounts.faults_of_connections(HEARD, {"1"}, seen, 1)) == 1
    assert accounts.faults_of_connections([heard(1, 0, "left")], {"1"}, seen, 1) == []
    assert len(accounts.faults_of_connections(HEARD, set(), seen, 2)) == 1
    assert len(accounts.faults_of_connections(HEARD, set(), Counter({"served": 1, "connection_lost": 1}), 2)) == 1


def test_memory_that_grows_is_a_fault_and_memory_that_sways_is_none() -> None:
    assert len(accounts.faults_of_memory([*range(0, 90_000, 1000)])) == 1
    assert accounts.faults_of_memory([50_000, 60_000] * 45) == []


def test_the_shared_state_is_missed_from_the_first_word_of_it_until_it_is_reached() -> None:
    told = [
        ("00.000", "shared state not reached"),  # not yet reached
        ("01.000", "shared state reached"),
        ("03.000", "shared state not reached"),
        ("03.250", "shared state not reached"),  # for another reason
        ("03.500", "shared state reached"),
        ("09.000", "shared state not reached"),
        ("09.250", "shared state reached"),
    ]
    lines = [{"timestamp": f"2026-01-01T00:00:{second}Z", "message": message} for second, message in told]
    assert accounts.missed_seconds(lines) == 0.75

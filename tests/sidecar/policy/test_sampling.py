"""Log sampling: the first matching rule decides, its share is a share, and what went wrong is never hidden."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.policy.sampling import SampleRule, is_logged


def rule(rate: float, status: str | None = None, client: str | None = None, model: str | None = None) -> SampleRule:
    return SampleRule(status, client, model, rate)


def logged(rules: list[SampleRule], status: int = 200, client: str | None = "web", model: str = "gpt-4o") -> bool:
    return is_logged(rules, status, client, model, "4bf92f3577b34da6a3ce929d0e0e4736", broken=False)


NEVER, ALWAYS = 0.0, 1.0


@pytest.mark.parametrize(
    ("rules", "status", "expected"),
    [
        ([], 200, True),
        ([rule(NEVER, status="2xx")], 200, False),
        ([rule(NEVER, status="2xx")], 302, True),
        ([rule(NEVER, status="200")], 200, False),
        ([rule(NEVER, status="200")], 201, True),
        ([rule(NEVER, client="web")], 200, False),
        ([rule(NEVER, client="batch")], 200, True),
        ([rule(NEVER, model="gpt-4o")], 200, False),
        ([rule(NEVER, model="gpt-4")], 200, True),
        ([rule(NEVER, model="gpt-*")], 200, False),
        ([rule(NEVER, model="gpt-4o*")], 200, False),
        ([rule(NEVER, model="llama*")], 200, True),
        ([rule(NEVER, status="2xx", client="batch")], 200, True),
        ([rule(NEVER, status="2xx", client="web", model="*")], 200, False),
        # The first one that matches decides.
        ([rule(ALWAYS, client="web"), rule(NEVER, status="2xx")], 200, True),
        ([rule(NEVER, status="2xx"), rule(ALWAYS, client="web")], 200, False),
        # Errors: by a rule that names them, and by no other.
        ([rule(NEVER, client="web")], 429, True),
        ([rule(NEVER, model="*")], 404, True),
        ([rule(NEVER, client="web"), rule(NEVER, status="4xx")], 429, False),
        ([rule(NEVER, status="429")], 429, False),
        ([rule(NEVER, status="429")], 401, True),
        ([rule(NEVER, status="5xx")], 502, True),
        ([rule(NEVER, status="502")], 502, True),
    ],
)
def test_which_rule_decides(rules: list[SampleRule], status: int, expected: bool) -> None:
    assert logged(rules, status) is expected


def test_what_broke_is_logged_whatever_its_status() -> None:
    assert is_logged([rule(NEVER, status="2xx")], 200, "web", "gpt", "trace", broken=True)


def test_a_call_without_a_client_matches_no_rule_of_a_client() -> None:
    assert logged([rule(NEVER, client="web")], client=None)


@given(
    st.one_of(st.none(), st.sampled_from(["2xx", "4xx", "200", "404"])),
    st.one_of(st.none(), st.sampled_from(["web", "batch"])),
    st.floats(0, 1),
    st.sampled_from([200, 404]),
    st.text(min_size=1, max_size=128),
)
def test_one_trace_has_one_decision(
    status: str | None, client: str | None, rate: float, seen: int, trace_id: str
) -> None:
    rules = [rule(rate, status=status, client=client)]
    decisions = {is_logged(rules, seen, "web", "gpt", trace_id, broken=False) for _ in range(3)}
    assert len(decisions) == 1


@given(st.floats(0, 1), st.sampled_from(["{:032x}", "job-{}", "2027-01-01T00:00:00.{:06d}"]), st.integers(0, 10**6))
def test_the_share_that_is_logged_is_the_rate_however_ids_are_made(rate: float, form: str, first: int) -> None:
    count = 4000
    ids = (form.format(number) for number in itertools.count(first))
    rules = [rule(rate, status="2xx")]
    seen = sum(is_logged(rules, 200, None, "gpt", one, broken=False) for one in itertools.islice(ids, count))
    # Five standard deviations of a binomial distribution, which one draw in two million exceeds.
    assert abs(seen - rate * count) <= 5 * (count * rate * (1 - rate)) ** 0.5 + 1


@given(st.floats(0, 1), st.floats(0, 1), st.text(max_size=64))
def test_what_a_lower_rate_logs_a_higher_one_logs_too(one: float, other: float, trace_id: str) -> None:
    low, high = sorted((one, other))
    if is_logged([rule(low, status="2xx")], 200, None, "gpt", trace_id, broken=False):
        assert is_logged([rule(high, status="2xx")], 200, None, "gpt", trace_id, broken=False)

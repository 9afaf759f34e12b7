"""Times to wait: as upstreams write them, as we wait them, as we tell them."""

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.retry import (
    BACKOFF_MAX,
    RETRY_AFTER_MAX,
    backoff,
    format_reset,
    format_retry_after,
    pause_before_retry,
    retry_after,
)

NOW = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT: RFC 9110's own example."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("20", 20.0),
        (" 20 ", 20.0),
        ("1.5", 1.5),
        ("3600", 3600.0),
        ("3601", RETRY_AFTER_MAX),
        ("9" * 60, RETRY_AFTER_MAX),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("20, 30", None),
        ("1" * 5000, None),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", None),
        ("Mon, 07 Nov 1994 08:49:37 GMT", RETRY_AFTER_MAX),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
    ],
)
def test_the_forms_of_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, NOW, limited=True) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120ms", 0.12),
        ("1s", 1.0),
        ("8.64s", 8.64),
        ("1m30s", 90.0),
        ("6m0s", 360.0),
        ("2h", RETRY_AFTER_MAX),
        ("1m0.5s", 60.5),
        ("17", 17.0),
        ("-1s", None),
        ("1m30", None),
        ("1 m", None),
        ("s", None),
        ("", None),
        ("1m" * 3000, None),
    ],
)
@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_the_forms_of_a_reset(kind: str, text: str, seconds: float | None) -> None:
    assert retry_after({f"x-ratelimit-reset-{kind}": text}, NOW, limited=True) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "1500", "retry-after": "2", "x-ratelimit-reset-requests": "9s"}, 1.5),
        ({"retry-after-ms": "junk", "retry-after": "2", "x-ratelimit-reset-requests": "9s"}, 2.0),
        ({"retry-after-ms": "-5", "retry-after": "never", "x-ratelimit-reset-requests": "9s"}, 9.0),
        ({"retry-after-ms": "99999999"}, RETRY_AFTER_MAX),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "junk"}, 0.12),
    ],
)
def test_the_first_header_that_can_be_read_has_the_word(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW, limited=True) == seconds


def test_the_resets_of_limits_ask_for_no_wait_where_none_is_reached() -> None:
    """OpenAI tells them on each answer, a 500 too."""
    resets = {"x-ratelimit-reset-requests": "8.64s", "x-ratelimit-reset-tokens": "6m0s"}
    assert retry_after(resets, NOW, limited=False) is None
    assert retry_after({"retry-after": "2", **resets}, NOW, limited=False) == 2.0


NAMES = ["retry-after-ms", "retry-after", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"]
DATE_PARTS = ["Sun,", "06", "Nov", "1994", "08:49:37", "GMT", "+0000", "-9999", "99", "Feb", "0"]
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text("0123456789.-+eE msh,", max_size=20),
    st.text("MonTueJan 0123456789:+-,GMT", max_size=40),
    st.lists(st.sampled_from(DATE_PARTS), max_size=8).map(" ".join),
)


@given(st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=4), st.floats(0, 4e9))
@settings(max_examples=1500, deadline=None)
def test_no_text_raises_and_what_is_read_is_in_bounds(headers: dict[str, str], now: float) -> None:
    seconds = retry_after(headers, now, limited=True)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX


@given(st.integers(0, 4_000_000_000), st.integers(0, 3600))
def test_a_date_is_read_back(now: int, wait: int) -> None:
    assert retry_after({"retry-after": formatdate(now + wait, usegmt=True)}, float(now), limited=True) == wait


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 0.2), (1, 0.2), (2, 0.4), (3, 0.8), (8, 25.6), (9, BACKOFF_MAX), (10**9, BACKOFF_MAX)]
)
def test_a_back_off_doubles_up_to_its_cap_with_full_jitter(attempt: int, longest: float) -> None:
    assert backoff(attempt, 0.2, 0.0) == 0.0
    assert backoff(attempt, 0.2, 0.5) == pytest.approx(longest / 2)
    assert backoff(attempt, 0.2, 1.0) == pytest.approx(longest)


@given(st.integers(), st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_a_back_off_is_never_longer_than_its_cap(attempt: int, base: float, jitter: float) -> None:
    assert 0 <= backoff(attempt, base, jitter) <= BACKOFF_MAX


@pytest.mark.parametrize(
    ("asked", "pause"), [(None, 0.2), (0.0, 0.2), (0.1, 0.2), (3.0, 3.0), (BACKOFF_MAX, BACKOFF_MAX), (30.1, None)]
)
def test_a_retry_waits_as_long_as_asked_or_is_left_to_others(asked: float | None, pause: float | None) -> None:
    assert pause_before_retry(2, 0.2, 0.5, asked) == pause


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5.0, "0s"),
        (0.0, "0s"),
        (0.001, "1ms"),
        (0.0011, "2ms"),
        (0.12, "120ms"),
        (0.1200000002, "120ms"),
        (0.9995, "1s"),
        (1.0, "1s"),
        (1.001, "2s"),
        (59.5, "1m0s"),
        (60.0, "1m0s"),
        (60.0000000002, "1m0s"),
        (90.0, "1m30s"),
        (360.0, "6m0s"),
        (3600.0, "1h0m0s"),
        (86399.2, "24h0m0s"),
    ],
)
def test_a_reset_is_told_in_the_form_openai_uses(seconds: float, text: str) -> None:
    assert format_reset(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1.0, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (60.0000000002, "60")]
)
def test_retry_after_is_told_in_whole_seconds_rounded_up(seconds: float, text: str) -> None:
    assert format_retry_after(seconds) == text


@given(st.floats(0, RETRY_AFTER_MAX))
@settings(max_examples=500, deadline=None)
def test_what_is_told_is_never_too_short_and_reads_back(seconds: float) -> None:
    told = retry_after({"x-ratelimit-reset-requests": format_reset(seconds)}, NOW, limited=True)
    assert told is not None
    assert seconds - 2e-6 <= told <= min(seconds + (0.001001 if seconds < 0.999 else 1.0), RETRY_AFTER_MAX)
    assert seconds - 2e-6 <= int(format_retry_after(seconds)) <= max(1, seconds + 1)

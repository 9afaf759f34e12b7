"""Durations, URLs, names, instants: what each text means, and what is no such text."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from llmroute_contract.fields import ClientName, Instant, Label, ModelMatch, ModelName, SecretName, Usd
from llmroute_contract.scalars import (
    Seconds,
    UpstreamUrl,
    format_duration,
    matches_model,
    parse_duration,
    parse_upstream_url,
)
from llmroute_contract.upstream import RESERVED_HEADERS
from llmroute_contract.upstream_url import MockParameters, parse_mock_parameters
from tests.contract.urls import any_url

# --- durations

DURATIONS = {
    "0ms": 0,
    "1ms": 0.001,
    "200ms": 0.2,
    "5s": 5,
    "007s": 7,
    "1m30s": 90,
    "1s200ms": 1.2,
    "1200ms": 1.2,
    "2h": 7200,
    "30s1m": 90,
    "9999999ms": 9999.999,
    "99999h": 359_996_400,
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 s",
        " 5s",
        "5s\n",
        "-5s",
        "+5s",
        "1.5s",
        "1d",
        "1us",
        "5S",
        "\u0665s",
        "10000000s",
        "1s1s1s1s1s",
        "1e3s",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize("value", [5, 0, 1.5, float("nan")])
def test_a_number_is_told_that_it_lacks_a_unit(value: float) -> None:
    with pytest.raises(ValueError, match="with a unit"):
        parse_duration(value)


@pytest.mark.parametrize("value", [None, True, [], {}, b"5s", "x" * 10_000])
def test_other_values_are_shown_shortened(value: object) -> None:
    with pytest.raises(ValueError, match="must be a duration such as") as refused:
        parse_duration(value)
    assert len(str(refused.value)) < 150


FORMATTED = {0: "0s", 0.001: "1ms", 0.2: "200ms", 5: "5s", 60: "1m", 90: "90s", 600: "10m", 3600: "1h", 86400: "24h"}


@pytest.mark.parametrize(("seconds", "text"), FORMATTED.items())
def test_a_duration_is_shown_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(max_examples=1000, deadline=None)
@example(9_999_999)
@example(10_000_001)
@given(st.integers(0, 9_999_999_999))
def test_a_duration_that_was_shown_is_read_back(millis: int) -> None:
    seconds = Seconds(millis / 1000)
    assert parse_duration(format_duration(seconds)) == seconds


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99_999), st.sampled_from(["ms", "s", "m", "h"])), min_size=1, max_size=4))
def test_the_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    unit = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1)}
    expected = sum((number * unit.get(name, timedelta(hours=1)) for number, name in parts), timedelta())
    assert parse_duration("".join(f"{number}{name}" for number, name in parts)) == expected.total_seconds()


# --- URLs

URLS = {
    "https://api.openai.com/v1": UpstreamUrl("https", "api.openai.com", 443, "/v1", ()),
    "https://api.openai.com": UpstreamUrl("https", "api.openai.com", 443, "/v1", ()),
    "https://api.openai.com/": UpstreamUrl("https", "api.openai.com", 443, "/v1", ()),
    "https://API.OpenAI.com/V1/": UpstreamUrl("https", "api.openai.com", 443, "/V1", ()),
    "http://localhost:8000": UpstreamUrl("http", "localhost", 8000, "/v1", ()),
    "http://vllm.models.svc:8000/v1": UpstreamUrl("http", "vllm.models.svc", 8000, "/v1", ()),
    "http://[2001:DB8::1]:65535/a/b": UpstreamUrl("http", "2001:db8::1", 65535, "/a/b", ()),
    "https://x.example/api/v1:gen@2": UpstreamUrl("https", "x.example", 443, "/api/v1:gen@2", ()),
    "mock://local": UpstreamUrl("mock", "local", 0, "", ()),
    "mock://local?latency=200ms&tokens=": UpstreamUrl("mock", "local", 0, "", (("latency", "200ms"), ("tokens", ""))),
    "litellm://bedrock/anthropic.claude-3": UpstreamUrl("litellm", "bedrock", 0, "/anthropic.claude-3", ()),
}


@pytest.mark.parametrize(("text", "url"), URLS.items())
def test_a_url_is_taken_apart(text: str, url: UpstreamUrl) -> None:
    assert parse_upstream_url(text) == url


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("https://a.example:443/v1", "a.example"),
        ("https://a.example:8443/v1", "a.example:8443"),
        ("http://a.example:443/v1", "a.example:443"),
        ("http://[::1]/v1", "[::1]"),
        ("http://[::1]:8000/v1", "[::1]:8000"),
    ],
)
def test_the_host_header_names_a_port_that_is_not_the_default(text: str, authority: str) -> None:
    assert parse_upstream_url(text).authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "https://api.openai.com[::1]/v1",
        "https://[::1]api.openai.com/v1",
        "https://api.openai.com\\.evil.example/v1",
        "https://api.openai.com\t/v1",
        "https://api.openai.com%2eevil.example/v1",
        "https://evil.example#@api.openai.com/v1",
        "https://user@api.openai.com/v1",
        "https://@api.openai.com/v1",
    ],
)
def test_a_url_whose_host_two_parsers_would_read_differently_is_refused(text: str) -> None:
    """The credential goes to the host, so there must be no doubt of it."""
    with pytest.raises(ValueError, match=r"^must (name a host|be a URL|not )"):
        parse_upstream_url(text)


def _is_read_back_or_refused(text: str) -> None:
    try:
        url = parse_upstream_url(text)
    except ValueError:
        return
    again = parse_upstream_url(f"{url.scheme}://{url.authority}{url.path}")
    assert (again.host, again.port, again.path) == (url.host, url.port, url.path)
    assert url.host == url.host.lower()
    assert not {"@", "/", "[", "]"} & set(url.host)
    assert not url.path.endswith("/")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://a", "mock://"]))
def test_any_text_is_a_url_or_a_value_error(text: str, beginning: str) -> None:
    _is_read_back_or_refused(beginning + text)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64))
def test_thousands_of_urls_are_read_back_or_refused(seed: int) -> None:
    random = Random(seed)
    for _ in range(200):
        _is_read_back_or_refused(any_url(random))


# --- mock parameters


def test_mock_parameters_are_read() -> None:
    url = parse_upstream_url("mock://local?latency=200ms&tokens=40&gap=20ms&fail=0.1&status=429")
    assert parse_mock_parameters(url) == MockParameters(Seconds(0.2), Seconds(0.02), 40, 0.1, 429)


@pytest.mark.parametrize(("host", "fail"), [("fail", 1.0), ("local", 0.0)])
def test_the_host_of_a_mock_says_whether_it_fails_by_itself(host: str, fail: float) -> None:
    assert parse_mock_parameters(parse_upstream_url(f"mock://{host}")).fail == fail


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("latancy=1s", "has no parameter 'latancy'"),
        ("latency=1", "a duration such as 200ms as latency"),
        ("latency", "a duration such as 200ms as latency"),
        ("tokens=-1", "a whole number up to 99999 as tokens"),
        ("tokens=100000", "a whole number up to 99999 as tokens"),
        ("fail=1.1", "a share from 0 to 1 as fail"),
        ("fail=nan", "a share from 0 to 1 as fail"),
        ("status=200", "a status from 400 to 599 as status"),
    ],
)
def test_a_wrong_mock_parameter_is_named(query: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_mock_parameters(parse_upstream_url(f"mock://local?{query}"))


# --- names

NAMES = [
    (Label, ["a", "gpt-4o", "0", "a" * 63], ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "a\n", "é"]),
    (SecretName, ["a", "a.b-c", "a" * 253], ["", ".a", "a..b", "a.", "A", "../a", "a/b", "a" * 254]),
    (ClientName, ["web", "Web_1", "team.web", "_a", "-a"], ["", ".hidden", "..data", "a/b", "a b", "a\n", "a" * 254]),
    (
        ModelName,
        ["gpt-4o", "meta-llama/Llama-3.1-8B", "ft:gpt-4o:acme::7p4", "@cf/meta/llama-3", "qwen2.5+x@q4", "a" * 200],
        ["", "gpt*", " gpt", "gpt 4", "/gpt", "gpt\n", "ge\u0301", "a" * 201],
    ),
    (ModelMatch, ["*", "gpt-4o*", "gpt-4o"], ["**", "*gpt", "g*t", "", "gpt**"]),
    (Usd, ["0", "20", "0.000001", "999999999.999999"], ["", "-1", ".5", "1.", "1e3", "$1", "1,5", "1234567890", "1 "]),
]


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, good, _ in NAMES for text in good], ids=lambda each: repr(each)[:20]
)
def test_a_good_name_is_taken_as_it_is(kind: Any, text: str) -> None:
    assert TypeAdapter(kind).validate_python(text) == text


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, _, bad in NAMES for text in bad], ids=lambda each: repr(each)[:20]
)
def test_a_bad_name_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize(
    ("pattern", "model", "covers"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o*", "gpt-4o", True),
        ("gpt-4o*", "gpt-4o-mini", True),
        ("gpt-4o*", "gpt-4", False),
        ("*", "", True),
    ],
)
def test_a_pattern_covers_a_name_or_its_beginning(pattern: str, model: str, covers: bool) -> None:
    assert matches_model(pattern, model) is covers


def test_reserved_headers_are_sorted_and_in_lower_case() -> None:
    assert list(RESERVED_HEADERS) == sorted({name.lower() for name in RESERVED_HEADERS})


# --- instants

INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2027-01-01T00:00:00Z", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T02:00:00+02:00", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01T00:00:00.123456789Z", datetime(2027, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read_in_utc(text: str, instant: datetime) -> None:
    read = INSTANT.validate_python(text)
    assert (read, read.utcoffset()) == (instant, timedelta())


def test_an_unquoted_instant_of_yaml_is_one_too() -> None:
    aware = datetime(2027, 1, 1, tzinfo=UTC)
    assert INSTANT.validate_python(aware) == aware
    with pytest.raises(ValidationError, match="must name its time zone"):
        INSTANT.validate_python(aware.replace(tzinfo=None))


_DIGITS = st.integers(0, 99).map("{:02}".format)
_LIKE_AN_INSTANT = st.builds("{}{}-{}-{}T{}:{}:{}{}".format, *[_DIGITS] * 7, st.sampled_from(["Z", "+02:00", "-99:00"]))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=20), _LIKE_AN_INSTANT))
def test_any_text_is_an_instant_or_is_refused(text: str) -> None:
    try:
        read = INSTANT.validate_python(text)
    except ValidationError:
        return
    assert read.utcoffset() == timedelta()

"""What the schemes of an upstream's URL ask for beyond `scalars.py`'s parts: the parameters of a `mock://` one, such as
`mock://local?latency=200ms&tokens=40`, and the form of a `litellm://` one.

What they do is the gateway's matter; here they are read, so that a mistyped one is told when it is written.
"""

import re
from dataclasses import dataclass

from llmroute_contract.scalars import DURATION_PATTERN, Seconds, UpstreamUrl, parse_duration, parse_upstream_url

_DURATION = DURATION_PATTERN.strip("^$")
PARAMETERS = {
    "latency": (_DURATION, "a duration such as 200ms"),
    "gap": (_DURATION, "a duration such as 20ms"),
    "tokens": ("[0-9]{1,5}", "a whole number up to 99999"),
    "fail": ("0([.][0-9]{1,6})?|1([.]0{1,6})?", "a share from 0 to 1"),
    "status": ("[45][0-9][0-9]", "a status from 400 to 599"),
}
"""Of each, the pattern of its value (the CRD has the same ones) and what a person is told that it must be."""


LITELLM_URL_PATTERN = "^litellm://[a-z0-9_]+(/[A-Za-z0-9@][-A-Za-z0-9._:/@+]*)?$"
LITELLM_URL_EXPECTED = "must be litellm://provider or litellm://provider/model, as litellm names them"


@dataclass(frozen=True, slots=True)
class MockParameters:
    latency: Seconds
    """Before the answer begins."""
    gap: Seconds
    """Between two pieces of a stream."""
    tokens: int
    """Words of the answer."""
    fail: float
    """Share of the calls that fail."""
    status: int | None
    """Of a failure, where it is to have one of its own."""


def parse_mock_parameters(url: UpstreamUrl) -> MockParameters:
    """Of a mock:// URL; of one parameter that stands twice, the last. Raises ValueError, naming the parameter."""
    values = dict(url.query)
    for name, value in values.items():
        if name not in PARAMETERS:
            raise ValueError(f"has no parameter {name!r} (mock:// has {', '.join(PARAMETERS)})")
        pattern, expected = PARAMETERS[name]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must have {expected} as {name}")
    return MockParameters(
        latency=parse_duration(values.get("latency", "0ms")),
        gap=parse_duration(values.get("gap", "0ms")),
        tokens=int(values.get("tokens", "18")),
        fail=float(values.get("fail", "1" if url.host == "fail" else "0")),
        status=int(values["status"]) if "status" in values else None,
    )


def check_upstream_url(text: str) -> None:
    """Raises ValueError for what cannot be an upstream's `url`, a mock's parameters included."""
    url = parse_upstream_url(text)
    if url.scheme == "mock":
        parse_mock_parameters(url)
    elif url.scheme == "litellm" and not re.fullmatch(LITELLM_URL_PATTERN, text):
        raise ValueError(LITELLM_URL_EXPECTED)

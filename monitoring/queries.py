"""Pieces of PromQL that the dashboards have in common."""

from llmroute_sidecar.pipeline.errors import TABLE

RATE = "$__rate_interval"
CHOSEN = 'namespace=~"$namespace", gateway=~"$gateway"'
CALLS = 'method="POST"'
UPSTREAMS_FAULT = ("circuit_open", "upstream_failed")
"""Codes by which the gateway says that it could get no answer of an upstream."""
GATEWAYS_WORD = "|".join(sorted(code for code in TABLE if code not in UPSTREAMS_FAULT))
"""Codes by which the gateway itself says no."""


def selected(metric: str, *matchers: str, chosen: str = CHOSEN) -> str:
    inside = ", ".join((*filter(None, (chosen,)), *matchers))
    return f"{metric}{{{inside}}}" if inside else metric


def rate(metric: str, *matchers: str, by: str = "", chosen: str = CHOSEN) -> str:
    """Per second, added up."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({selected(metric, *matchers, chosen=chosen)}[{RATE}]))"


def increase(metric: str, *matchers: str, by: str, window: str = "$__range", chosen: str = CHOSEN) -> str:
    return f"sum by ({by}) (increase({selected(metric, *matchers, chosen=chosen)}[{window}]))"


def share(part: str, whole: str) -> str:
    """Zero where there is none of the part."""
    return f"({part} or 0 * {whole}) / {whole}"


def quantile(share_below: float, histogram: str, *matchers: str, by: str = "", chosen: str = CHOSEN) -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share_below}, {rate(f'{histogram}_bucket', *matchers, by=labels, chosen=chosen)})"


def average(histogram: str, *matchers: str, by: str, chosen: str = CHOSEN) -> str:
    total, count = f"{histogram}_sum", f"{histogram}_count"
    return f"{rate(total, *matchers, by=by, chosen=chosen)} / {rate(count, *matchers, by=by, chosen=chosen)}"

"""docs/metrics.md: every metric, as the gateway's registry describes it."""

from collections.abc import Iterable

from llmroute_sidecar.telemetry.catalogue import Described
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.workers import WorkerSeries

HEADER = "<!-- Generated from sidecar/src/llmroute_sidecar/telemetry/ by `make generate`. Do not edit. -->\n"
ABOUT = """
# Metrics

`/metrics` is on both ports, in Prometheus' text format. Labels have values from the configuration and words of the
gateway's own alone, so that no client can make series: `path` is the route's template (`/v1/*` for other endpoints that
have no name here, `other` for the rest), `model` and `gen_ai_request_model` the configured name or pattern that the
model asked for fits (`other`: the default upstream's), `upstream` and `llmroute_upstream` an upstream's name. What the
numbers mean for a gateway, and what cannot be read from them, is in [telemetry.md](telemetry.md).
"""
PARTS = (
    ("gateway_", "Requests and upstreams", ""),
    (
        "gen_ai_",
        "OpenTelemetry's names for generative AI",
        "Names, buckets and values are those of the conventions (status: development), in Prometheus' spelling.\n",
    ),
    ("llmroute_", "The gateway itself", ""),
)
UNITS = (("_seconds", "s"), ("_bytes", "By"), ("_usd", "USD"), ("_tokens", "tokens"), ("_token_usage", "tokens"))


def metrics_page() -> str:
    """All of it, in parts."""
    metrics = Metrics("")
    metrics.watch_breakers(lambda: ())
    metrics.watch_limits(lambda: ())
    metrics.registry.register(WorkerSeries(lambda: ()))
    described = metrics.registry.described()
    return HEADER + ABOUT + "".join(_part(start, title, text, described) for start, title, text in PARTS)


def _part(start: str, title: str, text: str, described: Iterable[Described]) -> str:
    rows = "".join(
        _row(metric) for metric in sorted(described, key=lambda one: one.name) if metric.name.startswith(start)
    )
    head = "| name | type | unit | labels | what |\n|---|---|---|---|---|\n"
    return f"\n## {title}\n\n{text}{chr(10) if text else ''}{head}{rows}"


def _row(metric: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    what = metric.text.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.kind} | {_unit(metric.name)} | {labels} | {what} |\n"


def _unit(name: str) -> str:
    """By the name's end, as Prometheus has it."""
    bare = name.removesuffix("_total")
    return next((unit for end, unit in UNITS if bare.endswith(end)), "")

"""docs/metrics.md: every metric, as the registries of gateway, controller and injector describe them."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry

from llmroute_operator.controller.metrics import Metrics as ControllerMetrics
from llmroute_operator.injector.metrics import Metrics as InjectorMetrics
from llmroute_sidecar.telemetry.catalogue import Described
from llmroute_sidecar.telemetry.held import HeldSeries
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.workers import WorkerSeries

HEADER = "<!-- Generated from the metrics in the code by `make generate`. Do not edit. -->\n"
ABOUT = """
# Metrics

In Prometheus' text format, by the gateway in each pod (`/metrics` on both of its ports), by controller and injector
(`/metrics` on 8080). [monitoring.md](monitoring.md) says how Prometheus finds them.

Labels have values from the configuration and words of the
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
    (
        "llmroute_controller_",
        "The controller",
        "`…_injector_certificate_looks_total` is there where the controller looks after the certificate.\n",
    ),
    ("llmroute_injector_", "The injector", "Each of its replicas tells its own.\n"),
)
OPERATORS = ("llmroute_controller_", "llmroute_injector_")
UNITS = (("_seconds", "s"), ("_bytes", "By"), ("_usd", "USD"), ("_tokens", "tokens"), ("_token_usage", "tokens"))


def metrics_page() -> str:
    """All of it, in parts."""
    described = [*of_the_gateway(), *of_the_controller(), *of_the_injector()]
    return HEADER + ABOUT + "".join(_part(start, title, text, described) for start, title, text in PARTS)


def of_the_gateway() -> Sequence[Described]:
    metrics = Metrics("")
    metrics.watch_breakers(lambda: ())
    metrics.watch_limits(lambda: ())
    metrics.registry.register(WorkerSeries(lambda: ()))
    metrics.registry.register(HeldSeries(lambda: 0, lambda: 0, lambda: 0))
    return metrics.registry.described()


def of_the_controller() -> Sequence[Described]:
    metrics = ControllerMetrics("")
    metrics.show_silence("", lambda: 0)
    metrics.show_pods(lambda: {"": 0}, lambda: {"": 0})
    metrics.show_troubles(lambda: {("", ""): 0})
    metrics.show_certificate()
    return _with_a_sample_each(metrics.registry)


def of_the_injector() -> Sequence[Described]:
    metrics = InjectorMetrics("")
    metrics.loaded("settings", "success")
    return _with_a_sample_each(metrics.registry)


def _with_a_sample_each(registry: CollectorRegistry) -> Sequence[Described]:
    """prometheus_client tells a metric's labels with its samples alone."""
    found = []
    for family in registry.collect():
        assert family.samples, f"{family.name} has no sample to read its labels from"
        labels = [label for label in family.samples[0].labels if label != "le"]
        ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        found.append(Described(f"{family.name}{ending}", kind, labels, family.documentation))
    return found


def _part(start: str, title: str, text: str, described: Iterable[Described]) -> str:
    rows = "".join(
        _row(metric) for metric in sorted(described, key=lambda one: one.name) if _belongs(metric.name, start)
    )
    head = "| name | type | unit | labels | what |\n|---|---|---|---|---|\n"
    return f"\n## {title}\n\n{text}{chr(10) if text else ''}{head}{rows}"


def _belongs(name: str, start: str) -> bool:
    """The longest of the starts decides."""
    return name.startswith(start) and (start in OPERATORS or not name.startswith(OPERATORS))


def _row(metric: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    what = metric.text.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.kind} | {_unit(metric.name)} | {labels} | {what} |\n"


def _unit(name: str) -> str:
    """By the name's end, as Prometheus has it."""
    bare = name.removesuffix("_total")
    return next((unit for end, unit in UNITS if bare.endswith(end)), "")

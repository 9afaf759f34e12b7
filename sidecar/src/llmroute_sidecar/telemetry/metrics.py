"""The gateway's Prometheus metrics: names, labels and buckets in one place.

Label values are bounded: `path` is a route's template, `model` only a configured name (else `other`), `upstream` a
configured name. The first eight are the seed's, exactly; docs/metrics.md lists all.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmroute_sidecar.telemetry.call_series import AllCallSeries
from llmroute_sidecar.telemetry.catalogue import Catalogue
from llmroute_sidecar.telemetry.genai import GenAiMetrics
from llmroute_sidecar.telemetry.series import Count, CounterSeries, HistogramSeries, Row

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 600)
"""Seconds; from a mock's answer to the longest thought."""
OVERHEAD_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
"""Seconds; from a request that nothing stands in the way of to one that waited in line."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that are told apart; a client's own inventions are `other`."""
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class LimitStanding(NamedTuple):
    """How a limit stands, by the key that has the least left."""

    route: str
    limit: str
    kind: str
    remaining: float
    """Requests, tokens, slots or US dollars."""
    waiting: int


class Metrics:
    """One registry with everything this process tells. What each request counts is a series of our own (series.py)."""

    def __init__(self, version: str) -> None:
        self.registry = Catalogue()
        registry = self.registry
        self._requests = CounterSeries(
            "gateway_requests_total", "Requests answered.", ("method", "path", "status"), registry
        )
        self._latency = HistogramSeries(
            "gateway_request_latency_seconds",
            "From a request's head to the last byte of its answer.",
            ("method", "path"),
            LATENCY_BUCKETS,
            registry,
        )
        self._answered: dict[tuple[str, str, int], tuple[Count, Row]] = {}
        """What has been counted before is found by one look."""
        self.in_flight = 0
        Gauge("gateway_in_flight_requests", "Requests being served.", registry=registry).set_function(
            lambda: self.in_flight
        )
        self._upstream_requests = CounterSeries(
            "gateway_upstream_requests_total",
            "Attempts at upstreams; status is the upstream's, or error, or cancelled where the client left.",
            ("upstream", "status"),
            registry,
        )
        self._upstream_latency = HistogramSeries(
            "gateway_upstream_latency_seconds",
            "From an attempt's begin to the end of the upstream's answer.",
            ("upstream",),
            LATENCY_BUCKETS,
            registry,
        )
        self._attempted: dict[tuple[str, int | str], tuple[Count, Row]] = {}
        self.rate_limited = Counter("gateway_rate_limited_total", "Requests refused by a limit.", registry=registry)
        self._circuit_open = Counter(
            "gateway_circuit_open_total",
            "Attempts not made because a breaker was open.",
            ["upstream"],
            registry=registry,
        )
        self._fallback_used = Counter(
            "gateway_fallback_used_total",
            "Requests that another model than the one asked for answered.",
            ["from_model", "to_model"],
            registry=registry,
        )
        self._retries_refused = Counter(
            "llmroute_retries_refused_total",
            "Retries not made because the upstream's retry budget was spent.",
            ["upstream"],
            registry=registry,
        )
        self._reloads = Counter(
            "llmroute_config_reloads_total", "Readings of a changed configuration.", ["result"], registry=registry
        )
        self._revision = Gauge(
            "llmroute_config_revision_info", "The revision that is served.", ["revision"], registry=registry
        )
        self.config_healthy = Gauge(
            "llmroute_config_healthy", "1 while the newest configuration is served whole.", registry=registry
        )
        self.config_changed = Gauge(
            "llmroute_config_last_change_timestamp_seconds", "When the served revision last changed.", registry=registry
        )
        self.truncated = Counter(
            "llmroute_streams_truncated_total", "Answers that an upstream broke off half-way.", registry=registry
        )
        self._price_unknown = CounterSeries(
            "llmroute_price_unknown_total",
            "Calls that a budget counted nothing of, as the price of the model that served is not known.",
            ("model",),
            registry,
        )
        self.usage_estimated = CounterSeries(
            "llmroute_usage_estimated_total",
            "Calls whose usage was settled by estimate: the answer was cut short, or did not tell it.",
            (),
            registry,
        )
        gen_ai = GenAiMetrics(registry)
        tokens = CounterSeries(
            "llmroute_tokens_total",
            "Tokens used, by the model asked for and the upstream that served; estimated is true for the part of an "
            "answer that was cut short, or did not tell its usage.",
            ("model", "upstream", "type", "estimated"),
            registry,
        )
        cost = CounterSeries(
            "llmroute_cost_usd_total",
            "Cost in US dollars of what was used, where the price of the model that served is known.",
            ("model", "upstream"),
            registry,
        )
        self.calls = AllCallSeries(gen_ai, tokens, cost)
        overhead = HistogramSeries(
            "llmroute_overhead_seconds",
            "What requests that came to an upstream took beside their attempts and the pauses between them.",
            (),
            OVERHEAD_BUCKETS,
            registry,
        )
        self.overhead = overhead.at(())
        self._candidates = CounterSeries(
            "llmroute_attempts_total",
            "What came of each candidate that a request came to: served, why the attempt failed, or why none was made; "
            "the reasons are those of an error's attempts.",
            ("upstream", "reason"),
            registry,
        )
        self.spans_exported = CounterSeries(
            "llmroute_spans_exported_total", "Spans that the OTLP collector took.", (), registry
        )
        self.spans_dropped = CounterSeries(
            "llmroute_spans_dropped_total",
            "Spans that were not delivered, by why: queue_full, refused (by the collector), shutdown, fault (our own).",
            ("reason",),
            registry,
        )
        self.shared_state_up = SharedStateUp()
        registry.register(self.shared_state_up)
        self.shared_state_errors = CounterSeries(
            "llmroute_shared_state_errors_total",
            "Troubles with the shared state, by a word: timeout, connection_lost, password_wrong and so on.",
            ("reason",),
            registry,
        )
        round_trip = HistogramSeries(
            "llmroute_shared_state_round_trip_seconds",
            "From asking the shared state until it has answered.",
            (),
            OVERHEAD_BUCKETS,
            registry,
        )
        self.shared_state_round_trip = round_trip.at(())
        self.shared_state_fallbacks = CounterSeries(
            "llmroute_shared_state_fallbacks_total",
            "Calls whose limits of scope Gateway could not be counted together: fail_open (counted in the pod), "
            "fail_closed (refused).",
            ("decision",),
            registry,
        )
        self.shared_state_lost = CounterSeries(
            "llmroute_shared_state_settlements_lost_total",
            "Settlements that the shared state did not come to know of, as it was away for too long.",
            (),
            registry,
        )
        Gauge("llmroute_build_info", "Always 1.", ["version"], registry=registry).labels(version).set(1)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        if method not in METHODS:
            method = "other"
        key = (method, path, status)
        found = self._answered.get(key)
        if found is None:
            found = self._requests.at((method, path, str(status))), self._latency.at((method, path))
            self._answered[key] = found
        found[0].value += 1.0
        found[1].observe(seconds)

    def attempt(self, upstream: str, status: int | str, seconds: float) -> None:
        key = (upstream, status)
        found = self._attempted.get(key)
        if found is None:
            found = self._upstream_requests.at((upstream, str(status))), self._upstream_latency.at((upstream,))
            self._attempted[key] = found
        found[0].value += 1.0
        found[1].observe(seconds)

    def price_unknown(self, model: str) -> None:
        """`model` is a configured name, or `other`."""
        self._price_unknown.add((model,))

    def watch_limits(self, standings: Callable[[], Iterable[LimitStanding]]) -> None:
        """Has what is left of the limits read at each scrape."""
        self.registry.register(_Limits(standings))

    def came_of(self, upstream: str, reason: str) -> None:
        """What came of a candidate; `reason` is of a bounded set of words."""
        self._candidates.add((upstream, reason))

    def circuit_open(self, upstream: str) -> None:
        self._circuit_open.labels(upstream).inc()

    def retry_refused(self, upstream: str) -> None:
        self._retries_refused.labels(upstream).inc()

    def fallback_used(self, from_model: str, to_model: str) -> None:
        self._fallback_used.labels(from_model, to_model).inc()

    def reload(self, result: str) -> None:
        self._reloads.labels(result).inc()

    def serves(self, revision: str, since: float) -> None:
        """Says which revision is served; there is one series, not one for each that ever was."""
        self._revision.clear()
        self._revision.labels(revision).set(1)
        self.config_changed.set(since)

    def watch_breakers(self, states: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Has the breakers' states read at each scrape: (upstream, state). A name may stand there more than once, for
        upstreams of several routes: the worst state is told, as two samples of one series would spoil the scrape."""
        self.registry.register(_Breakers(states))

    def exposition(self) -> bytes:
        return self.registry.exposition()


class SharedStateUp(Collector):
    """Told only where there is a server to be up: an alert on 0 is then no matter of gateways that need none."""

    def __init__(self) -> None:
        self.value: bool | None = None
        """None: no server is configured."""

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "llmroute_shared_state_up",
            "1 while the server that counts limits of scope Gateway answers in time; told where one is configured.",
        )
        if self.value is not None:
            family.add_metric([], self.value)
        yield family

    def describe(self) -> Iterator[Metric]:
        return iter(())


class _Limits(Collector):
    def __init__(self, standings: Callable[[], Iterable[LimitStanding]]) -> None:
        self._standings = standings

    def collect(self) -> Iterator[Metric]:
        remaining = GaugeMetricFamily(
            "llmroute_limit_remaining",
            "What is left of a limit to the key (client, model, upstream) that has the least: requests, tokens, slots "
            "or US dollars.",
            labels=["route", "limit", "kind"],
        )
        waiting = GaugeMetricFamily(
            "llmroute_limit_waiting", "Calls in line for a limit's slots.", labels=["route", "limit"]
        )
        for standing in self._standings():
            remaining.add_metric([standing.route, standing.limit, standing.kind], standing.remaining)
            if standing.kind == "concurrency":
                waiting.add_metric([standing.route, standing.limit], standing.waiting)
        yield remaining
        yield waiting

    def describe(self) -> Iterator[Metric]:
        return iter(())


class _Breakers(Collector):
    def __init__(self, states: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("llmroute_breaker_state", "0 closed, 1 half open, 2 open.", labels=["upstream"])
        worst: dict[str, int] = {}
        for upstream, state in self._states():
            worst[upstream] = max(worst.get(upstream, 0), BREAKER_STATES[state])
        for upstream, value in worst.items():
            family.add_metric([upstream], value)
        yield family

    def describe(self) -> Iterator[Metric]:
        return iter(())

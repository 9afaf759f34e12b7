"""Counters and histograms that cost little to count with: dicts and lists, read when Prometheus asks.

prometheus_client's own take a lock and walk the buckets at each observation, some 8 µs of a request's 60; these take
about one. They belong to one thread, the event loop's, which also serves the scrape. How a metric looks outside stays
prometheus_client's: they are collectors of its families.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class CounterSeries(Collector):
    """Counts by label values. `name` without `_total`, which the exposition adds."""

    __slots__ = ("_counts", "_help", "_labels", "_name")

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._help, self._labels = name.removesuffix("_total"), text, labels
        self._counts: dict[Labels, float] = {} if labels else {(): 0.0}
        registry.register(self)

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        counts = self._counts
        counts[labels] = counts.get(labels, 0.0) + amount

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family

    def describe(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._help, labels=self._labels)


class HistogramSeries(Collector):
    """Observations by label values, in buckets with the given upper bounds (included, as Prometheus has it)."""

    __slots__ = ("_bounds", "_help", "_labels", "_name", "_rows", "_sums")

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._help, self._labels = name, text, labels
        self._bounds = tuple(map(float, bounds))
        self._rows: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        registry.register(self)

    def observe(self, labels: Labels, value: float) -> None:
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        row[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, row in self._rows.items():
            total = 0
            buckets = []
            for name, count in zip(names, row, strict=True):
                total += count
                buckets.append((name, float(total)))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family

    def describe(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(self._name, self._help, labels=self._labels)

"""Counters and histograms that cost little to count with and to tell: dicts and lists, read when Prometheus asks.

prometheus_client's own take a lock and walk the buckets at each observation, some 8 µs of a request's 60; these take
about one. They belong to one thread, the event loop's, which also serves the scrape; so that must be short too: of a
thousand models there are 80,000 samples, for which prometheus_client stops the loop for most of a second, `text` for a
tenth of that. How a metric looks outside stays prometheus_client's: they are collectors of its families, and
`text` says what its exposition says.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Series(Collector):
    """What both kinds have in common."""

    __slots__ = ("_help", "_name", "labels")

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._help, self.labels = name, text, tuple(labels)
        registry.register(self)

    def text(self) -> str:
        """This metric in Prometheus' text format, version 0.0.4."""
        raise NotImplementedError

    def _head(self, name: str, kind: str) -> str:
        told = self._help.replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {name} {told}\n# TYPE {name} {kind}\n"

    def _label_text(self, values: Labels) -> str:
        return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(self.labels, values, strict=True))


class Count:
    """One counter. Whoever counts often keeps it, and spares the look-up."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount


class CounterSeries(Series):
    """Counts by label values."""

    __slots__ = ("_counts",)

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._counts: dict[Labels, Count] = {} if labels else {(): Count()}
        super().__init__(name.removesuffix("_total"), text, labels, registry)

    def at(self, labels: Labels) -> Count:
        """The counter with these label values; it is told from now on."""
        count = self._counts.get(labels)
        if count is None:
            count = self._counts[labels] = Count()
        return count

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        self.at(labels).value += amount

    def text(self) -> str:
        name = f"{self._name}_total"
        lines = [self._head(name, "counter")]
        for labels, count in self._counts.items():
            told = f"{{{self._label_text(labels)}}}" if labels else ""
            lines.append(f"{name}{told} {count.value!r}\n")
        return "".join(lines)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._help, labels=self.labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count.value)
        yield family

    def describe(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._help, labels=self.labels)


class Row:
    """One histogram. Whoever observes often keeps it, and spares the look-up."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class HistogramSeries(Series):
    """Observations by label values, in buckets with the given upper bounds (included, as Prometheus has it)."""

    __slots__ = ("_bounds", "_edges", "_rows")

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._bounds = tuple(map(float, bounds))
        self._edges = (*map(floatToGoString, self._bounds), "+Inf")
        self._rows: dict[Labels, Row] = {}
        super().__init__(name, text, labels, registry)

    def at(self, labels: Labels) -> Row:
        """The histogram with these label values; it is told from now on."""
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = Row(self._bounds)
        return row

    def observe(self, labels: Labels, value: float) -> None:
        self.at(labels).observe(value)

    def text(self) -> str:
        name, edges = self._name, self._edges
        lines = [self._head(name, "histogram")]
        for labels, row in self._rows.items():
            told = self._label_text(labels)
            begin = f"{name}_bucket{{{told}," if told else f"{name}_bucket{{"
            total = 0
            for edge, count in zip(edges, row.counts, strict=True):
                total += count
                lines.append(f'{begin}le="{edge}"}} {total}.0\n')
            told = f"{{{told}}}" if told else ""
            lines.append(f"{name}_count{told} {total}.0\n{name}_sum{told} {row.sum!r}\n")
        return "".join(lines)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self.labels)
        for labels, row in self._rows.items():
            total = 0
            buckets = []
            for edge, count in zip(self._edges, row.counts, strict=True):
                total += count
                buckets.append((edge, float(total)))
            family.add_metric(labels, buckets, row.sum)
        yield family

    def describe(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(self._name, self._help, labels=self.labels)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

"""The registry of everything that this process tells, which can also be read like a list: docs/metrics.md is made of
it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from llmroute_sidecar.telemetry.series import Series


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as Prometheus sees it."""

    name: str
    kind: str
    labels: Sequence[str]
    text: str


class Catalogue(CollectorRegistry):
    """A registry that keeps the order of what is registered, and tells our own series fast (series.py)."""

    def __init__(self) -> None:
        super().__init__()
        self._series: list[Series] = []
        self._others = _Collectors()

    def register(self, collector: Collector) -> None:
        super().register(collector)
        if isinstance(collector, Series):
            self._series.append(collector)
        else:
            self._others.append(collector)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format, version 0.0.4."""
        return "".join(series.text() for series in self._series).encode() + generate_latest(self._others)

    def described(self) -> list[Described]:
        """What there is to know of each metric but its values."""
        found = []
        for collector in (*self._series, *self._others):
            for family in collector.collect():
                # prometheus_client keeps the labels of its own metrics there, and those of families.
                labels: Sequence[str] = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found.append(Described(name, family.type, tuple(labels), family.documentation))
        return found


class _Collectors(list[Collector]):
    """Of the other kind, as one."""

    def collect(self) -> Iterator[Metric]:
        for collector in self:
            yield from collector.collect()

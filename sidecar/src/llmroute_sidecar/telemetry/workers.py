"""What the processes behind litellm:// upstreams take and how often they were started anew, read at each scrape."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class WorkerSeries(Collector):
    """`read` gives (upstream, resident bytes, restarts) of each worker. A name may stand there more than once, for
    upstreams of several routes: they are added up, as two samples of one series would spoil the scrape."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "llmroute_litellm_worker_resident_bytes",
            "Resident memory of the process behind a litellm:// upstream; 0 while there is none.",
            labels=["upstream"],
        )
        restarts = CounterMetricFamily(
            "llmroute_litellm_worker_restarts",
            "Starts of that process after an end that nobody asked for.",
            labels=["upstream"],
        )
        sums: dict[str, tuple[int, int]] = {}
        for upstream, resident, started in self._read():
            before = sums.get(upstream, (0, 0))
            sums[upstream] = (before[0] + resident, before[1] + started)
        for upstream, (resident, started) in sums.items():
            memory.add_metric([upstream], resident)
            restarts.add_metric([upstream], started)
        yield memory
        yield restarts

    def describe(self) -> Iterator[Metric]:
        return iter(())

"""What the process holds: tasks and connections, counted at each scrape. Once all calls are over it is as before."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class HeldSeries(Collector):
    """How many tasks there are, and how many connections are open to each side."""

    def __init__(self, tasks: Callable[[], int], clients: Callable[[], int], upstreams: Callable[[], int]) -> None:
        self._tasks = tasks
        self._clients = clients
        self._upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "llmroute_tasks",
            "Tasks of the event loop that are not done: a few of its own, one for each call, and for each look at it.",
            value=self._tasks(),
        )
        connections = GaugeMetricFamily(
            "llmroute_connections",
            "Open connections: of clients at the data port (client), and to upstreams, with those kept for the next "
            "call (upstream).",
            labels=["side"],
        )
        connections.add_metric(["client"], self._clients())
        connections.add_metric(["upstream"], self._upstreams())
        yield connections

    def describe(self) -> Iterator[Metric]:
        return iter(())

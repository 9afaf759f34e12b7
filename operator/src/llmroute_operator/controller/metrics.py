"""The controller's own metrics. Owns names, labels and buckets; who observes what stands where it happens."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

WriteKind = Literal["ConfigMap", "LLMRouteStatus", "PodStatus", "Secret", "MutatingWebhookConfiguration"]
ReconcileResult = Literal["success", "error"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._queue_depth = self._gauge("queue_depth", "Gateways that wait to be reconciled.")
        self._running = self._gauge("reconciles_running", "Gateways that are being reconciled.")
        self._routes = self._gauge("routes", "LLMRoutes that the controller knows.")
        self._silence = Gauge(
            "llmroute_controller_watch_silence_seconds",
            "Seconds since a watch last got data: a list, an event, a bookmark.",
            ["watch"],
            registry=self.registry,
        )
        self._last_relist = self._gauge("last_relist_timestamp_seconds", "When all was last read from the API server.")
        self._relists = self._counter("relists", "Full reads of all routes and ConfigMaps.", "result")
        self._reconciles = self._counter("reconciles", "Reconciled gateways.", "result")
        self._writes = self._counter("writes", "Writes to the API server that it took.", "kind")
        self._asked = self._counter("pod_questions", "Times that a pod's gateway was asked for its status.", "result")
        self._seconds = Histogram(
            "llmroute_controller_reconcile_seconds",
            "Time to reconcile one gateway.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        Info("llmroute_controller_build", "The running version.", registry=self.registry).info({"version": version})
        for result in ("success", "error"):
            self._reconciles.labels(result)
            self._relists.labels(result)
            self._asked.labels(result)
        for kind in get_args(WriteKind):
            self._writes.labels(kind)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"llmroute_controller_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"llmroute_controller_{name}", text, [label], registry=self.registry)

    def show(self, queue_depth: Callable[[], float], running: Callable[[], float], routes: Callable[[], float]) -> None:
        """These are read when somebody asks."""
        self._queue_depth.set_function(queue_depth)
        self._running.set_function(running)
        self._routes.set_function(routes)

    def show_silence(self, watch: str, seconds: Callable[[], float]) -> None:
        self._silence.labels(watch).set_function(seconds)

    def show_pods(self, counts: Callable[[], Mapping[str, int]], without: Callable[[], Mapping[str, int]]) -> None:
        self.registry.register(_Pods(counts, without))

    def show_troubles(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """By namespace and condition."""
        self.registry.register(_Troubles(read))

    def asked(self, result: ReconcileResult) -> None:
        self._asked.labels(result).inc()

    def reconciled(self, result: ReconcileResult, seconds: float) -> None:
        self._reconciles.labels(result).inc()
        self._seconds.observe(seconds)

    def relisted(self, result: ReconcileResult, now: float) -> None:
        self._relists.labels(result).inc()
        if result == "success":
            self._last_relist.set(now)

    def wrote(self, kind: WriteKind) -> None:
        self._writes.labels(kind).inc()

    def show_certificate(self) -> None:
        """From here on there is one to tell of."""
        self._certificate_looks = self._counter(
            "injector_certificate_looks", "Looks at the injector's certificate.", "result"
        )
        for result in ("success", "error"):
            self._certificate_looks.labels(result)

    def certificate_looked(self, result: ReconcileResult) -> None:
        self._certificate_looks.labels(result).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Pods(Collector):
    """Read when somebody asks. Only namespaces that have such a pod are labels."""

    def __init__(self, counts: Callable[[], Mapping[str, int]], without: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts
        self._without = without

    def collect(self) -> Iterator[Metric]:
        pods = GaugeMetricFamily(
            "llmroute_controller_pods", "Pods with a gateway, by how they stand to its revision.", labels=["state"]
        )
        for state, count in self._counts().items():
            pods.add_metric([state], count)
        yield pods
        without = GaugeMetricFamily(
            "llmroute_controller_pods_without_gateway",
            "Pods that ask for a gateway and have none.",
            labels=["namespace"],
        )
        for namespace, count in self._without().items():
            without.add_metric([namespace], count)
        yield without


class _Troubles(Collector):
    def __init__(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "llmroute_controller_routes_in_trouble",
            "LLMRoutes whose status tells of something wrong, by the condition that tells it.",
            labels=["namespace", "condition"],
        )
        for labels, count in self._read().items():
            family.add_metric(labels, count)
        yield family

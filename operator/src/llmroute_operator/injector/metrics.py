"""The injector's own metrics. Owns names, labels and buckets."""

from collections.abc import Callable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

Result = Literal["injected", "unchanged", "denied", "bad_request", "error", "overloaded"]
Loaded = Literal["success", "error"]
Input = Literal["certificate", "settings"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._admissions = self._counter("admissions", "Admission requests answered.", "result")
        self._loads = Counter(
            "llmroute_injector_loads",
            "Readings of the certificate and of the settings that had changed.",
            ["input", "result"],
            registry=self.registry,
        )
        self._good = Gauge(
            "llmroute_injector_input_good",
            "1 while what is in use is what the file says; 0 while an older one is used, because the file is no good.",
            ["input"],
            registry=self.registry,
        )
        self._certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that this injector serves ends, whoever made it; 0 where it has none yet.",
        )
        self._in_flight = self._gauge("admissions_in_flight", "Admission requests under way.")
        self._routes = self._gauge("routes", "LLMRoutes that the injector knows.")
        self._silence = self._gauge("watch_silence_seconds", "Seconds since the watch of LLMRoutes last got data.")
        self._watch_began = self._gauge(
            "last_watch_timestamp_seconds",
            "When the API server last took up the watch of LLMRoutes, which begins anew every two minutes; 0: never.",
        )
        self._last_relist = self._gauge(
            "last_relist_timestamp_seconds", "When all LLMRoutes were last read from the API server; 0: never."
        )
        self._relists = self._counter("relists", "Full reads of all LLMRoutes.", "result")
        self._seconds = Histogram(
            "llmroute_injector_admission_seconds",
            "Time in the webhook for one admission, from its last byte in to its answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        Info("llmroute_injector_build", "The running version.", registry=self.registry).info({"version": version})
        for result in get_args(Result):
            self._admissions.labels(result)
        for loaded in get_args(Loaded):
            self._relists.labels(loaded)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"llmroute_injector_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"llmroute_injector_{name}", text, [label], registry=self.registry)

    def show_in_flight(self, count: Callable[[], float]) -> None:
        """Read when somebody asks, as are those below."""
        self._in_flight.set_function(count)

    def show_certificate(self, expiry: Callable[[], float]) -> None:
        self._certificate_expiry.set_function(expiry)

    def show_routes(
        self, count: Callable[[], float], silence: Callable[[], float], watch_began: Callable[[], float]
    ) -> None:
        self._routes.set_function(count)
        self._silence.set_function(silence)
        self._watch_began.set_function(watch_began)

    def relisted(self, result: Loaded, now: float) -> None:
        self._relists.labels(result).inc()
        if result == "success":
            self._last_relist.set(now)

    def admitted(self, result: Result, seconds: float) -> None:
        self._admissions.labels(result).inc()
        self._seconds.observe(seconds)

    def turned_away(self, result: Result) -> None:
        self._admissions.labels(result).inc()

    def loaded(self, what: Input, result: Loaded) -> None:
        self._loads.labels(what, result).inc()
        self._good.labels(what).set(result == "success")

    def text(self) -> bytes:
        return generate_latest(self.registry)

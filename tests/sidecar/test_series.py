"""Our own counters look to Prometheus as prometheus_client's do."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from llmroute_sidecar.telemetry.series import CounterSeries, HistogramSeries

BOUNDS = (0.005, 0.1, 1, 10, 600)
LABELS = st.tuples(st.sampled_from(["GET", "POST"]), st.sampled_from(["/v1/*", 'a"b\\c\nd']))
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1000))


def samples(registry: CollectorRegistry) -> list[str]:
    """Without `_created`, which tells when the process began."""
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


@given(st.lists(st.tuples(LABELS, VALUES), min_size=1, max_size=30))
def test_both_tell_the_same_of_the_same_observations(observed: list[tuple[tuple[str, str], float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter = CounterSeries("seen_total", "Seen.", ("method", "path"), ours)
    histogram = HistogramSeries("took_seconds", "Took.", ("method", "path"), BOUNDS, ours)
    their_counter = Counter("seen_total", "Seen.", ["method", "path"], registry=theirs)
    their_histogram = Histogram("took_seconds", "Took.", ["method", "path"], buckets=BOUNDS, registry=theirs)
    for labels, value in observed:
        counter.add(labels)
        histogram.observe(labels, value)
        their_counter.labels(*labels).inc()
        their_histogram.labels(*labels).observe(value)
    assert samples(ours) == samples(theirs)

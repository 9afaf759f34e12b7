"""Our own counters look to Prometheus as prometheus_client's do."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llmroute_sidecar.telemetry.series import CounterSeries, HistogramSeries

BOUNDS = (0.005, 0.1, 1, 10, 600, 16384, 67108864)
LABELS = st.tuples(st.sampled_from(["GET", "POST"]), st.sampled_from(["/v1/*", 'a"b\\c\nd', ""]))
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1000))


def samples(text: str) -> dict[tuple[object, ...], float]:
    """Without `_created`, which tells when the process began."""
    return {
        (family.name, family.type, family.documentation, sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(LABELS, VALUES), min_size=1, max_size=30))
def test_both_tell_the_same_of_the_same_observations(observed: list[tuple[tuple[str, str], float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter = CounterSeries("seen_total", "Seen \\ and\ntold.", ("method", "path"), ours)
    histogram = HistogramSeries("took_seconds", "Took.", ("method", "path"), BOUNDS, ours)
    bare = CounterSeries("bare_total", "Bare.", (), ours)
    bare_histogram = HistogramSeries("bare_seconds", "Bare.", (), BOUNDS, ours)
    their_counter = Counter("seen_total", "Seen \\ and\ntold.", ["method", "path"], registry=theirs)
    their_histogram = Histogram("took_seconds", "Took.", ["method", "path"], buckets=BOUNDS, registry=theirs)
    their_bare = Counter("bare_total", "Bare.", registry=theirs)
    their_bare_histogram = Histogram("bare_seconds", "Bare.", buckets=BOUNDS, registry=theirs)
    for labels, value in observed:
        counter.add(labels)
        histogram.observe(labels, value)
        bare.add((), value)
        bare_histogram.observe((), value)
        their_counter.labels(*labels).inc()
        their_histogram.labels(*labels).observe(value)
        their_bare.inc(value)
        their_bare_histogram.observe(value)
    expected = samples(generate_latest(theirs).decode())
    assert samples(generate_latest(ours).decode()) == expected
    assert samples("".join(one.text() for one in (counter, histogram, bare, bare_histogram))) == expected

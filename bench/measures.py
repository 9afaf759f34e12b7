"""What is told of a run, row by row, and the median of each over the rounds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.contenders import OURS
from bench.rounds import DIRECT, Visit

PEERS = ("envoy", "portkey", "litellm", "nginx")
DISTURBED = 0.1
CEILING = "nginx"
"""No policy at all: nobody is to be ahead of it."""


@dataclass(frozen=True, slots=True)
class Measure:
    key: str
    title: str
    form: str
    less: str = ""
    """The stand-in's own measure, of the same round, to take off."""
    more_is_better: bool = False
    ratio: bool = True
    summed: bool = False
    """Over all rounds, instead of their median."""
    longest: bool = False
    """Of all rounds, instead of their median."""
    paced: bool = False
    """Depends on how many paced streams there were."""


MEASURES = (
    Measure("rps", "requests/s, 32 connections", ",.0f", more_is_better=True),
    Measure("busy", "— its core busy", ".0%", ratio=False),
    Measure("rps_per_cpu_second", "— per second of its CPU", ",.0f", more_is_better=True),
    Measure("p50_us", "added latency p50, 1 connection (µs)", ",.0f", less="p50_us"),
    Measure("p99_us", "added latency p99, 1 connection (µs)", ",.0f", less="p99_us"),
    Measure("ready_ms", "exec to ready (ms)", ",.0f"),
    Measure("idle_mib", "RSS idle (MiB)", ".1f"),
    Measure("loaded_mib", "RSS after load (MiB)", ".1f"),
    Measure("chunks_per_second", "stream chunks/s, at full speed (chunks clump)", ",.0f", more_is_better=True),
    Measure("stream_mib_per_second", "— MiB/s", ".1f", ratio=False),
    Measure("stream_busy", "— its core busy", ".0%", ratio=False),
    Measure("chunks_per_cpu_second", "— chunks per second of its CPU", ",.0f", more_is_better=True),
    Measure("paced_streams", "paced streams at once", ",.0f", ratio=False),
    Measure("first_p50_ms", "— first chunk added p50 (ms)", ".2f", less="first_p50_ms", paced=True),
    Measure("first_p99_ms", "— first chunk added p99 (ms)", ".2f", less="first_p99_ms", paced=True),
    Measure("chunk_p50_ms", "— each chunk added p50 (ms)", ".2f", less="chunk_p50_ms", paced=True),
    Measure("chunk_p99_ms", "— each chunk added p99 (ms)", ".2f", less="chunk_p99_ms", paced=True),
    Measure("streams_mib", "— RSS at most (MiB)", ".1f", paced=True),
    Measure("cpu_per_chunk_us", "— CPU per chunk, its share of the request included (µs)", ".1f"),
    Measure("streams_broken", "— streams that broke, all rounds", ".0f", ratio=False, summed=True),
    Measure("errors", "errors, all rounds", ".0f", ratio=False, summed=True),
)

RELOAD_MEASURES = (
    Measure("reload_rps", "requests/s, 32 connections", ",.0f", more_is_better=True),
    Measure("reload_rps_share", "— of what it was a moment before without changes", ".0%", ratio=False),
    Measure("reload_rps_per_cpu_second", "— per second of its CPU", ",.0f", more_is_better=True),
    Measure("reload_rps_per_cpu_share", "— of what that was without changes", ".0%", ratio=False),
    Measure("reload_p50_us", "added latency p50, 1 connection (µs)", ",.0f", less="p50_us"),
    Measure("reload_p99_us", "added latency p99, 1 connection (µs)", ",.0f", less="p99_us"),
    Measure("reload_first_p50_ms", "{reload_streams} paced streams: first chunk p50 (ms)", ".2f"),
    Measure("reload_chunk_p99_ms", "— each chunk p99 (ms)", ".2f"),
    Measure("quiet_probe_p99_ms", "2,000 requests/s: p99 without changes (ms)", ".2f"),
    Measure("reload_probe_p99_ms", "— with", ".2f"),
    Measure("quiet_longest_ms", "— the longest anybody waited, without changes (ms)", ".1f", longest=True, ratio=False),
    Measure("reload_longest_ms", "— with", ".1f", longest=True, ratio=False),
    Measure("reload_errors", "errors and broken streams, all rounds", ".0f", ratio=False, summed=True),
    Measure("reload_changes", "changes made, all rounds", ".0f", ratio=False, summed=True),
    Measure("reload_taken", "— taken up, by its own count", ".0f", ratio=False, summed=True),
    Measure("large_quiet_longest_ms", "{models} models, the longest wait without changes (ms)", ".1f", longest=True),
    Measure("large_longest_ms", "— with all of them changed each second", ".1f", longest=True),
    Measure("large_longest_median_ms", "— with, median of rounds", ".1f"),
    Measure("large_errors", "— errors, all rounds", ".0f", ratio=False, summed=True),
    Measure("large_changes", "— changes made, all rounds", ".0f", ratio=False, summed=True),
    Measure("large_taken", "— taken up", ".0f", ratio=False, summed=True),
    Measure("large_mib", "— RSS afterwards (MiB)", ".1f"),
)

Medians = Mapping[str, Mapping[str, float]]
"""contender -> measure -> value"""


def is_disturbed(visit: Visit) -> bool:
    """Whether others had more than a tenth of the contender's core."""
    return visit.values.get("others", 0.0) > DISTURBED


def medians(visits: Sequence[Visit]) -> dict[str, dict[str, float]]:
    """Each measure over the rounds that nobody disturbed; over all where there is none such. Sums are over all."""
    direct = {visit.round: visit.values for visit in visits if visit.contender == DIRECT}
    usual = {key: _usual(direct.values(), key) for key in {measure.less for measure in (*MEASURES, *RELOAD_MEASURES)}}
    names = list(dict.fromkeys(visit.contender for visit in visits))
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        for measure in (*MEASURES, *RELOAD_MEASURES):
            key = measure.key.replace("_median", "")
            own = [visit for visit in visits if visit.contender == name and key in visit.values]
            calm = [visit for visit in own if not is_disturbed(visit)]
            samples = [
                visit.values[key]
                - (direct.get(visit.round, {}).get(measure.less, usual[measure.less]) if name != DIRECT else 0.0)
                for visit in (own if measure.summed else calm or own)
            ]
            if samples:
                whole = sum if measure.summed else max if measure.longest else statistics.median
                found[name][measure.key] = whole(samples)
    return found


def _usual(visits: Iterable[Mapping[str, float]], key: str) -> float:
    """For rounds in which it was not measured: their median; nothing where there is no such measure."""
    samples = [values[key] for values in visits if key in values]
    return statistics.median(samples) if samples else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours ÷ theirs."""

    ratio: float
    ahead: bool


def compare(found: Medians, measure: Measure, peer: str) -> Comparison | None:
    """None where there is nothing to compare: not measured, below what can be told apart, or not asked as much."""
    ours, theirs = found[OURS].get(measure.key), found[peer].get(measure.key)
    if not measure.ratio or ours is None or theirs is None or ours <= 0 or theirs <= 0:
        return None
    if measure.paced and found[OURS].get("paced_streams") != found[peer].get("paced_streams"):
        return None
    return Comparison(ours / theirs, ours > theirs if measure.more_is_better else ours < theirs)


def full_title(measure: Measure) -> str:
    """Alone, without the row above that it is a part of."""
    if not measure.title.startswith("—"):
        return measure.title
    above = reversed(MEASURES[: MEASURES.index(measure)])
    parent = next(one.title for one in above if not one.title.startswith("—"))
    return f"{parent.split(',')[0]} {measure.title}"

"""The report: medians over rounds, ratios, the table in Markdown and everything in JSON.

Owns the wording, measures nothing.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rounds import DIRECT, Plan, Visit

OURS = "llmroute"
PEERS = ("envoy", "nginx")
_NOISY = 0.05


@dataclass(frozen=True, slots=True)
class Measure:
    key: str
    title: str
    form: str
    added: bool = False
    """Less the stand-in's own, of the same round."""
    ratio: bool = True


MEASURES = (
    Measure("rps", "requests/s, 32 connections", ",.0f"),
    Measure("busy", "— its core busy", ".0%", ratio=False),
    Measure("rps_per_cpu_second", "— per second of its CPU", ",.0f"),
    Measure("p50_us", "added latency p50, 1 connection (µs)", ",.0f", added=True),
    Measure("p99_us", "added latency p99, 1 connection (µs)", ",.0f", added=True),
    Measure("ready_ms", "exec to ready (ms)", ",.0f"),
    Measure("idle_mib", "RSS idle (MiB)", ".1f"),
    Measure("loaded_mib", "RSS after load (MiB)", ".1f"),
    Measure("chunks_per_second", "stream chunks/s, 32 streams at full speed (chunks clump)", ",.0f"),
    Measure("stream_mib_per_second", "— MiB/s", ".1f"),
    Measure("stream_busy", "— its core busy", ".0%", ratio=False),
    Measure("chunks_per_cpu_second", "— chunks per second of its CPU", ",.0f"),
    Measure("first_p50_ms", "{streams} paced streams: first chunk added p50 (ms)", ".2f", added=True),
    Measure("first_p99_ms", "— first chunk added p99 (ms)", ".2f", added=True),
    Measure("chunk_p50_ms", "— each chunk added p50 (ms)", ".2f", added=True),
    Measure("chunk_p99_ms", "— each chunk added p99 (ms)", ".2f", added=True),
    Measure("streams_mib", "— RSS at most (MiB)", ".1f"),
    Measure("cpu_per_chunk_us", "— CPU per chunk, its share of the request included (µs)", ".1f"),
    Measure("errors", "errors, all rounds", ".0f", ratio=False),
)

Medians = Mapping[str, Mapping[str, float]]
"""contender -> measure -> value"""


def medians(visits: Sequence[Visit]) -> dict[str, dict[str, float]]:
    direct = {visit.round: visit.values for visit in visits if visit.contender == DIRECT}
    names = list(dict.fromkeys(visit.contender for visit in visits))
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        own = [visit for visit in visits if visit.contender == name]
        for measure in MEASURES:
            samples = [
                visit.values[measure.key]
                - (direct.get(visit.round, {}).get(measure.key, 0.0) if measure.added and name != DIRECT else 0.0)
                for visit in own
                if measure.key in visit.values
            ]
            if samples:
                found[name][measure.key] = sum(samples) if measure.key == "errors" else statistics.median(samples)
    return found


def table(found: Medians, plan: Plan) -> str:
    """One row a measure, one column a contender, then the ratios of ours to each peer."""
    columns = [name for name in ("nginx", "envoy", OURS) if name in found]
    ratios = [peer for peer in PEERS if OURS in found and peer in found]
    heads = ["", *columns, f"{DIRECT} (absolute)", *(f"{OURS} ÷ {peer}" for peer in ratios)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for measure in MEASURES:
        cells = [measure.title.format(streams=plan.pace.streams)]
        cells += [_cell(found.get(name, {}).get(measure.key), measure.form) for name in (*columns, DIRECT)]
        cells += [_ratio(found, measure, peer) for peer in ratios]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ratio(found: Medians, measure: Measure, peer: str) -> str:
    ours, theirs = found[OURS].get(measure.key), found[peer].get(measure.key)
    if not measure.ratio or ours is None or theirs is None or ours <= 0 or theirs <= 0:
        return ""
    return f"{ours / theirs:.2f}x"


Bar = tuple[str, Callable[[Medians], bool]]

_BARS: tuple[Bar, ...] = (
    ("requests/s ahead of Envoy", lambda m: m[OURS]["rps"] > m["envoy"]["rps"]),
    ("requests/s ≥ 1.3x Envoy (aim)", lambda m: m[OURS]["rps"] >= 1.3 * m["envoy"]["rps"]),
    ("added p50 below Envoy's", lambda m: m[OURS]["p50_us"] < m["envoy"]["p50_us"]),
    ("added p99 below Envoy's", lambda m: m[OURS]["p99_us"] < m["envoy"]["p99_us"]),
    ("added p50 ≤ 150 µs (aim)", lambda m: m[OURS]["p50_us"] <= 150),
    ("idle ≤ 60 MiB", lambda m: m[OURS]["idle_mib"] <= 60),
    ("idle below Envoy's", lambda m: m[OURS]["idle_mib"] < m["envoy"]["idle_mib"]),
    ("idle ≤ 45 MiB (aim)", lambda m: m[OURS]["idle_mib"] <= 45),
    ("ready ≤ 1.0 s", lambda m: m[OURS]["ready_ms"] <= 1000),
    ("ready ≤ 0.5 s (aim)", lambda m: m[OURS]["ready_ms"] <= 500),
    ("streams ≤ 150 MiB", lambda m: m[OURS]["streams_mib"] <= 150),
    ("streams ≤ 100 MiB (aim)", lambda m: m[OURS]["streams_mib"] <= 100),
    ("first chunk + ≤ 1 ms p50", lambda m: m[OURS]["first_p50_ms"] <= 1),
)


def bars(found: Medians) -> str:
    """The project's bars, for the reader; nothing fails on them."""
    lines = []
    for title, holds in _BARS:
        try:
            lines.append(f"- {'met    ' if holds(found) else 'NOT met'}  {title}")
        except KeyError:
            lines.append(f"- no word  {title}")
    return "\n".join(lines)


def caveats(visits: Sequence[Visit], busy_before: float) -> list[str]:
    """What a reader must know before believing the numbers."""
    told = []
    if busy_before > _NOISY:
        told.append(f"before it began, the machine was {busy_before:.0%} busy with other work")
    others = statistics.median(visit.values.get("others", 0.0) for visit in visits) if visits else 0.0
    if others > _NOISY:
        told.append(f"others took {others:.0%} of the contenders' core: these numbers are noise")
    for name, values in medians(visits).items():
        for key, what in (("busy", "requests/s"), ("stream_busy", "chunks/s")):
            if values.get(key, 1.0) < 0.95:
                told.append(
                    f"{name} was {values[key]:.0%} busy at {what}: the rig or other work set the pace; read its CPU row"
                )
    return told


def write(
    out: Path, visits: Sequence[Visit], facts: Mapping[str, str], versions: Mapping[str, str], told: Sequence[str]
) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    file = out / "bench.json"
    content = {
        "machine": dict(facts),
        "versions": dict(versions),
        "caveats": list(told),
        "medians": medians(visits),
        "visits": [{"contender": visit.contender, "round": visit.round, **visit.values} for visit in visits],
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return file

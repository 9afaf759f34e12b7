"""The report: medians over rounds, ratios, the tables in Markdown and everything in JSON.

Owns the wording, measures nothing.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rounds import DIRECT, Plan, Visit

OURS = "llmroute"
PEERS = ("envoy", "portkey", "litellm", "nginx")
_COLUMNS = ("nginx", "envoy", "portkey", "litellm", OURS)
_NOISY = 0.05
_BEGIN, _END = "<!-- bench:begin -->", "<!-- bench:end -->"
_NEW_PAGE = "# Performance\n\nWhat `make bench` measures; the section between the marks is its last full run.\n\n"


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
    Measure("reload_chunk_p99_ms", "{reload_streams} paced streams: each chunk p99 (ms)", ".2f"),
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


def medians(visits: Sequence[Visit]) -> dict[str, dict[str, float]]:
    direct = {visit.round: visit.values for visit in visits if visit.contender == DIRECT}
    names = list(dict.fromkeys(visit.contender for visit in visits))
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        own = [visit for visit in visits if visit.contender == name]
        for measure in (*MEASURES, *RELOAD_MEASURES):
            key = measure.key.replace("_median", "")
            samples = [
                visit.values[key]
                - (direct.get(visit.round, {}).get(measure.less, 0.0) if measure.less and name != DIRECT else 0.0)
                for visit in own
                if key in visit.values
            ]
            if samples:
                whole = sum if measure.summed else max if measure.longest else statistics.median
                found[name][measure.key] = whole(samples)
    return found


def section(
    found: Medians,
    plan: Plan,
    facts: Mapping[str, str],
    told: Mapping[str, str],
    caveats: Sequence[str],
    rounds_done: int,
) -> str:
    """The whole report in Markdown. `told`: contender -> its version and setup."""
    columns = [name for name in _COLUMNS if name in found]
    peers = [peer for peer in PEERS if OURS in found and peer in found]
    parts = [
        f"Medians of {rounds_done} rounds. " + ", ".join(f"{key} {value}" for key, value in facts.items()) + ".",
        "\n".join(f"- {name} {text}" for name, text in told.items()),
        _table(found, MEASURES, [*columns, DIRECT], plan),
    ]
    if any("reload_rps" in values for values in found.values()):
        changed = [name for name in columns if "reload_rps" in found[name]]
        parts += [
            "### While the configuration is changed each second",
            _table(found, RELOAD_MEASURES, changed, plan),
        ]
    if peers:
        parts += [f"### {OURS} ÷ each of the others", _ratios(found, peers)]
    if OURS in found:
        parts += ["### Bars (for the reader; nothing fails on them)", bars(found, plan)]
    if caveats:
        parts.append("\n".join(f"- CAVEAT: {line}" for line in caveats))
    return "\n\n".join(parts)


def _table(found: Medians, measures: Sequence[Measure], columns: Sequence[str], plan: Plan) -> str:
    """One row a measure, one column a contender."""
    heads = ["", *(f"{name} (absolute)" if name == DIRECT else name for name in columns)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * len(columns) + "|"]
    names = {"models": f"{plan.reloads.models:,}", "reload_streams": f"{plan.reloads.pace.streams:,}"}
    for measure in measures:
        cells = [_cell(found.get(name, {}).get(measure.key), measure.form) for name in columns]
        if any(cells):
            lines.append("| " + " | ".join([measure.title.format_map(names), *cells]) + " |")
    return "\n".join(lines)


def _ratios(found: Medians, peers: Sequence[str]) -> str:
    """Where ours is not ahead, the ratio is in bold."""
    lines = ["| | better is | " + " | ".join(peers) + " |", "|---|---" + "|--:" * len(peers) + "|"]
    for measure in MEASURES:
        cells = [_ratio_cell(found, measure, peer) for peer in peers]
        if any(cells):
            lines.append(
                "| " + " | ".join([_full_title(measure), "more" if measure.more_is_better else "less", *cells]) + " |"
            )
    return "\n".join(lines)


def _full_title(measure: Measure) -> str:
    """Alone, without the row above that it is a part of."""
    if not measure.title.startswith("—"):
        return measure.title
    above = MEASURES[: MEASURES.index(measure)]
    return (
        f"{next(one.title for one in reversed(above) if not one.title.startswith('—')).split(',')[0]} {measure.title}"
    )


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ratio_cell(found: Medians, measure: Measure, peer: str) -> str:
    ratio = _ratio(found, measure, peer)
    if ratio is None:
        return ""
    text = f"{ratio:.2f}x" if ratio < 10 else f"{ratio:,.0f}x"
    return text if (ratio > 1 if measure.more_is_better else ratio < 1) else f"**{text}**"


def _ratio(found: Medians, measure: Measure, peer: str) -> float | None:
    ours, theirs = found[OURS].get(measure.key), found[peer].get(measure.key)
    if not measure.ratio or ours is None or theirs is None or ours <= 0 or theirs <= 0:
        return None
    if measure.paced and found[OURS].get("paced_streams") != found[peer].get("paced_streams"):
        return None
    return ours / theirs


Bar = tuple[str, Callable[[Medians], bool]]

_BARS: tuple[Bar, ...] = (
    ("requests/s ahead of Envoy", lambda m: m[OURS]["rps"] > m["envoy"]["rps"]),
    ("requests/s ≥ 10x Portkey", lambda m: m[OURS]["rps"] >= 10 * m["portkey"]["rps"]),
    ("requests/s ≥ 1.3x Envoy (aim)", lambda m: m[OURS]["rps"] >= 1.3 * m["envoy"]["rps"]),
    ("added p50 below Envoy's", lambda m: m[OURS]["p50_us"] < m["envoy"]["p50_us"]),
    ("added p99 below Envoy's", lambda m: m[OURS]["p99_us"] < m["envoy"]["p99_us"]),
    ("added p50 ≤ 150 µs (aim)", lambda m: m[OURS]["p50_us"] <= 150),
    ("idle ≤ 60 MiB", lambda m: m[OURS]["idle_mib"] <= 60),
    ("idle below Envoy's", lambda m: m[OURS]["idle_mib"] < m["envoy"]["idle_mib"]),
    ("idle ≤ 45 MiB (aim)", lambda m: m[OURS]["idle_mib"] <= 45),
    ("ready ≤ 1.0 s", lambda m: m[OURS]["ready_ms"] <= 1000),
    ("ready ≤ 0.5 s (aim)", lambda m: m[OURS]["ready_ms"] <= 500),
    ("{streams} streams ≤ 150 MiB", lambda m: m[OURS]["streams_mib"] <= 150),
    ("{streams} streams ≤ 100 MiB (aim)", lambda m: m[OURS]["streams_mib"] <= 100),
    ("first chunk + ≤ 1 ms p50", lambda m: m[OURS]["first_p50_ms"] <= 1),
    ("reload each second: no error", lambda m: m[OURS]["reload_errors"] == 0),
    ("reload of {models} models under load: no request failed", lambda m: m[OURS]["large_errors"] == 0),
    ("reload of {models} models under load: no pause > 20 ms", lambda m: m[OURS]["large_longest_ms"] <= 20),
    ("reload of {models} models under load: no pause > 5 ms (aim)", lambda m: m[OURS]["large_longest_ms"] <= 5),
)


def bars(found: Medians, plan: Plan) -> str:
    """The project's bars, for the reader; nothing fails on them."""
    names = {"models": f"{plan.reloads.models:,}", "streams": f"{plan.pace.streams:,}"}
    lines = []
    for title, holds in _BARS:
        try:
            lines.append(f"- {'met' if holds(found) else 'NOT met'}: {title.format_map(names)}")
        except KeyError:
            lines.append(f"- not measured: {title.format_map(names)}")
    for peer in PEERS[:-1]:
        if peer in found:
            behind = [
                f"{_full_title(measure)} ({ratio:.2f}x)"
                for measure in MEASURES
                if (ratio := _ratio(found, measure, peer)) and not (ratio > 1 if measure.more_is_better else ratio < 1)
            ]
            lines.append(f"- {'NOT met' if behind else 'met'}: ahead of {peer} in every row (aim)" + _listed(behind))
    return "\n".join(lines)


def _listed(behind: Sequence[str]) -> str:
    return f"; behind in {', '.join(behind)}" if behind else ""


def caveats(visits: Sequence[Visit], busy_before: float, efforts: Mapping[str, str]) -> list[str]:
    """What a reader must know before believing the numbers. `efforts`: contender -> what it was asked less of."""
    told = [f"{name}: {text}" for name, text in efforts.items()]
    if busy_before > _NOISY:
        told.append(f"before it began, the machine was {busy_before:.0%} busy with other work")
    others = statistics.median(visit.values.get("others", 0.0) for visit in visits) if visits else 0.0
    if others > _NOISY:
        told.append(f"others took {others:.0%} of the contenders' core: these numbers are noise")
    for name, values in medians(visits).items():
        seen = [visit.values for visit in visits if visit.contender == name]
        for key, what in (("busy", "requests/s"), ("stream_busy", "chunks/s")):
            if values.get(key, 1.0) < 0.95:
                told.append(
                    f"{name} was {values[key]:.0%} busy at {what}: the rig or other work set the pace; read its CPU row"
                )
        waited = max(one.get(f"{kind}_waited", 0.0) for one in seen for kind in ("quiet", "reload", "large"))
        if waited > _NOISY:
            told.append(
                f"{name} waited {waited:.0%} of the prober's time for its core: the longest waits are other work's"
            )
        for kind, what in (("reload", "changes"), ("large", "changes of the large configuration")):
            made, taken = values.get(f"{kind}_changes", 0), values.get(f"{kind}_taken")
            if taken is not None and taken < 0.7 * made:
                told.append(f"{name} took up {taken:.0f} of {made:.0f} {what}: some came between two of its looks")
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


def put_between_marks(page: Path, text: str) -> None:
    """Replaces what stands between the marks; a page that has none, or is not there yet, gets them at its end."""
    before, after = _NEW_PAGE, "\n"
    if page.exists():
        before, found, rest = page.read_text().partition(_BEGIN)
        if found:
            _, _, after = rest.partition(_END)
        else:
            before = before.rstrip("\n") + "\n\n"
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")

"""The project's bars: met or not met, for the reader. Nothing fails on them."""

from collections.abc import Callable

from bench.contenders import OURS
from bench.measures import CEILING, MEASURES, PEERS, Medians, compare, full_title
from bench.rounds import Plan

Bar = tuple[str, Callable[[Medians], bool]]

_BARS: tuple[Bar, ...] = (
    ("requests/s ahead of Envoy", lambda m: m[OURS]["rps"] > m["envoy"]["rps"]),
    (
        "requests per second of CPU ahead of Envoy",
        lambda m: m[OURS]["rps_per_cpu_second"] > m["envoy"]["rps_per_cpu_second"],
    ),
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
    """One line each."""
    names = {"models": f"{plan.reloads.models:,}", "streams": f"{plan.pace.streams:,}"}
    lines = []
    for title, holds in _BARS:
        try:
            lines.append(f"- {'met' if holds(found) else 'NOT met'}: {title.format_map(names)}")
        except KeyError:
            lines.append(f"- not measured: {title.format_map(names)}")
    for peer in PEERS:
        if peer in found and peer != CEILING:
            behind = _behind(found, peer)
            verdict = f"NOT met: ahead of {peer} in every row (aim); behind in {', '.join(behind)}"
            lines.append(f"- {verdict}" if behind else f"- met: ahead of {peer} in every row (aim)")
    return "\n".join(lines)


def _behind(found: Medians, peer: str) -> list[str]:
    compared = [(measure, compare(found, measure, peer)) for measure in MEASURES]
    return [f"{full_title(measure)} ({one.ratio:.2f}x)" for measure, one in compared if one and not one.ahead]

"""The report: tables in Markdown, caveats, and everything in JSON.

Owns the wording, measures nothing.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.bars import bars
from bench.contenders import OURS
from bench.measures import (
    MEASURES,
    PEERS,
    RELOAD_MEASURES,
    Measure,
    Medians,
    compare,
    full_title,
    is_disturbed,
    medians,
)
from bench.rounds import DIRECT, Plan, Visit

_COLUMNS = ("nginx", "envoy", "portkey", "litellm", OURS)
_NOISY = 0.05
_BEGIN, _END = "<!-- bench:begin -->", "<!-- bench:end -->"
_NEW_PAGE = "# Performance\n\nWhat `make bench` measures; the section between the marks is its last full run.\n\n"


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
            _table(found, RELOAD_MEASURES, [*changed, DIRECT], plan),
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
            better = "more" if measure.more_is_better else "less"
            lines.append("| " + " | ".join([full_title(measure), better, *cells]) + " |")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ratio_cell(found: Medians, measure: Measure, peer: str) -> str:
    compared = compare(found, measure, peer)
    if compared is None:
        return ""
    text = f"{compared.ratio:.2f}x" if compared.ratio < 10 else f"{compared.ratio:,.0f}x"
    return text if compared.ahead else f"**{text}**"


def caveats(visits: Sequence[Visit], busy_before: float, efforts: Mapping[str, str]) -> list[str]:
    """What a reader must know before believing the numbers. `efforts`: contender -> what it was asked less of."""
    told = [f"{name}: {text}" for name, text in efforts.items()]
    if busy_before > _NOISY:
        told.append(f"before it began, the machine was {busy_before:.0%} busy with other work")
    others = statistics.median(visit.values.get("others", 0.0) for visit in visits) if visits else 0.0
    if others > _NOISY:
        told.append(f"others took {others:.0%} of the contenders' core: these numbers are noise")
    for name, values in medians(visits).items():
        own = [visit for visit in visits if visit.contender == name]
        disturbed = sum(map(is_disturbed, own))
        if disturbed:
            taken_as = "all are taken" if disturbed == len(own) else "left out of what other rounds have"
            told.append(f"{name}: others had a part of its core in {disturbed} of {len(own)} rounds; {taken_as}")
        seen = [visit.values for visit in own]
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

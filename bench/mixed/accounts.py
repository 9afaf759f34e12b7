"""Whether the clients, the log, the metrics and the providers tell the same story. Values in, faults out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bench.mixed.customers import Heard

_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)$", re.MULTILINE)
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')
_BROKEN = ("truncated_", "not_a_stream")
CLIENT_LEFT = 499
FLAT_KIB = 12 * 1024
"""How much larger the last third's memory may be than the first's: less than any body kept for each call would take."""


def outcome(heard: Heard) -> str:
    """What came of a request, in a word or two."""
    if heard.ending in ("whole", "cut") and heard.status == 200:
        return "served by a fallback" if "x-fallback-model" in heard.headers else f"served, {heard.ending}"
    return str(heard.status) if heard.ending == "whole" else heard.ending


def faults_of_answers(heard: Sequence[Heard]) -> list[str]:
    """Requests whose client did not leave and that had no answer, or one that looked whole and was not."""
    wrong = [one for one in heard if one.ending in ("unanswered", "seems whole")]
    return [f"{one.id}: {one.ask.path} for {one.ask.model!r} ended as {one.ending!r}" for one in wrong]


def faults_of_log(heard: Sequence[Heard], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """`lines` are those of requests."""
    faults = []
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_id.setdefault(line["request_id"], []).append(line)
    for one in heard:
        found = by_id.pop(one.id, [])
        if len(found) != 1:
            faults.append(f"{one.id}: {len(found)} log lines")
            continue
        line = found[0]
        if one.ending != "left" and line["status"] != one.status:
            faults.append(f"{one.id}: the client heard {one.status}, the log says {line['status']}")
        if line.get("exc_info"):
            faults.append(f"{one.id}: a fault of the gateway: {line['exc_info']}")
    return faults + [f"{unknown}: logged, and nobody's" for unknown in by_id]


def faults_of_metrics(heard: Sequence[Heard], lines: Sequence[Mapping[str, Any]], text: str) -> list[str]:
    """`text` is the gateway's /metrics, once nothing is in flight."""
    samples = [
        (name, dict(_LABEL.findall(labels or "")), float(value)) for name, labels, value in _SAMPLE.findall(text)
    ]

    def total(name: str) -> int:
        return round(sum(value for found, _, value in samples if found == name))

    counted = Counter(
        {
            (labels["path"], labels["status"]): round(value)
            for name, labels, value in samples
            if name == "gateway_requests_total" and labels["method"] == "POST"
        }
    )
    logged = Counter((line["path"], str(line["status"])) for line in lines)
    faults = [
        f"{path} {status}: {counted[path, status]} in the metrics, {logged[path, status]} in the log"
        for path, status in counted.keys() | logged.keys()
        if counted[path, status] != logged[path, status]
    ]
    limited = sum(line["status"] == 429 for line in lines)
    if total("gateway_rate_limited_total") != limited:
        faults.append(f"{total('gateway_rate_limited_total')} limited in the metrics, {limited} in the log")
    least = sum("x-fallback-model" in one.headers and one.ending != "left" for one in heard)
    most = least + sum(one.ending == "left" for one in heard)
    if not least <= total("gateway_fallback_used_total") <= most:
        faults.append(f"{total('gateway_fallback_used_total')} fallbacks in the metrics, clients heard of {least}")
    if total("gateway_in_flight_requests") != 0:
        faults.append(f"{total('gateway_in_flight_requests')} requests in flight at the end")
    return faults


def faults_of_connections(heard: Sequence[Heard], dropped: set[str], steady: Counter[str], came: int) -> list[str]:
    """`dropped`: the requests that the steady provider lost; `steady`: what came of the attempts at it by the metrics;
    `came`: how many reached it."""
    left = {one.id for one in heard if one.ending == "left"}
    faults = [f"{one}: the steady provider lost it, and its client had not left" for one in sorted(dropped - left)]
    if not steady["served"] <= came <= steady.total():
        faults.append(f"{came} attempts reached the steady provider, the metrics say {dict(steady)}")
    broken = {reason: count for reason, count in steady.items() if reason not in ("served", "client_left")}
    return faults + [f"{count} attempts at the steady provider: {reason}" for reason, count in broken.items()]


def attempts_at(upstreams: Sequence[str], text: str) -> Counter[str]:
    """What came of attempts, from the gateway's /metrics."""
    found: Counter[str] = Counter()
    for name, labels, value in _SAMPLE.findall(text):
        told = dict(_LABEL.findall(labels or ""))
        if name == "llmroute_attempts_total" and told["upstream"] in upstreams:
            found[told["reason"]] += round(float(value))
    return found


def missed_seconds(lines: Sequence[Mapping[str, Any]]) -> float:
    """For how long the gateway did without the shared state, from the first time that it had reached it: by its log."""
    total, since, reached = 0.0, None, False
    for line in lines:
        moment = datetime.fromisoformat(line["timestamp"]).timestamp()
        if line["message"] == "shared state reached":
            total += moment - since if since is not None else 0.0
            since, reached = None, True
        elif line["message"] == "shared state not reached" and reached and since is None:
            since = moment
    return total


def thirds(samples: Sequence[int]) -> tuple[int, int]:
    """Medians of the first and the last third."""
    third = max(1, len(samples) // 3)
    first, last = sorted(samples[:third]), sorted(samples[-third:])
    return first[len(first) // 2], last[len(last) // 2]


def faults_of_memory(samples_kib: Sequence[int]) -> list[str]:
    """`samples_kib`: from the end of the warm-up on."""
    first, last = thirds(samples_kib)
    return [f"memory grew from {first} to {last} KiB"] if last - first > FLAT_KIB else []

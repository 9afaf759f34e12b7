"""Everything that matters again while the configuration is changed each second, and while a large one is.

Owns what is measured then; how a change is made is the contender's (`Setup.change`).
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench import load, process, streams
from bench.contenders import Effort, Setup
from bench.load import Endpoint
from bench.probe import Probed, probe
from bench.provision import say

EACH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reloads:
    seconds: float
    """Of each load."""
    pace: streams.Pace
    models: int


@contextmanager
def changing(setup: Setup, child: process.Child) -> Iterator[list[int]]:
    """Changes the configuration now and then each second; one entry in the list for each time it did."""
    done: list[int] = []
    stop = threading.Event()
    change = setup.change
    assert change is not None

    def run() -> None:
        while True:
            try:
                change(child.pid)
            except OSError as error:
                say(f"COULD NOT CHANGE the configuration: {error}")
                return
            done.append(len(done))
            if stop.wait(EACH_SECONDS):
                return

    thread = threading.Thread(target=run, name="changing")
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join(10)


def baseline(endpoint: Endpoint, plan: Reloads) -> dict[str, float]:
    """How long anybody waits at most where there is no gateway: the rig's own part in it."""
    values: dict[str, float] = {}
    _probed(values, "quiet", endpoint, None, plan.seconds)
    return values


def measure(
    endpoint: Endpoint,
    setup: Setup,
    child: process.Child,
    plan: Reloads,
    effort: Effort,
    quiet: Mapping[str, float],
) -> dict[str, float]:
    """`quiet`: what this process did a moment ago without changes."""
    values: dict[str, float] = {}
    _probed(values, "quiet", endpoint, child, plan.seconds)
    before = setup.taken() if setup.taken else 0
    with changing(setup, child) as changes:
        cpu = process.cpu_seconds(child.pid)
        many = load.wrk(endpoint, effort.connections, plan.seconds, load.PLAIN)
        cpu = process.cpu_seconds(child.pid) - cpu
        one = load.wrk(endpoint, 1, plan.seconds, load.PLAIN)
        probed = _probed(values, "reload", endpoint, child, plan.seconds)
        paced = streams.paced(endpoint, plan.pace, lambda: None)
    values["reload_rps"] = many.answers / many.seconds
    values["reload_rps_share"] = values["reload_rps"] / quiet["rps"]
    values["reload_rps_per_cpu_second"] = many.answers / max(cpu, 1e-9)
    values["reload_rps_per_cpu_share"] = values["reload_rps_per_cpu_second"] / quiet["rps_per_cpu_second"]
    values["reload_p50_us"], values["reload_p99_us"] = one.p50_us, one.p99_us
    values["reload_first_p50_ms"], values["reload_first_p99_ms"] = paced.first_ms
    values["reload_chunk_p50_ms"], values["reload_chunk_p99_ms"] = paced.chunk_ms
    values["reload_streams_broken"] = paced.broken
    values["reload_errors"] = many.errors + one.errors + probed.errors + paced.broken
    values["reload_changes"] = len(changes)
    if setup.taken:
        values["reload_taken"] = _settled(setup, before + len(changes)) - before
    return values


def measure_large(endpoint: Endpoint, setup: Setup, child: process.Child, plan: Reloads) -> dict[str, float]:
    """The prober alone: how long anybody waits when many models change at once."""
    values: dict[str, float] = {}
    _probed(values, "large_quiet", endpoint, child, plan.seconds)
    before = setup.taken() if setup.taken else 0
    with changing(setup, child) as changes:
        probed = _probed(values, "large", endpoint, child, plan.seconds)
    values["large_errors"] = probed.errors
    values["large_changes"] = len(changes)
    if setup.taken:
        values["large_taken"] = _settled(setup, before + len(changes)) - before
    return values


def _settled(setup: Setup, wanted: int) -> int:
    """What was taken once the last change has had two looks' time."""
    assert setup.taken is not None
    until = time.monotonic() + 2.5
    while (taken := setup.taken()) < wanted and time.monotonic() < until:
        time.sleep(0.1)
    return taken


def _probed(
    values: dict[str, float], name: str, endpoint: Endpoint, child: process.Child | None, seconds: float
) -> Probed:
    waited = process.kept_waiting_seconds(child.pid) if child else 0.0
    probed = probe(endpoint, seconds)
    if child:
        values[f"{name}_waited"] = (process.kept_waiting_seconds(child.pid) - waited) / seconds
    values[f"{name}_probe_p50_ms"] = probed.p50_ms
    values[f"{name}_probe_p99_ms"] = probed.p99_ms
    values[f"{name}_longest_ms"] = probed.longest_ms
    values[f"{name}_probe_errors"] = probed.errors
    return probed

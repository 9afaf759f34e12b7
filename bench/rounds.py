"""Who is measured when, and what each visit to a contender measures.

Owns the order, the bounds in count and time, and the samples.
"""

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import load, machine, process, reload, streams
from bench.contenders import OURS, READY_PATH, Absent, Contender, Effort, Ports, Setup
from bench.load import Endpoint
from bench.provision import say

DIRECT = "direct"
"""The stand-in without a contender: what the rig itself takes."""
CHUNKS = 100
_READY_SECONDS = 60.0
_MIB = 1024 * 1024
_ROOT = str(Path(__file__).parent.parent)


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    slow_rounds: int
    """For contenders whose effort is slow."""
    paced_rounds: int
    reload_rounds: int
    """Of ours and of the stand-in."""
    peers_reload_rounds: int
    load_seconds: float
    slow_load_seconds: float
    settle_seconds: float
    pace: streams.Pace
    reloads: reload.Reloads
    budget_seconds: float
    """No further visit begins after this."""
    requests_alone: bool = False
    """Requests/s and nothing else."""


FULL = Plan(
    rounds=5,
    slow_rounds=2,
    paced_rounds=2,
    reload_rounds=2,
    peers_reload_rounds=1,
    load_seconds=3,
    slow_load_seconds=5,
    settle_seconds=1,
    pace=streams.Pace(streams=1000, chunks=40, gap_ms=100, ramp_seconds=2),
    reloads=reload.Reloads(
        seconds=4, pace=streams.Pace(streams=200, chunks=30, gap_ms=100, ramp_seconds=1), models=1000
    ),
    budget_seconds=530,
)
QUICK = Plan(
    rounds=2,
    slow_rounds=1,
    paced_rounds=1,
    reload_rounds=1,
    peers_reload_rounds=0,
    load_seconds=1,
    slow_load_seconds=3,
    settle_seconds=0.3,
    pace=streams.Pace(streams=200, chunks=20, gap_ms=100, ramp_seconds=1),
    reloads=reload.Reloads(
        seconds=3, pace=streams.Pace(streams=100, chunks=20, gap_ms=100, ramp_seconds=1), models=1000
    ),
    budget_seconds=125,
)
REQUESTS = replace(
    QUICK, rounds=5, load_seconds=2, paced_rounds=0, reload_rounds=0, peers_reload_rounds=0, requests_alone=True
)


@dataclass(frozen=True, slots=True)
class Visit:
    """One contender in one round: measure (named with its unit) -> value."""

    contender: str
    round: int
    values: dict[str, float] = field(default_factory=dict)


def run(contenders: Sequence[Contender], plan: Plan, cores: machine.Cores) -> list[Visit]:
    """All rounds. A contender that fails is left out from then on, with one line that says why."""
    began = time.monotonic()
    visits: list[Visit] = []
    out: set[str] = set()
    with standing_in(cores) as upstream:
        for number in range(plan.rounds):
            everyone: list[Contender | None] = [None, *contenders]
            turn = number % len(everyone)
            for contender in everyone[turn:] + everyone[:turn]:
                name = contender.name if contender else DIRECT
                if name in out or (contender and contender.effort.slow and number >= plan.slow_rounds):
                    continue
                if time.monotonic() - began > plan.budget_seconds:
                    say(f"STOPPED in round {number + 1} of {plan.rounds}: the time is up")
                    return [visit for visit in visits if visit.contender not in out]
                say(f"round {number + 1}/{plan.rounds}: {name}")
                reloading = number < (plan.reload_rounds if name == OURS else plan.peers_reload_rounds)
                try:
                    visits.append(_visit(contender, upstream, number, plan, cores, reloading))
                except (process.Ended, load.Failed, Absent, OSError, subprocess.SubprocessError) as error:
                    if contender is None:
                        raise
                    say(f"{name} IS LEFT OUT: {error}")
                    out.add(name)
    return [visit for visit in visits if visit.contender not in out]


@contextmanager
def standing_in(cores: machine.Cores) -> Iterator[int]:
    """The provider's stand-in on the rig's core; gives its port."""
    port = machine.free_port()
    with tempfile.TemporaryDirectory(prefix="llmroute-bench-") as folder:
        command = [sys.executable, "-m", "bench.upstream", str(port)]
        with process.running(command, cores.rig, Path(folder) / "errors", {"PYTHONPATH": _ROOT}) as child:
            wait_until_ready(child, port, READY_PATH)
            yield port


@dataclass(frozen=True, slots=True)
class Serving:
    """A contender, ready on its core."""

    child: process.Child
    endpoint: Endpoint
    setup: Setup
    ready_seconds: float
    """From exec."""


@contextmanager
def serving(
    prepare: Callable[[Path, Ports], Setup], name: str, upstream: int, cores: machine.Cores
) -> Iterator[Serving]:
    """Starts what `prepare` sets up and waits until it is ready."""
    ports = Ports(data=machine.free_port(), admin=machine.free_port(), upstream=upstream)
    with tempfile.TemporaryDirectory(prefix="llmroute-bench-") as folder:
        config = Path(folder) / name
        config.mkdir()
        setup = prepare(config, ports)
        environment = {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", **setup.environment}
        with process.running(setup.command, cores.contender, Path(folder) / "errors", environment) as child:
            ready = wait_until_ready(child, ports.data, setup.ready_path)
            yield Serving(child, Endpoint(ports.data, setup.headers), setup, ready)


def wait_until_ready(child: process.Child, port: int, path: str) -> float:
    """Asks every 2 ms. Raises process.Ended where the process does, or does not become ready."""
    while (waited := time.monotonic() - child.started) < _READY_SECONDS:
        child.check()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return time.monotonic() - child.started
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.002)
    raise process.Ended(f"not ready after {waited:.0f} s")


def _visit(
    contender: Contender | None, upstream: int, number: int, plan: Plan, cores: machine.Cores, reloading: bool
) -> Visit:
    with_paced = number < plan.paced_rounds
    if contender is None:
        visit = Visit(DIRECT, number)
        _loads(visit, Endpoint(upstream), plan, cores, None, Effort())
        if with_paced:
            _paced(visit, Endpoint(upstream), plan.pace, None)
        if number < plan.reload_rounds:
            visit.values.update(reload.baseline(Endpoint(upstream), plan.reloads))
        return visit
    effort = contender.effort
    visit = Visit(contender.name, number)
    with serving(contender.prepare, contender.name, upstream, cores) as served:
        child, endpoint, setup = served.child, served.endpoint, served.setup
        visit.values["ready_ms"] = served.ready_seconds * 1000
        time.sleep(plan.settle_seconds)
        visit.values["idle_mib"] = process.rss_bytes(child.pid) / _MIB
        load.check(endpoint, contender.transparent)
        load.wrk(endpoint, effort.connections, 1, load.PLAIN)  # warm
        _loads(visit, endpoint, plan, cores, child, effort)
        visit.values["loaded_mib"] = process.rss_bytes(child.pid) / _MIB
        if with_paced:
            _paced(visit, endpoint, replace(plan.pace, streams=_few(plan.pace.streams, effort.paced_streams)), child)
        if reloading and setup.change:
            visit.values.update(reload.measure(endpoint, setup, child, plan.reloads, effort, visit.values))
        child.check()
    if reloading:
        visit.values.update(_large(contender, upstream, plan, cores))
    return visit


def _few(all_of_them: int, at_most: int | None) -> int:
    return all_of_them if at_most is None else min(all_of_them, at_most)


def _large(contender: Contender, upstream: int, plan: Plan, cores: machine.Cores) -> dict[str, float]:
    """A gateway of many models, where the contender has such a thing."""

    def prepare(folder: Path, ports: Ports) -> Setup:
        setup = contender.prepare_large(folder, ports, plan.reloads.models)
        if setup is None:
            raise _NoSuchThing
        return setup

    try:
        with serving(prepare, contender.name, upstream, cores) as served:
            load.check(served.endpoint, contender.transparent)
            load.wrk(served.endpoint, contender.effort.connections, 1, load.PLAIN)  # warm
            values = reload.measure_large(served.endpoint, served.setup, served.child, plan.reloads)
            values["large_mib"] = process.rss_bytes(served.child.pid) / _MIB
            return values
    except _NoSuchThing:
        return {}


class _NoSuchThing(Exception):
    pass


def _loads(
    visit: Visit, endpoint: Endpoint, plan: Plan, cores: machine.Cores, child: process.Child | None, effort: Effort
) -> None:
    values = visit.values
    seconds = plan.slow_load_seconds if effort.slow else plan.load_seconds
    many, cpu = _measured(visit, cores, child, lambda: load.wrk(endpoint, effort.connections, seconds, load.PLAIN))
    values["rps"] = many.answers / many.seconds
    values["errors"] = many.errors
    if child is not None:
        values["busy"] = cpu / many.seconds
        values["rps_per_cpu_second"] = many.answers / cpu
    if plan.requests_alone:
        return
    one, _ = _measured(visit, cores, child, lambda: load.wrk(endpoint, 1, seconds, load.PLAIN))
    values["p50_us"], values["p99_us"] = one.p50_us, one.p99_us
    body = load.streaming(CHUNKS)
    flood, flood_cpu = _measured(visit, cores, child, lambda: load.wrk(endpoint, effort.streams, seconds, body))
    values["chunks_per_second"] = flood.answers * CHUNKS / flood.seconds
    values["stream_mib_per_second"] = flood.bytes / flood.seconds / _MIB
    values["errors"] = many.errors + one.errors + flood.errors
    if child is not None:
        values["stream_busy"] = flood_cpu / flood.seconds
        values["chunks_per_cpu_second"] = flood.answers * CHUNKS / flood_cpu
    if values["errors"]:
        say(f"{visit.contender}: {values['errors']:.0f} ERRORS under load in round {visit.round + 1}")


def _measured(
    visit: Visit, cores: machine.Cores, child: process.Child | None, put_on: Callable[[], load.Load]
) -> tuple[load.Load, float]:
    """The load, and the contender's CPU seconds in it. Notes how much of its core others took meanwhile."""
    began, core = time.monotonic(), machine.core_busy_seconds(cores.contender)
    cpu = process.cpu_seconds(child.pid) if child else 0.0
    done = put_on()
    spent = process.cpu_seconds(child.pid) - cpu if child else 0.0
    others = (machine.core_busy_seconds(cores.contender) - core - spent) / (time.monotonic() - began)
    visit.values["others"] = max(visit.values.get("others", 0.0), others)
    return done, max(spent, 1e-9)


def _paced(visit: Visit, endpoint: Endpoint, pace: streams.Pace, child: process.Child | None) -> None:
    values = visit.values
    most = 0

    def watch() -> None:
        nonlocal most
        if child is not None:
            most = max(most, process.rss_bytes(child.pid))

    cpu = process.cpu_seconds(child.pid) if child else 0.0
    got = streams.paced(endpoint, pace, watch)
    values["paced_streams"] = pace.streams
    values["first_p50_ms"], values["first_p99_ms"] = got.first_ms
    values["chunk_p50_ms"], values["chunk_p99_ms"] = got.chunk_ms
    values["streams_broken"] = got.broken
    if child is not None:
        values["streams_mib"] = most / _MIB
        values["cpu_per_chunk_us"] = (process.cpu_seconds(child.pid) - cpu) / got.chunks * 1e6
    if got.broken:
        say(f"{visit.contender}: {got.broken} of {pace.streams} STREAMS BROKE in round {visit.round + 1}")

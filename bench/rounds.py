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
from dataclasses import dataclass, field
from pathlib import Path

from bench import load, machine, process, streams
from bench.contenders import READY_PATH, Absent, Contender, Ports
from bench.provision import say

DIRECT = "direct"
"""The stand-in without a contender: what the rig itself takes."""
CONNECTIONS = 32
CHUNKS = 100
_READY_SECONDS = 30.0
_MIB = 1024 * 1024
_ROOT = str(Path(__file__).parent.parent)


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    paced_rounds: int
    load_seconds: float
    settle_seconds: float
    pace: streams.Pace
    budget_seconds: float
    """No further visit begins after this."""


FULL = Plan(
    rounds=5,
    paced_rounds=2,
    load_seconds=3,
    settle_seconds=1,
    pace=streams.Pace(streams=1000, chunks=40, gap_ms=100, ramp_seconds=2),
    budget_seconds=320,
)
QUICK = Plan(
    rounds=3,
    paced_rounds=1,
    load_seconds=1,
    settle_seconds=0.3,
    pace=streams.Pace(streams=200, chunks=20, gap_ms=100, ramp_seconds=1),
    budget_seconds=70,
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
                if name in out:
                    continue
                if time.monotonic() - began > plan.budget_seconds:
                    say(f"STOPPED in round {number + 1} of {plan.rounds}: the time is up")
                    return visits
                say(f"round {number + 1}/{plan.rounds}: {name}")
                try:
                    visits.append(_visit(contender, upstream, number, plan, cores))
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
            wait_until_ready(child, port)
            yield port


@contextmanager
def serving(contender: Contender, upstream: int, cores: machine.Cores) -> Iterator[tuple[process.Child, int, float]]:
    """The contender, ready on its core: its process, its port, and the seconds from exec to ready."""
    ports = Ports(data=machine.free_port(), admin=machine.free_port(), upstream=upstream)
    with tempfile.TemporaryDirectory(prefix="llmroute-bench-") as folder:
        config = Path(folder) / contender.name
        config.mkdir()
        command = contender.prepare(config, ports)
        with process.running(command, cores.contender, Path(folder) / "errors") as child:
            yield child, ports.data, wait_until_ready(child, ports.data)


def wait_until_ready(child: process.Child, port: int) -> float:
    """Asks every 2 ms. Raises process.Ended where the process does, or does not become ready."""
    while (waited := time.monotonic() - child.started) < _READY_SECONDS:
        child.check()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", READY_PATH)
            if connection.getresponse().status == 200:
                return time.monotonic() - child.started
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.002)
    raise process.Ended(f"not ready after {waited:.0f} s")


def _visit(contender: Contender | None, upstream: int, number: int, plan: Plan, cores: machine.Cores) -> Visit:
    with_paced = number < plan.paced_rounds
    if contender is None:
        visit = Visit(DIRECT, number)
        _loads(visit, upstream, plan, cores, None)
        if with_paced:
            _paced(visit, upstream, plan, None)
        return visit
    visit = Visit(contender.name, number)
    with serving(contender, upstream, cores) as (child, port, ready_seconds):
        visit.values["ready_ms"] = ready_seconds * 1000
        time.sleep(plan.settle_seconds)
        visit.values["idle_mib"] = process.rss_bytes(child.pid) / _MIB
        load.check(port)
        load.wrk(port, CONNECTIONS, 1, load.PLAIN)  # warm
        _loads(visit, port, plan, cores, child)
        visit.values["loaded_mib"] = process.rss_bytes(child.pid) / _MIB
        if with_paced:
            _paced(visit, port, plan, child)
        child.check()
    return visit


def _loads(visit: Visit, port: int, plan: Plan, cores: machine.Cores, child: process.Child | None) -> None:
    values = visit.values
    many, cpu = _measured(visit, cores, child, lambda: load.wrk(port, CONNECTIONS, plan.load_seconds, load.PLAIN))
    values["rps"] = many.answers / many.seconds
    one, _ = _measured(visit, cores, child, lambda: load.wrk(port, 1, plan.load_seconds, load.PLAIN))
    values["p50_us"], values["p99_us"] = one.p50_us, one.p99_us
    body = load.streaming(CHUNKS)
    flood, flood_cpu = _measured(visit, cores, child, lambda: load.wrk(port, CONNECTIONS, plan.load_seconds, body))
    values["chunks_per_second"] = flood.answers * CHUNKS / flood.seconds
    values["stream_mib_per_second"] = flood.bytes / flood.seconds / _MIB
    values["errors"] = many.errors + one.errors + flood.errors
    if child is not None:
        values["busy"] = cpu / many.seconds
        values["rps_per_cpu_second"] = many.answers / cpu
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


def _paced(visit: Visit, port: int, plan: Plan, child: process.Child | None) -> None:
    values = visit.values
    most = 0

    def watch() -> None:
        nonlocal most
        if child is not None:
            most = max(most, process.rss_bytes(child.pid))

    cpu = process.cpu_seconds(child.pid) if child else 0.0
    got = streams.paced(port, plan.pace, watch)
    values["first_p50_ms"], values["first_p99_ms"] = got.first_ms
    values["chunk_p50_ms"], values["chunk_p99_ms"] = got.chunk_ms
    values["streams_broken"] = got.broken
    if child is not None:
        values["streams_mib"] = most / _MIB
        values["cpu_per_chunk_us"] = (process.cpu_seconds(child.pid) - cpu) / got.chunks * 1e6
    if got.broken:
        say(f"{visit.contender}: {got.broken} of {plan.pace.streams} STREAMS BROKE in round {visit.round + 1}")

"""One run: providers, gateway, clients, a reload each second, and then the accounts."""

import asyncio
import itertools
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.mixed import accounts
from bench.mixed.configuration import KEYS, files
from bench.mixed.customers import Customer, Heard
from bench.mixed.weather import Mood, Played, playing
from tests.cluster.projection import project
from tests.gateway_process import GatewayProcess, end, start, write_secret
from tests.waiting import wait_until

Disturbance = Callable[[Callable[[], bool]], Awaitable[None]]
"""Something that goes on while the clients ask, until it is told to stop."""


@dataclass(frozen=True, slots=True)
class Plan:
    seconds: float
    warm_up_seconds: float
    customers_each: int = 4
    """Connections of each client."""
    pause_seconds: float = 0.03
    """From an answer to the next question, on the mean."""
    reload_seconds: float = 1.0
    mood_seconds: float = 0.8
    seed: int = 1


@dataclass
class Report:
    plan: Plan
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    moods: Counter[str] = field(default_factory=Counter)
    reloads_laid: int = 0
    reloads_taken: int = 0
    counted_together: int = 0
    """Calls whose limits the shared state was asked about and answered."""
    counted_alone: int = 0
    """Those that were counted in the pod, as it did not answer in time."""
    missed_seconds: float = 0.0
    """How long the gateway did without it."""
    memory_kib: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run(plan: Plan, folder: Path, state_url: str, more: Sequence[Disturbance] = ()) -> Report:
    """Serves `plan`'s traffic through a gateway in `folder` that counts at `state_url`; `more` goes on meanwhile."""
    report = Report(plan)
    with playing() as steady, playing() as moody:
        dead_url = f"http://127.0.0.1:{_nobody_listens_at()}"

        def lay(version: int) -> None:
            project(folder / "config", files(steady.provider.url, moody.provider.url, dead_url, version))

        write_secret(folder / "secrets", "clients", KEYS)
        lay(0)
        gateway = start(folder, "--shared-state-url", state_url)
        try:
            sockets, tasks = gateway.open_sockets(), gateway.tasks()
            heard = asyncio.run(_serve(plan, gateway, moody, lay, report, more))
            _settle(gateway, sockets, tasks, (steady, moody), report)
            report.outcomes.update(map(accounts.outcome, heard))
            report.faults += _compare(gateway, heard, steady, report)
        finally:
            end(gateway)
    return report


async def _serve(
    plan: Plan,
    gateway: GatewayProcess,
    moody: Played,
    lay: Callable[[int], None],
    report: Report,
    more: Sequence[Disturbance],
) -> list[Heard]:
    chance = random.Random(plan.seed)
    began = time.monotonic()
    customers = [
        Customer(gateway.port, key, plan.seed + number, plan.pause_seconds)
        for number, key in enumerate(key for key in KEYS.values() for _ in range(plan.customers_each))
    ]

    def going_on() -> bool:
        return time.monotonic() - began < plan.seconds

    async def reloads() -> None:
        for version in itertools.count(1):
            await asyncio.sleep(plan.reload_seconds)
            if not going_on():
                return
            await asyncio.to_thread(lay, version)
            report.reloads_laid += 1

    async def moods() -> None:
        while going_on():
            report.moods[moody.mood.value] += 1
            await asyncio.sleep(plan.mood_seconds)
            moody.change(chance)
        moody.mood = Mood.FAIR

    async def memory() -> None:
        await asyncio.sleep(plan.warm_up_seconds)
        while going_on():
            report.memory_kib.append(gateway.memory_kib())
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        for task in (reloads(), moods(), memory()):
            group.create_task(task)
        for disturbance in more:
            group.create_task(_until_over(disturbance, going_on))
        for customer in customers:
            group.create_task(customer.asks(going_on))
    report.seconds = time.monotonic() - began
    return [one for customer in customers for one in customer.heard]


async def _until_over(disturbance: Disturbance, going_on: Callable[[], bool]) -> None:
    await disturbance(going_on)


def _settle(gateway: GatewayProcess, sockets: int, tasks: int, providers: Sequence[Played], report: Report) -> None:
    """Waits until all is over; what does not end is a fault."""
    try:
        wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "no request to be in flight")
        wait_until(lambda: gateway.metric("llmroute_shared_state_up") == 1, "the shared state to be reached again")

        def left_over() -> int:
            """Sockets beside those that it listens on, that we ask it through, and that it keeps for the next call."""
            kept = sum(one.provider.open for one in providers)
            return gateway.open_sockets() - sockets - 1 - kept

        wait_until(lambda: left_over() <= 0, "no socket to be left")
        wait_until(lambda: gateway.tasks() <= tasks, f"no task to be left beside the {tasks} that there were")
        wait_until(lambda: gateway.connections("client") == 0, "no client's connection to be left")
        wait_until(
            lambda: gateway.connections("upstream") == sum(one.provider.open for one in providers),
            "no connection to an upstream to be left but those that are kept for the next call",
        )
    except AssertionError as error:
        report.faults.append(str(error))


def _compare(gateway: GatewayProcess, heard: Sequence[Heard], steady: Played, report: Report) -> list[str]:
    lines = gateway.lines
    requests = [line for line in lines if line["message"] == "request" and line["method"] == "POST"]
    text = gateway.metrics_text()
    report.reloads_taken = (
        round(gateway.metric("llmroute_config_reloads_total", result="applied")) - 1
    )  # the first load
    report.counted_together = round(gateway.metric("llmroute_shared_state_round_trip_seconds_count"))
    report.counted_alone = round(gateway.metric("llmroute_shared_state_fallbacks_total", decision="fail_open"))
    report.missed_seconds = accounts.missed_seconds(lines)
    faults = [
        *accounts.faults_of_answers(heard),
        *accounts.faults_of_log(heard, requests),
        *accounts.faults_of_metrics(heard, requests, text),
        *accounts.faults_of_connections(
            heard, steady.dropped, accounts.attempts_at(("steady", "steady-claude"), text), steady.came
        ),
        *accounts.faults_of_memory(report.memory_kib),
    ]
    faults += [f"logged: {line}" for line in lines if line.get("exc_info") and line["message"] != "request"]
    if report.reloads_taken < 0.7 * report.reloads_laid:
        faults.append(f"{report.reloads_laid} configurations were laid, {report.reloads_taken} taken up")
    return faults


def _nobody_listens_at() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port

"""`python -m bench.injector`: 1,000 admissions through the real injector, over TLS, with routes of a real API server.

Beside `make bench`, which measures gateways: this one needs the tests' control plane. Asked as the API server asks,
four at a time, each over a connection of its own, about the pods of the tests' table in turn. Prints the injector's
own time for an admission (its histogram: from the last byte in to the answer), what the asker saw with the handshake,
and the injector's memory before and after. The bar is a p99 below 20 ms inside the webhook, and flat memory.
"""

import asyncio
import itertools
import json
import os
import ssl
import statistics
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench import process
from tests.cluster.control_plane import running_control_plane
from tests.operator.injector.injector_process import InjectorProcess, running_injector
from tests.operator.injector.pod_table import TABLE
from tests.operator.namespace import Namespace, route

ADMISSIONS = 1_000
AT_ONCE = 4
ROUTES = 10
PODS = [row.document for row in TABLE.values() if "llmroute.dev/gateway" not in json.dumps(row.document)]
"""All of the gateway that has routes: for the first of another one the injector waits a second, as it should."""
BAR_SECONDS = 0.02

Buckets = Counter[float]
"""Admissions that took at most so many seconds, cumulative."""


def review(namespace: str, pod: dict[str, Any]) -> bytes:
    """As kube-apiserver asks about a new pod; its name is still to come."""
    request = {
        "uid": str(uuid.uuid4()),
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


async def admit(injector: InjectorProcess, namespace: str, count: int) -> list[float]:
    """Seconds that the asker saw, each."""
    context = ssl.create_default_context(cadata=injector.authority.pem)
    documents = itertools.cycle(PODS)
    bodies = iter([review(namespace, next(documents)) for _ in range(count)])
    seconds: list[float] = []
    connector = aiohttp.TCPConnector(ssl=context, limit=AT_ONCE)

    async def ask(session: aiohttp.ClientSession) -> None:
        for body in bodies:
            began = time.perf_counter()
            async with session.post(f"https://127.0.0.1:{injector.port}/mutate", data=body) as response:
                response.raise_for_status()
                answer = await response.json()
            assert "allowed" in answer["response"], answer
            seconds.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=connector, headers={"content-type": "application/json"}) as session:
        await asyncio.gather(*(ask(session) for _ in range(AT_ONCE)))
    return seconds


def histogram(injector: InjectorProcess) -> Buckets:
    buckets: Buckets = Counter()
    for family in text_string_to_metric_families(injector.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "llmroute_injector_admission_seconds_bucket":
                buckets[float(sample.labels["le"])] = int(sample.value)
    return buckets


def below(buckets: Buckets, share: float) -> float:
    """The bound of the bucket in which this share of all admissions has been reached."""
    wanted = share * buckets[float("inf")]
    return min(bound for bound, count in buckets.items() if count >= wanted)


def percentile(seconds: list[float], number: int) -> float:
    return statistics.quantiles(seconds, n=100)[number - 1]


def mib(injector: InjectorProcess) -> float:
    return process.rss_bytes(injector.process.pid) / 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as made, running_control_plane(Path(made)) as control_plane:
        space = Namespace(control_plane, control_plane.new_namespace())
        space.apply(*(route(f"r{number}") for number in range(ROUTES)))
        with running_injector(control_plane, Path(made) / "injector") as injector:
            print(f"{ADMISSIONS:,} admissions, {AT_ONCE} at a time; load of the machine {os.getloadavg()[0]:.1f}")
            asyncio.run(admit(injector, space.name, 200))  # what is made on first use is in the memory from here on
            before, began = histogram(injector), mib(injector)
            seconds = asyncio.run(admit(injector, space.name, ADMISSIONS))
            after = mib(injector)
            inside = histogram(injector)
            inside.subtract(before)
            assert inside[float("inf")] == ADMISSIONS, inside
            print(
                f"inside the webhook: p50 at most {below(inside, 0.5) * 1000:g} ms, p99 at most "
                f"{below(inside, 0.99) * 1000:g} ms; {inside[BAR_SECONDS] / ADMISSIONS:.1%} within 20 ms"
            )
            print(
                f"as the asker sees it, handshake included: p50 {percentile(seconds, 50) * 1000:.1f} ms, "
                f"p99 {percentile(seconds, 99) * 1000:.1f} ms"
            )
            asyncio.run(admit(injector, space.name, 2 * ADMISSIONS))
            print(f"memory: {began:.1f} MiB, after 1,000 {after:.1f} MiB, after 3,000 {mib(injector):.1f} MiB")
            print(f"{'met' if below(inside, 0.99) <= BAR_SECONDS else 'NOT met'}: p99 below 20 ms inside the webhook")


if __name__ == "__main__":
    main()

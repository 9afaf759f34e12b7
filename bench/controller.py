"""`python -m bench.controller`: the controller with 1,000 routes in 100 namespaces, on a real API server.

Beside `make bench`, which measures gateways: this one needs the tests' control plane. Prints what DESIGN's bars ask
for: cold start to all programmed, a changed route in its ConfigMap, a restart with nothing to do, and idling.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.operator.controller_process import ControllerProcess, grant_rights, running_controller
from tests.operator.namespace import route
from tests.waiting import wait_until

NAMESPACES = 100
ROUTES_EACH = 10
MODELS_EACH = 5
EDITS = 40
ROUTES = "/apis/llmroute.dev/v1alpha1/llmroutes"


def documents() -> Iterator[dict[str, Any]]:
    for space in range(NAMESPACES):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"bench-{space}"}}
    for space in range(NAMESPACES):
        for number in range(ROUTES_EACH):
            made = route(f"r{number}", *(f"m{number}-{model}" for model in range(MODELS_EACH)))
            yield {**made, "metadata": {**made["metadata"], "namespace": f"bench-{space}"}}


def all_programmed(control_plane: ControlPlane) -> bool:
    items = control_plane.read(ROUTES)["items"]
    return len(items) == NAMESPACES * ROUTES_EACH and all(
        {"type": "Programmed", "status": "True"}.items() <= condition.items()
        for item in items
        for condition in item.get("status", {}).get("conditions", [{}])
        if condition.get("type") in (None, "Programmed")
    )


def edit(control_plane: ControlPlane, number: int) -> float:
    """Seconds from the start of `kubectl patch` (0.1 of them are its own) to the change standing in the ConfigMap."""
    space = f"bench-{number % NAMESPACES}"
    patch = [{"op": "replace", "path": "/spec/models/0/retry", "value": {"attempts": 2 + number % 4}}]
    began = time.monotonic()
    control_plane.kubectl("patch", "llmroute", "r3", "-n", space, "--type=json", "-p", json.dumps(patch))
    path = f"/api/v1/namespaces/{space}/configmaps/llmroute-gateway-default"
    wait_until(lambda: '"generation":2' in control_plane.read(path)["data"]["route.r3.json"], "the change", every=0.005)
    return time.monotonic() - began


def memory_mib(controller: ControllerProcess) -> float:
    for line in Path(f"/proc/{controller.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(controller: ControllerProcess) -> float:
    fields = Path(f"/proc/{controller.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    with running_control_plane(Path(tempfile.mkdtemp())) as control_plane:
        control_plane.kubectl("apply", "--server-side", "-f", "-", input="\n".join(map(_document, documents())))
        grant_rights(control_plane, [])
        began = time.monotonic()
        with running_controller(control_plane) as controller:
            wait_until(lambda: all_programmed(control_plane), "all routes to be programmed", 300, every=0.25)
            print(f"cold start to all of {NAMESPACES * ROUTES_EACH} programmed: {time.monotonic() - began:.1f} s")
            controller.wait_until_idle()
            print(f"  its own CPU time {cpu_seconds(controller):.1f} s, memory {memory_mib(controller):.0f} MiB")
            print(
                f"  reconciles {controller.metric('reconciles_total', result='success'):.0f}, "
                f"writes {controller.writes:.0f}"
            )
            seconds = sorted(edit(control_plane, number) for number in range(EDITS))
            print(
                f"kubectl patch to the change in the ConfigMap: median {statistics.median(seconds) * 1000:.0f} ms, "
                f"slowest of {EDITS} {seconds[-1] * 1000:.0f} ms"
            )
            controller.wait_until_idle()
        began = time.monotonic()
        with running_controller(control_plane) as controller:
            controller.wait_until_idle()
            print(
                f"restart with nothing to do: {time.monotonic() - began:.1f} s to idle, {controller.writes:.0f} writes"
            )
            used, since = cpu_seconds(controller), time.monotonic()
            time.sleep(20)
            share = (cpu_seconds(controller) - used) / (time.monotonic() - since)
            print(f"idle: {share:.1%} of a core, {controller.writes:.0f} writes, {memory_mib(controller):.0f} MiB")


def _document(document: dict[str, Any]) -> str:
    return f"---\n{json.dumps(document)}"


if __name__ == "__main__":
    main()

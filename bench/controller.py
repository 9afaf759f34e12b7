"""`python -m bench.controller`: the controller with 1,000 routes, 100 namespaces and 3,000 pods, on a real API server.

Beside `make bench`, which measures gateways: this one needs the tests' control plane. The pods are objects, their
gateways one stand-in (`pods.py`). Prints what DESIGN's bars ask for: cold start to all programmed, a changed route in
its ConfigMap and in its pods, a storm of edits, a restart with nothing to do, and idling; with memory and API calls.
"""

import json
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.pods import StandIn, address_of, edit_often, make, make_pods, stand_in
from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.operator.controller_process import ControllerProcess, grant_rights, running_controller
from tests.operator.namespace import route
from tests.waiting import wait_until

NAMESPACES = 100
ROUTES_EACH = 10
MODELS_EACH = 5
PODS_EACH = 30
EDITS = 40
ROUTES = "/apis/llmroute.dev/v1alpha1/llmroutes"


def make_routes(control_plane: ControlPlane) -> None:
    spaces, routes = [], []
    for space in range(NAMESPACES):
        name = f"bench-{space}"
        spaces.append(
            ("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        for number in range(ROUTES_EACH):
            made = route(f"r{number}", *(f"m{number}-{model}" for model in range(MODELS_EACH)))
            routes.append((f"/apis/llmroute.dev/v1alpha1/namespaces/{name}/llmroutes", made))
    make(control_plane, spaces, routes)


def all_programmed(control_plane: ControlPlane) -> bool:
    items = control_plane.read(ROUTES)["items"]
    return len(items) == NAMESPACES * ROUTES_EACH and all(
        {"type": "Programmed", "status": "True"}.items() <= condition.items()
        for item in items
        for condition in item.get("status", {}).get("conditions", [{}])
        if condition.get("type") in (None, "Programmed")
    )


def edit(control_plane: ControlPlane, number: int) -> tuple[float, float]:
    """Seconds from the start and from the end of `kubectl patch` to the change standing in the ConfigMap."""
    space = f"bench-{number % NAMESPACES}"
    patch = [{"op": "replace", "path": "/spec/models/0/retry", "value": {"attempts": 2 + number % 4}}]
    began = time.monotonic()
    control_plane.kubectl("patch", "llmroute", "r3", "-n", space, "--type=json", "-p", json.dumps(patch))
    patched = time.monotonic()
    path = f"/api/v1/namespaces/{space}/configmaps/llmroute-gateway-default"
    wait_until(lambda: '"generation":2' in control_plane.read(path)["data"]["route.r3.json"], "the change", every=0.005)
    return time.monotonic() - began, time.monotonic() - patched


def all_synced(control_plane: ControlPlane) -> bool:
    summary = f"{PODS_EACH}/{PODS_EACH}"
    items = control_plane.read(ROUTES)["items"]
    return all(item.get("status", {}).get("sidecars", {}).get("summary") == summary for item in items)


def rollout(control_plane: ControlPlane, pods: StandIn, number: int) -> float:
    """Seconds from the start of `kubectl patch` to the new revision in every pod of the gateway."""
    space = number % NAMESPACES
    patch = [{"op": "replace", "path": "/spec/models/0/retry", "value": {"attempts": 2 + number % 4}}]
    path = f"/api/v1/namespaces/bench-{space}/configmaps/llmroute-gateway-default"
    before = control_plane.read(path)["metadata"]["resourceVersion"]
    addresses = [address_of(place) for place in range(space, NAMESPACES * PODS_EACH, NAMESPACES)]
    began = time.monotonic()
    control_plane.kubectl("patch", "llmroute", "r4", "-n", f"bench-{space}", "--type=json", "-p", json.dumps(patch))
    wait_until(lambda: control_plane.read(path)["metadata"]["resourceVersion"] != before, "the write", every=0.005)
    revision = json.loads(control_plane.read(path)["data"]["gateway.json"])["revision"]
    wait_until(lambda: all(pods.revisions.get(one) == revision for one in addresses), "all pods to serve it", 60)
    return time.monotonic() - began


def storm(control_plane: ControlPlane, controller: ControllerProcess) -> float:
    """Writes of the ConfigMap that 100 edits of one route come to."""
    before = controller.metric("writes_total", kind="ConfigMap")
    edit_often(control_plane, "bench-0", "r1", [{"backoff": f"{200 + number}ms"} for number in range(100)])
    path = "/api/v1/namespaces/bench-0/configmaps/llmroute-gateway-default"
    wait_until(lambda: '"retryBackoff":0.299' in control_plane.read(path)["data"]["route.r1.json"], "the last edit")
    controller.wait_until_idle()
    return controller.metric("writes_total", kind="ConfigMap") - before


def api_calls(control_plane: ControlPlane) -> Counter[str]:
    """Answered so far, by verb and resource; of routes' lists most are this program's own."""
    calls: Counter[str] = Counter()
    for line in control_plane.kubectl("get", "--raw", "/metrics").stdout.splitlines():
        if line.startswith("apiserver_request_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels["resource"] in ("pods", "configmaps", "llmroutes", "namespaces"):
                kind = "/".join(filter(None, (labels["resource"], labels["subresource"])))
                calls[f"{labels['verb']} {kind}"] += int(float(line.rpartition(" ")[2]))
    return calls


def said(calls: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(calls.items()) if count)


def memory_mib(controller: ControllerProcess) -> float:
    for line in Path(f"/proc/{controller.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(controller: ControllerProcess) -> float:
    fields = Path(f"/proc/{controller.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def say(text: str) -> None:
    print(f"{text} (load {os.getloadavg()[0]:.0f})", flush=True)


def main() -> None:
    with running_control_plane(Path(tempfile.mkdtemp())) as control_plane, stand_in(control_plane) as pods:
        make_routes(control_plane)
        make_pods(control_plane, NAMESPACES, PODS_EACH, pods.port)
        grant_rights(control_plane, [])
        calls = api_calls(control_plane)
        began = time.monotonic()
        with running_controller(control_plane) as controller:
            wait_until(lambda: all_programmed(control_plane), "all routes to be programmed", 300, every=0.25)
            say(f"cold start to all of {NAMESPACES * ROUTES_EACH} programmed: {time.monotonic() - began:.1f} s")
            wait_until(lambda: all_synced(control_plane), "all pods to be synced", 300, every=0.5)
            print(f"  and to all of {NAMESPACES * PODS_EACH} pods brought to it: {time.monotonic() - began:.1f} s")
            controller.wait_until_idle()
            print(f"  API calls: {said(api_calls(control_plane) - calls)}; pods asked {pods.questions} times")
            print(f"  its own CPU time {cpu_seconds(controller):.1f} s, memory {memory_mib(controller):.0f} MiB")
            print(
                f"  reconciles {controller.metric('reconciles_total', result='success'):.0f}, "
                f"writes {controller.writes:.0f}"
            )
            edits = [edit(control_plane, number) for number in range(EDITS)]
            for what, seconds in zip(("start", "end"), map(sorted, zip(*edits, strict=True)), strict=True):
                say(
                    f"from the {what} of kubectl patch to the change in the ConfigMap: median "
                    f"{statistics.median(seconds) * 1000:.0f} ms, slowest of {EDITS} {seconds[-1] * 1000:.0f} ms"
                )
            wait_until(lambda: all_synced(control_plane), "all pods to be told", 120, every=0.5)
            calls = api_calls(control_plane)
            seconds = sorted(rollout(control_plane, pods, number) for number in range(EDITS))
            say(
                f"kubectl patch to all {PODS_EACH} pods of the gateway: median {statistics.median(seconds):.2f} s, "
                f"slowest of {EDITS} {seconds[-1]:.2f} s"
            )
            wait_until(lambda: all_synced(control_plane), "all pods to be told", 60, every=0.5)
            print(f"  API calls: {said(api_calls(control_plane) - calls)}")
            print(f"100 edits of one route: {storm(control_plane, controller):.0f} writes of its ConfigMap")
            wait_until(lambda: all_synced(control_plane), "all pods to be told", 60, every=0.5)
            controller.wait_until_idle()
        began, asked = time.monotonic(), pods.questions
        with running_controller(control_plane) as controller:
            controller.wait_until_idle()
            print(
                f"restart with nothing to do: {time.monotonic() - began:.1f} s to idle, {controller.writes:.0f} writes"
            )
            wait_until(lambda: pods.questions >= asked + NAMESPACES * PODS_EACH, "each pod to be asked once", 120)
            controller.wait_until_idle()
            calls = api_calls(control_plane)
            used, since = cpu_seconds(controller), time.monotonic()
            time.sleep(20)
            share = (cpu_seconds(controller) - used) / (time.monotonic() - since)
            say(f"idle: {share:.1%} of a core, {controller.writes:.0f} writes, {memory_mib(controller):.0f} MiB")
            print(f"  API calls in 20 s: {said(api_calls(control_plane) - calls)}")


if __name__ == "__main__":
    main()

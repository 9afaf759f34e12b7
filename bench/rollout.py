"""`python -m bench.rollout`: from `kubectl apply` of a changed route to its answer in all of 50 pods of a real node.

Beside `make bench`: this one needs the tests' node (root). The gateways are the real image in real pods, touched by the
real controller, synced by a kubelet with its own defaults, and asked by one process in the node's network
(`prober.py`). Where the time goes is told by what can be seen from outside: the ConfigMap's write, each pod's touch,
the swap of its volume's files, its first answer by the new route.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.node_rig import JSON, KEY, METADATA, SPACE, Watcher, install, program, say
from llmroute_contract.pods import CONFIG_VOLUME, DATA_PORT, GATEWAY_LABEL, REVISION_ANNOTATION
from tests.cluster.node import RealNode, running_node
from tests.cluster.workloads import Document
from tests.waiting import wait_until

ASKED_EVERY_SECONDS = 0.1
WAIT_SECONDS = 150.0
"""For a pod that was forgotten: kubelet's own look comes within it, and is counted."""
STAGES = ("the ConfigMap is written", "the pod is touched", "its files are swapped", "it answers by the new route")


@dataclass
class Seen:
    """What happened when, as it was seen: by edit, or by pod and edit."""

    written: dict[int, float] = field(default_factory=dict)
    touched: dict[tuple[str, str], float] = field(default_factory=dict)
    """By pod and revision."""
    revisions: dict[int, str] = field(default_factory=dict)
    answered: dict[tuple[str, int], float] = field(default_factory=dict)
    silent: int = 0
    """Times that a gateway gave no answer."""

    def take_answer(self, line: str) -> None:
        told = json.loads(line)
        if told["tokens"] == 0:
            self.silent += 1
        else:
            self.answered.setdefault((told["pod"], told["tokens"]), told["at"])

    def take_configmap(self, _kind: str, document: Document) -> None:
        now = time.time()
        route = json.loads(document["data"]["route.chat.json"])
        number = int(route["upstreams"][0]["url"].rpartition("=")[2])
        self.written.setdefault(number, now)
        self.revisions.setdefault(number, json.loads(document["data"]["gateway.json"])["revision"])

    def take_pod(self, _kind: str, document: Document) -> None:
        revision = (document["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION)
        if revision is not None:
            self.touched.setdefault((document["metadata"]["name"], revision), time.time())


def route(number: int) -> Document:
    """Each edit is told by how many tokens its answers have."""
    spec = {
        "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
        "upstreams": [{"name": "up", "url": f"mock://local?tokens={number}"}],
        "models": [{"name": "chat", "targets": [{"upstream": "up"}]}],
        "logging": {"sample": [{"status": "2xx", "rate": 0}]},
    }
    return {"apiVersion": "llmroute.dev/v1alpha1", "kind": "LLMRoute", "metadata": {"name": "chat"}, "spec": spec}


def asked(pods: Sequence[Document]) -> str:
    """What prober.py is to ask."""
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
    return json.dumps({"pods": addresses, "port": DATA_PORT, "key": KEY, "every": ASKED_EVERY_SECONDS})


def watcher(node: RealNode, seen: Seen) -> Watcher:
    name = {"fieldSelector": "metadata.name=llmroute-gateway-default"}
    configmap = (name, JSON, seen.take_configmap)
    return Watcher(node, {"configmaps": configmap, "pods": ({"labelSelector": GATEWAY_LABEL}, METADATA, seen.take_pod)})


@dataclass(frozen=True)
class Edit:
    """Seconds since `kubectl apply` began: its own, and each pod's way to the new answer, one value a stage."""

    applied: float
    pods: Sequence[Sequence[float]]
    load: float


def swapped_at(node: RealNode, pod: Document) -> float:
    """When kubelet renamed the link to the pod's configuration last."""
    volumes = node.control_plane.folder / "kubelet" / "pods" / pod["metadata"]["uid"] / "volumes"
    swapped: float = (volumes / "kubernetes.io~configmap" / CONFIG_VOLUME / "..data").lstat().st_mtime
    return swapped


def make_edit(node: RealNode, pods: Sequence[Document], seen: Seen, number: int) -> Edit:
    names = [pod["metadata"]["name"] for pod in pods]
    text = json.dumps(route(number))
    began = time.time()
    node.control_plane.kubectl("-n", SPACE, "apply", "-f", "-", input=text)
    applied = time.time() - began
    with contextlib.suppress(AssertionError):
        wait_until(lambda: all((name, number) in seen.answered for name in names), "all pods", WAIT_SECONDS, every=0.05)
    revision = seen.revisions[number]
    never = float("inf")
    ways = [
        (
            seen.written[number] - began,
            seen.touched.get((name, revision), never) - began,
            swapped_at(node, pod) - began,
            seen.answered.get((name, number), never) - began,
        )
        for name, pod in zip(names, pods, strict=True)
    ]
    return Edit(applied, ways, os.getloadavg()[0])


def told(values: Sequence[float]) -> str:
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.9, 0.99, 1)]
    return " | ".join(f"{value:.2f}" for value in at)


def report(edits: Sequence[Edit]) -> None:
    print("| seconds since `kubectl apply` began | p50 | p90 | p99 | most |\n|---|--:|--:|--:|--:|")
    print(f"| `kubectl apply` has ended | {told([edit.applied for edit in edits])} |")
    for place, stage in enumerate(STAGES):
        print(f"| {stage} | {told([way[place] for edit in edits for way in edit.pods])} |")
    last = [max(way[-1] for way in edit.pods) for edit in edits]
    print(f"| the last of an edit's pods answers by it | {told(last)} |")
    print("\n| seconds from one to the next | p50 | p90 | p99 | most |\n|---|--:|--:|--:|--:|")
    for place in range(1, len(STAGES)):
        steps = [way[place] - way[place - 1] for edit in edits for way in edit.pods]
        print(f"| {STAGES[place - 1]} → {STAGES[place]} | {told(steps)} |")
    loads = sorted(edit.load for edit in edits)
    print(
        f"\n{len(edits)} edits, {len(edits[0].pods)} pods, {os.cpu_count()} cores for all of it, load {loads[0]:.0f} "
        f"to {loads[-1]:.0f}; each gateway was asked each {ASKED_EVERY_SECONDS} s."
    )


def measure(node: RealNode, pods: Sequence[Document], count: int, pause: float) -> Sequence[Edit]:
    """So many edits; the route is that of edit 1 before."""
    seen, edits = Seen(), []
    script = Path(__file__).with_name("prober.py")
    with program(node, script, seen.take_answer) as question, watcher(node, seen):
        question.write(asked(pods))
        question.close()
        names = [pod["metadata"]["name"] for pod in pods]
        wait_until(lambda: all((name, 1) in seen.answered for name in names), "all pods to be asked", 60)
        for number in range(2, count + 2):
            time.sleep(pause)  # an edit meets a quiet gateway
            edits.append(make_edit(node, pods, seen, number))
            say(f"edit {number - 1}: all pods after {max(way[-1] for way in edits[-1].pods):.2f} s")
    say(f"gateways gave {seen.silent} times no answer")
    return edits


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rollout", description=__doc__)
    parser.add_argument("--pods", type=int, default=50)
    parser.add_argument("--edits", type=int, default=12)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two edits (%(default)s)")
    options = parser.parse_args()
    with running_node(Path(tempfile.mkdtemp(prefix="llmroute-rollout-"))) as node:
        report(measure(node, install(node, route(1), options.pods), options.edits, options.pause))


if __name__ == "__main__":
    main()

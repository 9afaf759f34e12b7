"""`python -m bench.scaling`: a limit of scope Gateway, shared out without a server, while a Deployment scales from 2 to
50 pods and back on a real node.

Beside `make bench`: this one needs the tests' node (root). Everything is real: the controller counts the pods, kubelet
brings the shares, the gateways count. One process deals calls out in turn to all that are ready, three times what the
limit allows; each answer tells that gateway's share. What is shown: the calls admitted in each window, beside the sum
of the shares that the gateways then had.
"""

import argparse
import bisect
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.node_rig import JSON, KEY, SPACE, Watcher, install, program, say
from llmroute_contract.pods import DATA_PORT
from tests.cluster.node import RealNode, running_node
from tests.cluster.workloads import Document
from tests.waiting import wait_until

ASKED_FOR = 3
"""Times the limit."""
ROW_SECONDS = 5.0
_BAR = 25
"""Characters for the whole limit."""


@dataclass
class Seen:
    limit: int
    window: float
    input: IO[str] | None = None
    admitted: list[float] = field(default_factory=list)
    shares: dict[str, int] = field(default_factory=dict)
    """What each gateway that is asked told last."""
    sums: list[tuple[float, int, int]] = field(default_factory=list)
    """When the sum of all shares changed, to what, of how many."""
    ready: dict[str, str] = field(default_factory=dict)

    def take_answer(self, line: str) -> None:
        told = json.loads(line)
        if told["admitted"]:
            self.admitted.append(told["at"])
        if told["share"] is not None and told["pod"] in self.ready and self.shares.get(told["pod"]) != told["share"]:
            self.shares[told["pod"]] = told["share"]
            self._note()

    def take_pod(self, kind: str, pod: Document) -> None:
        name = pod["metadata"]["name"]
        conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
        is_ready = conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
        if is_ready and kind != "DELETED":
            if name not in self.ready:
                self.ready[name] = pod["status"]["podIP"]
                self._say(name, pod["status"]["podIP"])
        elif self.ready.pop(name, None) is not None:
            self.shares.pop(name, None)
            self._say(name, None)
            self._note()

    def _say(self, pod: str, address: str | None) -> None:
        assert self.input is not None
        self.input.write(json.dumps({"pod": pod, "address": address}) + "\n")
        self.input.flush()

    def _note(self) -> None:
        shares = list(self.shares.values())
        self.sums.append((time.time(), sum(shares), len(shares)))

    def settled(self, pods: int) -> bool:
        """So many are asked, and their shares come to the limit."""
        return len(self.ready) == len(self.shares) == pods and sum(list(self.shares.values())) == self.limit

    def in_window(self, end: float) -> int:
        return bisect.bisect_right(self.admitted, end) - bisect.bisect_right(self.admitted, end - self.window)

    def at(self, moment: float) -> tuple[int, int]:
        """The sum of the shares then, and of how many gateways."""
        before = [(total, count) for when, total, count in self.sums if when <= moment]
        return before[-1] if before else (0, 0)


def route(limit: int, window: float) -> Document:
    spec = {
        "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
        "upstreams": [{"name": "up", "url": "mock://local?tokens=1"}],
        "models": [{"name": "chat", "targets": [{"upstream": "up"}]}],
        "limits": [{"name": "all", "per": "Gateway", "requests": limit, "window": f"{window:g}s", "scope": "Gateway"}],
        "logging": {"sample": [{"status": "2xx", "rate": 0}, {"status": "429", "rate": 0}]},
    }
    return {"apiVersion": "llmroute.dev/v1alpha1", "kind": "LLMRoute", "metadata": {"name": "chat"}, "spec": spec}


Phase = tuple[str, float]
"""What begins, and when."""


def grow(node: RealNode, seen: Seen, many: int) -> Iterator[Phase]:
    wait_until(lambda: seen.settled(2), "two gateways to share the limit", 120, every=0.1)
    yield "2 pods share it", time.time()
    time.sleep(2 * seen.window)
    yield f"scaled to {many}", time.time()
    scale(node, many)
    wait_until(lambda: seen.settled(many), f"{many} gateways to share the limit", 400, every=0.1)
    yield f"{many} pods share it", time.time()
    time.sleep(2 * seen.window)


def shrink(node: RealNode, seen: Seen, many: int) -> Iterator[Phase]:
    wait_until(lambda: seen.settled(many), f"{many} gateways to share the limit", 120, every=0.1)
    yield "scaled to 2", time.time()
    scale(node, 2)
    wait_until(lambda: seen.settled(2), "two gateways to share the limit again", 200, every=0.1)
    yield "2 pods share it", time.time()
    time.sleep(2 * seen.window)
    yield "end", time.time()


def scale(node: RealNode, count: int) -> None:
    node.control_plane.kubectl("-n", SPACE, "scale", "deployment/web", f"--replicas={count}")


@contextmanager
def dealing(node: RealNode, seen: Seen) -> Iterator[None]:
    """Calls are dealt out to all that are ready, and what comes of them is seen."""
    every = seen.window / seen.limit / ASKED_FOR
    calls = program(node, Path(__file__).with_name("dealer.py"), seen.take_answer, str(DATA_PORT), KEY, f"{every}")
    with calls as seen.input, Watcher(node, {"pods": ({"labelSelector": "app=web"}, JSON, seen.take_pod)}):
        yield


def report(seen: Seen, phases: Sequence[Phase]) -> None:
    seen.admitted.sort()
    began, end = phases[0][1], phases[-1][1]
    print(f"| second | | pods asked | sum of their shares | admitted in the last {seen.window:g} s | |")
    print("|--:|---|--:|--:|--:|---|")
    told = 0
    moment = began + seen.window
    while moment <= end:
        passed = [name for name, at in phases if at <= moment]
        name = passed[-1] if len(passed) > told else ""
        told = len(passed)
        total, count = seen.at(moment)
        admitted = seen.in_window(moment)
        bar = "█" * round(_BAR * admitted / seen.limit)
        print(f"| {moment - began:.0f} | {name} | {count} | {total} | {admitted} | {bar} |")
        moment += ROW_SECONDS
    print(f"\n| phase | seconds | most admitted in any {seen.window:g} s that end in it | of the limit |")
    print("|---|--:|--:|--:|")
    for (name, at), (_, until) in itertools.pairwise(phases):
        most = _most(seen, at, until)
        print(f"| {name} | {until - at:.0f} | {most} | {most / seen.limit:.0%} |")
        if "share" in name:
            most = _most(seen, at + seen.window, until)
            print(f"| — a window later on | {until - at - seen.window:.0f} | {most} | {most / seen.limit:.0%} |")


def _most(seen: Seen, since: float, until: float) -> int:
    """Where it is highest a call was just admitted."""
    return max((seen.in_window(at) for at in seen.admitted if since <= at < until), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--pods", type=int, default=50)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--window", type=float, default=20.0, help="seconds (%(default)s)")
    options = parser.parse_args()
    seen = Seen(options.limit, options.window)
    with running_node(Path(tempfile.mkdtemp(prefix="llmroute-scaling-"))) as node:
        install(node, route(options.limit, options.window), 2)
        phases = []
        with dealing(node, seen):
            for phase in itertools.chain(grow(node, seen, options.pods), shrink(node, seen, options.pods)):
                phases.append(phase)
                say(phase[0])
    report(seen, phases)


if __name__ == "__main__":
    main()

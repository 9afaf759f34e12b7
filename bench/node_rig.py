"""What measurements on a real node share: the controller as a pod, gateways that one process can ask, watches."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from bench.pods import session
from tests.cluster.images import PAUSE
from tests.cluster.node import RealNode
from tests.cluster.workloads import (
    Document,
    calling_pod,
    controller,
    deployment,
    restricted_namespace,
    secret,
    with_gateway_label,
)
from tests.operator.controller_process import CLUSTER_RBAC
from tests.waiting import wait_until

SPACE = "bench"
KEY = "bench-client"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_START_SECONDS = 420.0
_BATCH = 10
"""Pods that start at a time: fifty at once on two cores would all be late for their probes."""
# The chart's and the injector's defaults, smaller for fifty pods on one node: a pod without a request gets no share of
# a busy machine at all, and what would be measured is its neighbours.
_CONTROLLER_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
_GATEWAY_RESOURCES = {"requests": {"cpu": "25m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}

Take = Callable[[str, Document], None]
"""An event's kind (ADDED, MODIFIED, DELETED) and its object."""


def gateways(node: RealNode, count: int) -> Document:
    """The data port listens on the pod's address, so that one process can ask all of them; the app sleeps."""
    pod = calling_pod(node.app, node.gateway, secrets=["clients"])
    gateway, app = pod["initContainers"][0], pod["containers"][0]
    gateway["args"].append("--host=0.0.0.0")
    gateway["resources"] = _GATEWAY_RESOURCES
    gateway["startupProbe"] |= {"periodSeconds": 2, "failureThreshold": 300}
    gateway["env"] = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    asleep = {"name": "app", "image": PAUSE, "imagePullPolicy": "Never", "securityContext": app["securityContext"]}
    return with_gateway_label(
        deployment("web", {**pod, "containers": [asleep], "terminationGracePeriodSeconds": 1}, replicas=count)
    )


def install(node: RealNode, route: Document, count: int) -> Sequence[Document]:
    """The controller at work, and so many gateways that serve the route: their pods."""
    plane = node.control_plane
    plane.kubectl("apply", "-f", str(CLUSTER_RBAC))
    made = controller(node.operator)
    made["spec"]["template"]["spec"]["containers"][0]["resources"] = _CONTROLLER_RESOURCES
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(made))
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(restricted_namespace(SPACE)))
    for replicas in [*range(_BATCH, count, _BATCH), count]:
        documents = [secret("clients", {"web": KEY}), route, gateways(node, replicas)]
        plane.kubectl("-n", SPACE, "apply", "-f", "-", input=yaml.safe_dump_all(documents))
        told = f"{replicas}/{replicas}"
        wait_until(lambda told=told: summary(node) == told, "all pods to serve the route", _START_SECONDS, every=1)  # type: ignore[misc]
        say(f"{replicas} pods serve the route")
    return pods_of(node)


def pods_of(node: RealNode) -> Sequence[Document]:
    return list(node.control_plane.get("-n", SPACE, "pods", "-l", "app=web")["items"])


def say(text: str) -> None:
    print(f"{text} (load {os.getloadavg()[0]:.0f})", file=sys.stderr, flush=True)


def summary(node: RealNode) -> str:
    """What the route's status says of its pods."""
    route = node.control_plane.get("-n", SPACE, "llmroute", "chat")
    said: str = route.get("status", {}).get("sidecars", {}).get("summary", "")
    return said


@contextmanager
def program(node: RealNode, path: Path, take: Callable[[str], None], *arguments: str) -> Iterator[IO[str]]:
    """One that runs in the node's network, until the end; its input, and each line of its output taken."""
    command = node.inside(sys.executable, "-I", str(path), *arguments)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None
    output = process.stdout

    def read() -> None:
        for line in output:
            take(line)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield process.stdin
    finally:
        process.kill()
        process.wait()
        reading.join(10)
        output.close()


class Watcher:
    """Follows kinds of the namespace in a thread of its own: of each the query, the media type and who takes events."""

    def __init__(self, node: RealNode, kinds: Mapping[str, tuple[Mapping[str, str], str, Take]]) -> None:
        self._plane = node.control_plane
        self._kinds = kinds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._following.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._following = self._loop.create_task(self._follow_all())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._following)

    async def _follow_all(self) -> None:
        await asyncio.gather(*(self._follow(kind, *how) for kind, how in self._kinds.items()))

    async def _follow(self, kind: str, query: Mapping[str, str], accept: str, take: Take) -> None:
        url = f"{self._plane.url}/api/v1/namespaces/{SPACE}/{kind}"
        watching = {**query, "watch": "true", "timeoutSeconds": "1800"}
        async with (
            session(self._plane) as asking,
            asking.get(url, params=watching, headers={"accept": accept}) as answer,
        ):
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event: dict[str, Any] = json.loads(line)
                    take(event["type"], event["object"])

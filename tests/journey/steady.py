"""Who must notice nothing while llmroute is installed, upgraded and removed: an app that begins a call each ten
milliseconds, and people who make pods all the time.
"""

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llmroute_contract.pods import GATEWAY_CONTAINER
from tests.cluster.control_plane import ControlPlane
from tests.cluster.workloads import Document, asking_pod, deployment, labelled, pacing_pod
from tests.journey.shop import SECONDS, App, Shop
from tests.waiting import wait_until

_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Pace:
    """The app, by what its log says of all its calls so far."""

    app: App

    def sums(self) -> dict[str, Any]:
        lines = self.app.shop.node.logs(self.app.shop.namespace, self.app.pod, "app", "--tail=1").splitlines()
        return dict(json.loads(lines[0])) if lines else {"answered": 0, "lost": [], "said": ""}

    def goes_on(self, said: str | None = None) -> None:
        """Until a hundred calls more have been answered, the last of them with `said`; not one was ever lost."""
        before = self.sums()["answered"]

        def answered() -> bool:
            sums = self.sums()
            return sums["answered"] >= before + 100 and said in (None, sums["said"])

        wait_until(answered, f"a hundred answers more ({said or 'any'})", SECONDS, every=0.3)
        assert self.sums()["lost"] == []

    def in_step(self) -> dict[str, Any]:
        """The sums at a moment at which every call that was due had begun."""

        def found() -> dict[str, Any] | None:
            sums = self.sums()
            return sums if sums.get("started") == sums.get("asked", 0) else None

        return wait_until(found, "as many calls as were due to have begun", SECONDS, every=0.3) or {}


@contextmanager
def paced(shop: Shop, name: str = "steady") -> Iterator[Pace]:
    shop.apply(labelled(deployment(name, pacing_pod(shop.node.app))))
    with shop.following(name) as app:
        yield Pace(app)


@dataclass
class Admissions:
    """A labelled pod is made again and again, as a dry run: the injector is asked, and nothing else comes of it."""

    plane: ControlPlane
    path: str
    pod: Document
    made: int = 0
    without_gateway: int = 0
    refused: list[str] = field(default_factory=list)
    last: Document = field(default_factory=dict)
    """The pod's gateway, as the last one was given it."""

    def make(self) -> None:
        headers = {"authorization": f"Bearer {self.plane.admin_token}", "content-type": "application/json"}
        request = urllib.request.Request(self.path, json.dumps(self.pod).encode(), headers)
        context = ssl.create_default_context(cafile=str(self.plane.ca_file))
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                pod = json.load(answer)
        except urllib.error.HTTPError as error:
            self.refused.append(error.read().decode(errors="replace"))
            return
        except OSError as error:
            self.refused.append(str(error))
            return
        self.made += 1
        found = [one for one in pod["spec"].get("initContainers", []) if one["name"] == GATEWAY_CONTAINER]
        self.without_gateway += not found
        self.last = found[0] if found else {}

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(_PAUSE_SECONDS):
            self.make()


@contextmanager
def admissions(shop: Shop) -> Iterator[Admissions]:
    """Made until the end; each request is a new connection to the API server."""
    plane = shop.node.control_plane
    template = labelled(deployment("made", asking_pod(shop.node.app)))["spec"]["template"]
    metadata = {**template["metadata"], "generateName": "made-"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    found = Admissions(plane, f"{plane.url}/api/v1/namespaces/{shop.namespace}/pods?dryRun=All", pod)
    stop = threading.Event()
    thread = threading.Thread(target=found.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()

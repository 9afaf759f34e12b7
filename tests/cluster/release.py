"""`helm` against a node, as a person types it, and the list of all that is in the cluster.

Owns how the chart is told the node's images, and how the node is emptied of all that is llmroute's.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import RealNode
from tools.chart import NAMESPACE

RELEASE = "llmroute"
CRD_NAME = "llmroutes.llmroute.dev"
_OURS = "app.kubernetes.io/part-of=llmroute"
_TIMEOUT = "180s"  # a slow machine; nothing here asserts a time
_UNTOLD = ("events", "leases", "ipaddresses", "apiservices", "componentstatuses")
"""They come and go by themselves, or are the shadow of what is listed: of a Service its address, of a CRD its group."""


@dataclass(frozen=True)
class Helm:
    program: Path
    plane: ControlPlane

    def run(self, *arguments: str) -> str:
        """Fails the test where helm fails, saying what helm said."""
        home = self.plane.folder / "helm"
        folders = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        command = [str(self.program), "--kubeconfig", str(self.plane.admin_kubeconfig), "--namespace", NAMESPACE]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=280, env={**os.environ, **folders}
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)} failed: {done.stderr.strip()}"
        return done.stdout

    def put(self, verb: str, chart: Path, *arguments: str) -> None:
        """`install` or `upgrade`, until all of it is ready."""
        self.run(verb, RELEASE, str(chart), "--wait", "--timeout", _TIMEOUT, *arguments)

    def test(self) -> str:
        return self.run("test", RELEASE, "--timeout", _TIMEOUT)

    def rollback(self, revision: int) -> None:
        self.run("rollback", RELEASE, str(revision), "--wait", "--timeout", _TIMEOUT)

    def uninstall(self, *arguments: str) -> None:
        self.run("uninstall", RELEASE, "--wait", "--timeout", _TIMEOUT, *arguments)

    def history(self) -> Sequence[str]:
        """The chart of each revision."""
        rows = self.run("history", RELEASE, "-o", "json")
        return [one["chart"] for one in json.loads(rows)]


def images_of(node: RealNode) -> Sequence[str]:
    """For the command line: the node's images, which are there and pulled from nowhere."""
    registry, _, _ = node.operator.rpartition("/")
    found = ["--set-string", f"image.registry={registry},image.pullPolicy=Never"]
    for part, reference in (("operator", node.operator), ("gateway", node.gateway)):
        name, _, tag = reference.removeprefix(f"{registry}/").partition(":")
        found += ["--set-string", f"image.{part}.name={name},image.{part}.tag={tag}"]
    return found


class Named(NamedTuple):
    kind: str
    namespace: str
    name: str


def everything(plane: ControlPlane) -> frozenset[Named]:
    """Every object of every kind that can be listed, in all namespaces and outside of them."""
    kinds = plane.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()
    told = ",".join(kind for kind in kinds if kind.partition(".")[0] not in _UNTOLD)
    columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
    rows = plane.kubectl("get", told, "-A", "-o", columns, "--no-headers").stdout.splitlines()
    return frozenset(Named(*row.split(maxsplit=2)) for row in rows)


def empty_of_llmroute(plane: ControlPlane) -> None:
    """Takes away what other tests put in, the CRD and with it every route included."""
    kinds = "mutatingwebhookconfigurations,clusterroles,clusterrolebindings"
    plane.kubectl("delete", kinds, "-l", _OURS)
    plane.kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")
    plane.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")

"""A team's namespace on a real node: two providers, one route, apps that call all the time and what came of it."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from tests.cluster.node import RealNode
from tests.cluster.workloads import (
    PROVIDER_PORT,
    Document,
    calling_pod,
    deployment,
    provider,
    restricted_namespace,
    secret,
    with_gateway_label,
)
from tests.waiting import wait_until

SECONDS = 120.0  # a slow machine; nothing here asserts a time
PROVIDER_KEY = f"sk-provider-{secrets.token_hex(12)}"
CLIENT_KEY = f"client-{secrets.token_hex(12)}"


@dataclass(frozen=True)
class Shop:
    """A team's namespace with two providers, one route and the apps that tests deploy."""

    node: RealNode
    namespace: str

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.node.control_plane.kubectl("-n", self.namespace, *arguments, **more).stdout

    def apply(self, *documents: Document) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str) -> Any:
        return self.node.control_plane.get("-n", self.namespace, kind, name)

    def route_to(self, name: str) -> None:
        """Applies the route with its one upstream at this provider's Service."""
        address = self.get("service", name)["spec"]["clusterIP"]
        upstream = {
            "name": "provider",
            "url": f"http://{address}:{PROVIDER_PORT}/v1",
            "credential": {"secretRef": {"name": "provider", "key": "api-key"}},
        }
        spec = {
            "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
            "upstreams": [upstream],
            "models": [{"name": "chat", "targets": [{"upstream": "provider"}]}],
        }
        route = {"apiVersion": "llmroute.dev/v1alpha1", "kind": "LLMRoute", "metadata": {"name": "chat"}, "spec": spec}
        self.apply(route)

    def condition(self, kind: str) -> Document:
        """The route's condition for its present generation; empty where there is none."""
        route = self.get("llmroute", "chat")
        for condition in route.get("status", {}).get("conditions", []):
            if condition["type"] == kind and condition["observedGeneration"] == route["metadata"]["generation"]:
                return dict(condition)
        return {}

    def pod_spec(self, *arguments: str, **environment: str) -> Document:
        images = self.node.app, self.node.gateway
        return calling_pod(*images, *arguments, secrets=["clients", "provider"], **environment)

    @contextmanager
    def app(self, name: str, **environment: str) -> Iterator["App"]:
        """A Deployment of one pod that calls all the time; gone at the end."""
        self.apply(with_gateway_label(deployment(name, self.pod_spec(**environment))))
        with self.following(name) as app:
            yield app

    @contextmanager
    def following(self, name: str) -> Iterator["App"]:
        """The one pod of a Deployment that was applied; both gone at the end."""
        try:
            yield App(self, wait_until(lambda: self._running(name), f"a running pod of {name}", SECONDS, every=0.2))
        finally:
            self.kubectl("delete", "deployment", name, "--wait=false", "--ignore-not-found")
            self.kubectl("delete", "pod", "-l", f"app={name}", "--grace-period=1", "--wait=false")

    def _running(self, name: str) -> str:
        pods = self.node.control_plane.get("-n", self.namespace, "pods", "-l", f"app={name}")["items"]
        names = [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]
        return names[0] if names else ""


@dataclass(frozen=True)
class App:
    shop: Shop
    pod: str

    def calls(self) -> list[dict[str, Any]]:
        """What came of each call so far."""
        return calls_of(self.shop.node.logs(self.shop.namespace, self.pod, "app"))

    def wait_for(self, said: str, count: int = 1) -> None:
        """Until the last so many calls were all answered with this."""

        def answered() -> bool:
            last = [call["said"] for call in self.calls()[-count:]]
            return last == [said] * count

        wait_until(answered, f"the app in {self.pod} to be told {said!r}", SECONDS, every=0.3)

    def exec(self, *command: str) -> str:
        return self.shop.node.exec(self.shop.namespace, self.pod, "app", *command)

    def restarts(self) -> dict[str, int]:
        status = self.shop.get("pod", self.pod)["status"]
        found = [*status["initContainerStatuses"], *status["containerStatuses"]]
        return {one["name"]: one["restartCount"] for one in found}


def calls_of(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}")]


def lost(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for call in calls if call["error"] is not None]


def open_shop(node: RealNode) -> Shop:
    """A namespace of its own, its providers up, its route at `first`."""
    namespace = f"shop-{secrets.token_hex(3)}"
    node.control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(restricted_namespace(namespace)))
    shop = Shop(node, namespace)
    shop.apply(
        secret("provider", {"api-key": PROVIDER_KEY}),
        secret("clients", {"web": CLIENT_KEY}),
        *provider("first", node.app, "first"),
        *provider("second", node.app, "second"),
        *provider("slow", node.app, "slow", GAP="0.1", WORDS="30"),
    )
    shop.route_to("first")
    shop.kubectl("wait", "--for=condition=Available", "deployment", "--all", f"--timeout={SECONDS:.0f}s")
    return shop

"""What a person does and sees in one namespace: kubectl apply, conditions, ConfigMaps."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from llmroute_contract.compiled import CompiledGateway, CompiledRoute, decode
from llmroute_operator.controller.configmap import EMPTIED_ANNOTATION
from tests.cluster.control_plane import ControlPlane
from tests.contract.routes import Document, model, spec_document
from tests.waiting import HANGS_AFTER, wait_until

SECONDS = HANGS_AFTER


def route(name: str, *models: str | Document, **spec: Any) -> Document:
    """An LLMRoute with these models (or one of its own name) at one upstream, changed as said."""
    made = [one if isinstance(one, dict) else model(one) for one in models or (name,)]
    return {
        "apiVersion": "llmroute.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": name},
        "spec": spec_document(made, **spec),
    }


@dataclass(frozen=True)
class Namespace:
    control_plane: ControlPlane
    name: str

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.control_plane.kubectl("-n", self.name, *arguments, **more).stdout

    def apply(self, *documents: Document) -> None:
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))

    def delete(self, name: str) -> None:
        self.kubectl("delete", "llmroute", name)

    # --- routes

    def route(self, name: str) -> Document:
        found: Document = self.control_plane.read(
            f"/apis/llmroute.dev/v1alpha1/namespaces/{self.name}/llmroutes/{name}"
        )
        return found

    def conditions(self, name: str) -> Mapping[str, Document]:
        """Those that speak of the present generation, by type."""
        found = self.route(name)
        return {
            one["type"]: one
            for one in found.get("status", {}).get("conditions", [])
            if one["observedGeneration"] == found["metadata"]["generation"]
        }

    def condition(self, name: str, kind: str, status: str, reason: str = "") -> str:
        """Waits until the condition of the present generation is so; its message."""

        def found() -> Document | None:
            condition = self.conditions(name).get(kind, {})
            return condition if (condition.get("status"), condition.get("reason")) == (status, reason or kind) else None

        condition = wait_until(found, f"{kind} of {name} to be {status} {reason}: {self.conditions(name)}", SECONDS)
        assert condition is not None
        return str(condition["message"])

    def programmed(self, name: str) -> str:
        """Waits until the present generation is; the revision."""
        self.condition(name, "Programmed", "True")
        return str(self.route(name)["status"]["revision"])

    def wait_for_next_second(self) -> None:
        """Creation times are whole seconds: what is created from here on is younger than what was before."""
        began = int(time.time())
        wait_until(lambda: int(time.time()) > began, "the next second")

    # --- ConfigMaps

    def configmap(self, gateway: str = "default") -> Document | None:
        found: Document | None = self.control_plane.read(
            f"/api/v1/namespaces/{self.name}/configmaps/llmroute-gateway-{gateway}"
        )
        return found

    def data(self, gateway: str = "default") -> Mapping[str, str]:
        data: Mapping[str, str] = (self.configmap(gateway) or {}).get("data", {})
        return data

    def files(self, gateway: str = "default") -> set[str]:
        return set(self.data(gateway))

    def index(self, gateway: str = "default") -> CompiledGateway:
        return decode(self.data(gateway)["gateway.json"].encode(), CompiledGateway)

    def compiled(self, name: str, gateway: str = "default") -> CompiledRoute:
        return decode(self.data(gateway)[f"route.{name}.json"].encode(), CompiledRoute)

    def emptied_at(self, gateway: str = "default") -> str | None:
        annotations = (self.configmap(gateway) or {}).get("metadata", {}).get("annotations") or {}
        found: str | None = annotations.get(EMPTIED_ANNOTATION)
        return found

    def wait(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what, SECONDS)

    def versions(self) -> Mapping[str, str]:
        """The resourceVersion of every route and ConfigMap: each write shows in it."""
        items = self.control_plane.get("-n", self.name, "llmroutes,configmaps")["items"]
        return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}

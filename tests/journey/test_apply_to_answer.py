"""The whole way: kubectl apply, conditions, ConfigMap, volume, snapshot, answer; an edit under load; deletion."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.cluster.projection import projected
from tests.gateway_process import GatewayProcess, end, start
from tests.operator.controller_process import running_controller
from tests.provider import Behaviour, ProviderRequest, completion, providing, response
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.cluster
QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"
KEY = "dev-key"


@contextmanager
def pod(control_plane: ControlPlane, namespace: str, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway whose volumes are those that a pod's would be."""
    volumes = {
        "configmap/llmroute-gateway-default": folder / "config",
        "secret/quickstart-clients": folder / "secrets" / "quickstart-clients",
    }
    with projected(control_plane, namespace, volumes):
        gateway = start(folder)
        try:
            yield gateway
        finally:
            end(gateway)


def ask(gateway: GatewayProcess, model: str = "chat", **more: Any) -> httpx.Response:
    return gateway.post({"model": model, "messages": [{"role": "user", "content": "hi"}], **more}, key=KEY)


def says(text: str) -> Behaviour:
    """A provider that answers `text`."""

    async def behaviour(request: ProviderRequest, writer: Any) -> None:
        writer.write(response(200, completion(text, request.json["model"])))

    return behaviour


@dataclass
class Hammer:
    """A client that asks without a pause and notes every answer."""

    gateway: GatewayProcess
    answers: list[tuple[int, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        body = {"model": "chat", "messages": []}
        with httpx.Client(
            base_url=self.gateway.url, headers={"authorization": f"Bearer {KEY}"}, timeout=HANGS_AFTER
        ) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                    said = answer.json()["choices"][0]["message"]["content"] if answer.is_success else answer.text
                    self.answers.append((answer.status_code, said))
                except httpx.HTTPError as error:
                    self.answers.append((0, repr(error)))

    @property
    def last(self) -> str:
        return self.answers[-1][1] if self.answers else ""

    @contextmanager
    def hammering(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(30)


def route_status(control_plane: ControlPlane, namespace: str) -> dict[str, Any]:
    status: dict[str, Any] = control_plane.get("llmroute", "quickstart", "-n", namespace).get("status", {})
    return status


def apply(control_plane: ControlPlane, namespace: str, document: dict[str, Any]) -> str:
    """Applies a route and waits until it is programmed at this generation; returns the revision."""
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump(document))

    def programmed() -> str | None:
        route = control_plane.get("llmroute", "quickstart", "-n", namespace)
        conditions = {one["type"]: one for one in route.get("status", {}).get("conditions", [])}
        found = conditions.get("Programmed", {})
        current = found.get("observedGeneration") == route["metadata"]["generation"]
        return route["status"]["revision"] if current and found["status"] == "True" else None

    return str(wait_until(programmed, "the route to be programmed"))


def test_a_route_goes_all_the_way_from_apply_to_answer_and_back(control_plane: ControlPlane, tmp_path: Path) -> None:
    namespace = control_plane.new_namespace()
    quickstart = next(
        document for document in yaml.safe_load_all(QUICKSTART.read_text()) if document["kind"] == "LLMRoute"
    )

    def pointed_at(url: str) -> dict[str, Any]:
        edited: dict[str, Any] = json.loads(json.dumps(quickstart))
        edited["spec"]["upstreams"][0]["url"] = url
        del edited["spec"]["limits"]  # the hammer asks more than 20 times a minute
        return edited

    with (
        running_controller(control_plane),
        providing(says("first")) as first,
        providing(says("second")) as second,
        pod(control_plane, namespace, tmp_path) as gateway,
    ):
        assert gateway.get("/ready").status_code == 503  # nothing has been applied yet

        control_plane.kubectl("apply", "-n", namespace, "-f", str(QUICKSTART))
        control_plane.kubectl(
            "wait", "-n", namespace, "--for=condition=Programmed", "--timeout=30s", "llmroute/quickstart"
        )
        revision = route_status(control_plane, namespace)["revision"]
        gateway.serves(revision)
        assert gateway.get("/ready").status_code == 200
        answer = ask(gateway)
        assert answer.status_code == 200
        assert "mock upstream" in answer.text
        assert answer.headers["x-ratelimit-limit-requests"] == "20"
        assert ask(gateway, "shaky").headers["x-fallback-model"] == "chat"
        assert ask(gateway, "no-such-model").json()["error"]["code"] == "model_not_found"

        gateway.serves(apply(control_plane, namespace, pointed_at(first.url)))
        hammer = Hammer(gateway)
        with hammer.hammering():
            wait_until(lambda: hammer.last == "first", "the first provider to answer")
            revision = apply(control_plane, namespace, pointed_at(second.url))
            wait_until(lambda: hammer.last == "second", "the second provider to answer")
            gateway.serves(revision)
            seen = len(hammer.answers)
            wait_until(lambda: len(hammer.answers) > seen + 20, "some more answers")
        assert {status for status, _ in hammer.answers} == {200}, [one for one in hammer.answers if one[0] != 200][:3]
        said = [text for _, text in hammer.answers]
        assert said == ["first"] * said.count("first") + ["second"] * said.count("second")

        control_plane.kubectl("delete", "-n", namespace, "llmroute/quickstart")
        wait_until(lambda: ask(gateway).status_code != 200, "the deleted route to be gone")
        gone = ask(gateway)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        assert gateway.process.poll() is None

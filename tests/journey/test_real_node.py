"""The whole journey where it ends: on a real node, with the real images.

The controller is a pod under its own service account; apps call through the gateway in their pod with the official SDK;
providers are pods behind Services that answer to their key alone.
"""

import json
import secrets
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from llmroute_contract.pods import GATEWAY_CONTAINER
from tests.cluster.node import RealNode
from tests.cluster.workloads import (
    PROVIDER_PORT,
    Document,
    calling_pod,
    controller,
    deployment,
    job,
    provider,
    restricted_namespace,
    secret,
    with_gateway_label,
)
from tests.operator.controller_process import CLUSTER_RBAC
from tests.waiting import wait_until

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

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
        return _calls(self.shop.node.logs(self.shop.namespace, self.pod, "app"))

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


def _calls(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}")]


def lost(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for call in calls if call["error"] is not None]


@pytest.fixture(scope="module")
def installed(real_node: RealNode) -> RealNode:
    """The controller as people install it, at work."""
    plane = real_node.control_plane
    plane.kubectl("apply", "-f", str(CLUSTER_RBAC))
    plane.kubectl("label", "namespace", "llmroute-system", "pod-security.kubernetes.io/enforce=restricted")
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(controller(real_node.operator)))
    rollout = ["rollout", "status", "-n", "llmroute-system", "deployment/llmroute-controller"]
    plane.kubectl(*rollout, f"--timeout={SECONDS:.0f}s")
    return real_node


@pytest.fixture(scope="module")
def shop(installed: RealNode) -> Shop:
    namespace = f"shop-{secrets.token_hex(3)}"
    installed.control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(restricted_namespace(namespace)))
    shop = Shop(installed, namespace)
    shop.apply(
        secret("provider", {"api-key": PROVIDER_KEY}),
        secret("clients", {"web": CLIENT_KEY}),
        *provider("first", installed.app, "first"),
        *provider("second", installed.app, "second"),
        *provider("slow", installed.app, "slow", GAP="0.1", WORDS="30"),
    )
    shop.route_to("first")
    shop.kubectl("wait", "--for=condition=Available", "deployment", "--all", f"--timeout={SECONDS:.0f}s")
    return shop


@pytest.fixture(scope="module")
def web(shop: Shop) -> Iterator[App]:
    """An app that calls ten times a second, all through the module."""
    with shop.app("web") as app:
        app.wait_for("first")
        yield app


def test_the_controller_runs_as_a_pod_under_its_own_service_account(shop: Shop) -> None:
    wait_until(lambda: shop.condition("Programmed").get("status") == "True", "the route to be programmed", SECONDS)
    pods = shop.node.control_plane.get("-n", "llmroute-system", "pods", "-l", "app=llmroute-controller")["items"]
    assert [pod["spec"]["serviceAccountName"] for pod in pods] == ["llmroute-controller"]
    assert pods[0]["status"]["containerStatuses"][0]["restartCount"] == 0


def test_an_app_is_answered_through_the_gateway_in_its_pod(web: App) -> None:
    assert web.restarts() == {GATEWAY_CONTAINER: 0, "app": 0}
    assert lost(web.calls()) == []  # not even the first: the app starts once its gateway is ready


def test_the_route_tells_that_the_pod_serves_it(web: App) -> None:
    wait_until(lambda: web.shop.condition("Synced").get("status") == "True", "the route to be Synced", SECONDS, 0.3)


def test_an_edited_route_reaches_the_pod_while_it_calls_and_no_call_is_lost(web: App) -> None:
    web.shop.route_to("second")
    web.wait_for("second", count=5)
    web.shop.route_to("first")
    web.wait_for("first", count=5)
    calls = web.calls()
    assert lost(calls) == []
    said = [call["said"] for call in calls]
    turns = [one for place, one in enumerate(said) if place == 0 or said[place - 1] != one]
    assert turns == ["first", "second", "first"]  # no answer by an old route after one by a new


FIND_TEXT = """
import os, sys
text, found, files = sys.argv[1].encode(), [], 0
def look(path):
    global files
    try:
        with open(path, "rb") as file:
            files += 1
            if text in file.read():
                found.append(path)
    except OSError:
        pass
for folder, inner, names in os.walk("/"):
    inner[:] = [one for one in inner if os.path.join(folder, one) not in ("/proc", "/sys", "/dev")]
    for name in names:
        if os.path.isfile(os.path.join(folder, name)):
            look(os.path.join(folder, name))
for process in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "maps"):
        look(f"/proc/{process}/{name}")
    if int(process) != os.getpid():
        look(f"/proc/{process}/cmdline")
print(files, *found)
"""


def test_the_providers_key_is_nowhere_in_the_apps_container(web: App) -> None:
    """Its environment, its processes, every file that it can read. The client's own key is found: the search works."""

    def holders(text: str) -> list[str]:
        files, *found = web.exec("/app/venv/bin/python", "-c", FIND_TEXT, text).split()
        assert int(files) > 1000
        return found

    assert holders(PROVIDER_KEY) == []
    assert any(path.endswith("environ") for path in holders(CLIENT_KEY))
    assert PROVIDER_KEY not in web.shop.node.logs(web.shop.namespace, web.pod, GATEWAY_CONTAINER)


def test_the_gateways_root_is_read_only_and_its_user_is_nobody(web: App) -> None:
    tell = "import os; print(os.getuid(), os.statvfs('/').f_flag & os.ST_RDONLY, os.path.exists('/usr/bin/pip'))"
    told = web.shop.node.exec(web.shop.namespace, web.pod, GATEWAY_CONTAINER, "/opt/llmroute/bin/python", "-c", tell)
    assert told.split() == ["65532", "1", "False"]


def test_a_job_completes_and_its_gateway_goes_with_it(shop: Shop) -> None:
    shop.apply(with_gateway_label(job("batch", shop.pod_spec("5"))))
    shop.kubectl("wait", "--for=condition=Complete", "job/batch", f"--timeout={SECONDS:.0f}s")
    calls = _calls(shop.kubectl("logs", "job/batch", "-c", "app"))
    assert (len(calls), lost(calls)) == (5, [])


def test_a_deleted_pods_gateway_serves_until_the_app_has_gone(shop: Shop) -> None:
    """The app makes twenty calls more after it was told to go; the gateway drains only then."""
    with shop.app("leaver") as app, following(app) as (app_log, gateway_log):
        app.wait_for("first")
        shop.kubectl("delete", "pod", app.pod, f"--timeout={SECONDS:.0f}s")
    calls = _calls("".join(app_log))
    last = [call for call in calls if call["going"]]
    assert len(last) == 20
    assert lost(calls) == []
    events = [json.loads(line) for line in gateway_log if line.startswith("{")]
    messages = [event["message"] for event in events]
    assert messages[-1] == "stopped"
    drained = next(place for place, message in enumerate(messages) if message == "draining")
    served = [place for place, event in enumerate(events) if event.get("path") == "/v1/chat/completions"]
    assert served[-1] < drained


@contextmanager
def following(app: App) -> Iterator[tuple[list[str], list[str]]]:
    """The lines of the app's and the gateway's log, to their end."""
    plane = app.shop.node.control_plane
    base = ["kubectl", "--kubeconfig", str(plane.admin_kubeconfig), "logs", "-f", "-n", app.shop.namespace, app.pod]
    lines: tuple[list[str], list[str]] = ([], [])
    followers = []
    for container, into in zip(("app", GATEWAY_CONTAINER), lines, strict=True):
        process = subprocess.Popen([*base, "-c", container], stdout=subprocess.PIPE, text=True)
        reader = threading.Thread(target=_read_all, args=(process, into), daemon=True)
        reader.start()
        followers.append((process, reader))
    try:
        yield lines
    finally:
        for process, reader in followers:
            reader.join(60)  # the log ends with its container
            process.kill()
            process.wait()


def _read_all(process: "subprocess.Popen[str]", into: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as stdout:
        into.extend(stdout)


def test_a_gateway_that_is_killed_in_mid_stream_comes_back_and_serves(shop: Shop) -> None:
    shop.route_to("slow")
    try:
        with shop.app("streamer", STREAM="true") as app:
            app.wait_for("slow " * 30)
            shop.node.kill(shop.namespace, app.pod, GATEWAY_CONTAINER)
            wait_until(lambda: lost(app.calls()), "the stream under way to fail", SECONDS, every=0.3)
            wait_until(lambda: app.calls()[-1]["said"] == "slow " * 30, "a stream after that", SECONDS, every=0.3)
            assert app.restarts() == {GATEWAY_CONTAINER: 1, "app": 0}
    finally:
        shop.route_to("first")

"""Other mutating webhooks beside ours: by `reinvocationPolicy: IfNeeded` ours is asked again about what they change."""

import base64
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.injector.injector_process import InjectorProcess, create, register, registered, running_injector
from tests.operator.injector.pods import Document, container, gateway, pod, variables
from tests.operator.namespace import Namespace, route
from tests.sidecar.certificates import Authority

pytestmark = pytest.mark.cluster

Change = Callable[[Document], None]


@pytest.fixture(scope="module")
def injector(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InjectorProcess]:
    with (
        running_injector(control_plane, tmp_path_factory.mktemp("injector")) as injector,
        registered(control_plane, injector.port, injector.authority.pem),
    ):
        yield injector


@contextmanager
def another_webhook(
    control_plane: ControlPlane,
    space: Namespace,
    folder: Path,
    change: Change,
    place: str = "zz",
    reinvocation: str = "Never",
) -> Iterator[list[str]]:
    """Replaces the spec of each new pod of the namespace by what `change` makes of it. The API server asks webhooks in
    the order of their configurations' names: `zz` comes after ours, `aa` before it. The value tells the pods'
    containers as they came, one text for each question."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
            spec = request["object"]["spec"]
            asked.append(" ".join(one["name"] for one in [*spec.get("initContainers", []), *spec["containers"]]))
            change(spec)
            patch = json.dumps([{"op": "replace", "path": "/spec", "value": spec}]).encode()
            response = {
                "uid": request["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(patch).decode(),
            }
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base's name
            pass

    authority = Authority(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = authority.server().wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    name = f"{place}-another-{secrets.token_hex(4)}"
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "another.example.com",
                "admissionReviewVersions": ["v1"],
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}},
                "sideEffects": "None",
                "reinvocationPolicy": reinvocation,
                "timeoutSeconds": 10,
            }
        ],
    }
    try:
        register(control_plane, configuration, server.server_address[1], authority.pem)
        yield asked
    finally:
        control_plane.kubectl("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")
        server.shutdown()
        server.server_close()
        thread.join(10)


def adds_a_container(spec: Document) -> None:
    if all(one["name"] != "agent" for one in spec["containers"]):
        spec["containers"].append(container("agent"))


def adds_an_init_container_before_all(spec: Document) -> None:
    if all(one["name"] != "migrate" for one in spec["initContainers"]):
        spec["initContainers"].insert(0, container("migrate"))


def strips_restart_policies(spec: Document) -> None:
    """As one does that was built before init containers had any."""
    for one in spec.get("initContainers", []):
        one.pop("restartPolicy", None)


def puts_a_proxy_before_all(spec: Document) -> None:
    if all(one["name"] != "proxy" for one in spec["initContainers"]):
        spec["initContainers"].insert(0, container("proxy", restartPolicy="Always"))


@pytest.mark.parametrize(
    ("change", "init_containers"),
    [
        (adds_a_container, ["llmroute-gateway"]),
        (adds_an_init_container_before_all, ["llmroute-gateway", "migrate"]),
        (strips_restart_policies, ["llmroute-gateway"]),
        (puts_a_proxy_before_all, ["proxy", "llmroute-gateway"]),
    ],
    ids=lambda one: one.__name__ if callable(one) else "",
)
def test_what_another_webhook_changed_after_ours_is_put_right(
    control_plane: ControlPlane,
    injector: InjectorProcess,
    space: Namespace,
    tmp_path: Path,
    change: Change,
    init_containers: list[str],
) -> None:
    space.apply(route("chat", auth={"mode": "None"}))
    with another_webhook(control_plane, space, tmp_path / "another", change) as asked:
        made = create(space, pod())
    assert asked == ["llmroute-gateway app"], "the other webhook has to come after ours"
    assert [one["name"] for one in made["spec"]["initContainers"]] == init_containers
    assert gateway(made)["restartPolicy"] == "Always"
    for one in made["spec"]["containers"] + [one for one in made["spec"]["initContainers"] if one["name"] == "migrate"]:
        assert variables(made, one["name"])["OPENAI_BASE_URL"] == "http://127.0.0.1:8790/v1"


def meshes(spec: Document) -> None:
    """As a mesh: a proxy before all, and a variable for each container that has none yet."""
    spec.setdefault("initContainers", [])
    puts_a_proxy_before_all(spec)
    for one in spec["initContainers"] + spec["containers"]:
        found = one.setdefault("env", [])
        if all(variable["name"] != "MESH" for variable in found):
            found.append({"name": "MESH", "value": one["name"]})


def test_between_two_others_ours_comes_out_right(
    control_plane: ControlPlane, injector: InjectorProcess, space: Namespace, tmp_path: Path
) -> None:
    """The first adds a sidecar and variables, and is asked again as ours is; the last takes restart policies away."""
    space.apply(route("chat", auth={"mode": "None"}))
    with (
        another_webhook(control_plane, space, tmp_path / "first", meshes, "aa", "IfNeeded") as first,
        another_webhook(control_plane, space, tmp_path / "last", strips_restart_policies) as last,
    ):
        made = create(space, pod())
    assert first[0] == "app", "it has to come before ours"
    assert len(first) == 2, "it has to be asked again about what ours added"
    assert last == ["llmroute-gateway proxy app"], "it has to come after ours"
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["llmroute-gateway", "proxy"]
    assert gateway(made)["restartPolicy"] == "Always"
    assert variables(made, "app")["OPENAI_BASE_URL"] == "http://127.0.0.1:8790/v1"
    assert {name: variables(made, name)["MESH"] for name in ("app", "llmroute-gateway")} == {
        "app": "app",
        "llmroute-gateway": "llmroute-gateway",
    }
    volumes = [one["name"] for one in made["spec"]["volumes"]]
    assert len(volumes) == len(set(volumes))

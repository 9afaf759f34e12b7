"""Pods that Kubernetes makes from templates, on the real API server with the real controller manager and webhook."""

import json
import os
from collections.abc import Iterator

import pytest

from tests.chat_app import FOLDER
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller_manager import running_controller_manager
from tests.cluster.go_build import Unavailable
from tests.operator.injector.injector_process import InjectorProcess, registered, running_injector
from tests.operator.injector.pod_table import annotated
from tests.operator.injector.pods import Document, container, gateway, pod, variables
from tests.operator.namespace import Namespace, route
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.cluster

SECONDS = HANGS_AFTER
SECRET_ROUTE = route(
    "chat",
    upstreams=[
        {
            "name": "main",
            "url": "https://main.example/v1",
            "credential": {"secretRef": {"name": "openai", "key": "api-key"}},
        }
    ],
    auth={"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
)


@pytest.fixture(scope="module")
def controller_manager(control_plane: ControlPlane) -> Iterator[None]:
    try:
        with running_controller_manager(control_plane):
            yield
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no controller manager: {reason}")
        pytest.skip(f"there is no controller manager: {reason}")


@pytest.fixture(scope="module")
def injector(
    control_plane: ControlPlane, controller_manager: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InjectorProcess]:
    with (
        running_injector(control_plane, tmp_path_factory.mktemp("injector")) as injector,
        registered(control_plane, injector.port, injector.authority.pem),
    ):
        yield injector


def workload(kind: str, name: str, document: Document) -> Document:
    """A Deployment, StatefulSet, Job or CronJob whose template is this pod; the pods have the label `app: <name>`."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "generateName"}
    template = {
        "metadata": {**metadata, "labels": {**metadata["labels"], "app": name}},
        "spec": document["spec"],
    }
    made = {"kind": kind, "metadata": {"name": name}}
    if kind in ("Deployment", "StatefulSet"):
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
        return {**made, "apiVersion": "apps/v1", "spec": spec}
    job = {"template": {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}}
    if kind == "Job":
        return {**made, "apiVersion": "batch/v1", "spec": job}
    # Its own time never comes in a test: a job is made of it by hand, as kubectl can.
    return {**made, "apiVersion": "batch/v1", "spec": {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": job}}}


def pods_of(space: Namespace, name: str) -> list[Document]:
    items = space.control_plane.read(f"/api/v1/namespaces/{space.name}/pods?labelSelector=app%3D{name}")["items"]
    return [one for one in items if "deletionTimestamp" not in one["metadata"]]


def made_by_its_controller(space: Namespace, name: str) -> Document:
    """The one pod, once it is there."""
    (made,) = wait_until(lambda: pods_of(space, name), f"a pod of {name}", SECONDS)
    return made


def run_now(space: Namespace, kind: str, name: str) -> None:
    if kind == "CronJob":
        space.kubectl("create", "job", f"{name}-by-hand", f"--from=cronjob/{name}")


@pytest.mark.parametrize(
    ("kind", "owner"),
    [("Deployment", "ReplicaSet"), ("StatefulSet", "StatefulSet"), ("Job", "Job"), ("CronJob", "Job")],
)
def test_a_pod_made_from_a_template_has_its_gateway(
    injector: InjectorProcess, space: Namespace, kind: str, owner: str
) -> None:
    document = annotated(client="web")
    document["spec"]["initContainers"] = [container("migrate")]
    space.apply(SECRET_ROUTE, workload(kind, "web", document))
    run_now(space, kind, "web")
    made = made_by_its_controller(space, "web")

    assert [one["kind"] for one in made["metadata"]["ownerReferences"]] == [owner]
    assert made["metadata"]["labels"]["llmroute.dev/gateway"] == "default"
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["llmroute-gateway", "migrate"]
    assert gateway(made)["restartPolicy"] == "Always"
    for name in ("app", "migrate"):
        given = variables(made, name)
        assert given["OPENAI_BASE_URL"] == "http://127.0.0.1:8790/v1"
        assert given["OPENAI_API_KEY"] == {"secretKeyRef": {"name": "clients", "key": "web"}}
    volumes = {one["name"]: one for one in made["spec"]["volumes"]}
    assert volumes["llmroute-config"]["configMap"]["name"] == "llmroute-gateway-default"
    assert "emptyDir" in volumes["llmroute-no-token"]
    assert {one["secret"]["secretName"] for one in volumes.values() if "secret" in one} == {"clients", "openai"}
    written = json.dumps(space.control_plane.get("-n", space.name, kind.lower(), "web"))
    assert "llmroute-gateway" not in written  # the template stays as its owner wrote it


def test_a_template_in_a_labelled_namespace_needs_no_label(injector: InjectorProcess, space: Namespace) -> None:
    space.kubectl("label", "namespace", space.name, "llmroute.dev/inject=true")
    declining = pod(labels={"llmroute.dev/inject": "false"})
    space.apply(route("chat"), workload("Job", "asks", pod(labels={})), workload("Job", "declines", declining))
    assert gateway(made_by_its_controller(space, "asks"))["restartPolicy"] == "Always"
    assert "initContainers" not in made_by_its_controller(space, "declines")["spec"]


def test_annotations_of_a_template_are_its_pods_wishes(injector: InjectorProcess, space: Namespace) -> None:
    document = annotated(gateway="team", log_level="debug", data_port="9001", memory_request="48Mi", containers="")
    space.apply(route("chat", gateway="team"), workload("Deployment", "web", document))
    made = made_by_its_controller(space, "web")
    assert made["metadata"]["labels"]["llmroute.dev/gateway"] == "team"
    assert "--log-level=debug" in gateway(made)["args"]
    assert gateway(made)["resources"]["requests"]["memory"] == "48Mi"
    assert variables(made) == {}
    (config,) = [one for one in made["spec"]["volumes"] if one["name"] == "llmroute-config"]
    assert config["configMap"]["name"] == "llmroute-gateway-team"


def test_the_example_chat_is_admitted_under_restricted_and_given_its_gateway(
    injector: InjectorProcess, space: Namespace
) -> None:
    """Its folder as it stands: the route is applied after the workload, as names are sorted."""
    space.kubectl("label", "namespace", space.name, "pod-security.kubernetes.io/enforce=restricted")
    done = space.control_plane.kubectl("-n", space.name, "apply", "-f", str(FOLDER))
    assert done.stderr == ""
    made = made_by_its_controller(space, "chat-app")
    assert made["metadata"]["labels"]["llmroute.dev/gateway"] == "chat-app"
    assert gateway(made)["restartPolicy"] == "Always"
    given = variables(made, "chat")
    assert given == {"OPENAI_BASE_URL": "http://127.0.0.1:8790/v1", "OPENAI_API_KEY": "none-needed"}


def test_without_its_label_new_pods_of_a_template_have_no_trace_of_the_gateway(
    injector: InjectorProcess, space: Namespace
) -> None:
    space.apply(route("chat"), workload("Deployment", "web", pod()))
    before = made_by_its_controller(space, "web")
    assert gateway(before)
    edit = [{"op": "remove", "path": "/spec/template/metadata/labels/llmroute.dev~1inject"}]
    space.kubectl("patch", "deployment", "web", "--type=json", "-p", json.dumps(edit))

    def fresh() -> list[Document]:
        return [one for one in pods_of(space, "web") if one["metadata"]["name"] != before["metadata"]["name"]]

    (after,) = wait_until(fresh, "a pod of the new template", SECONDS)
    assert "llmroute" not in json.dumps([after["spec"], after["metadata"]["labels"]])


def test_a_refused_pod_is_told_where_people_look(injector: InjectorProcess, space: Namespace) -> None:
    """`kubectl describe` of a Deployment shows its condition, of a ReplicaSet, StatefulSet or Job its events."""
    refusal = "annotation llmroute.dev/log-level is 'loud': must be one of debug, info, warning, error"
    kinds = {"Deployment": "ReplicaSet", "StatefulSet": "StatefulSet", "Job": "Job"}
    loud = annotated(log_level="loud")
    space.apply(route("chat"), *(workload(kind, kind.lower(), loud) for kind in kinds))

    def told(kind: str) -> bool:
        events = space.control_plane.read(f"/api/v1/namespaces/{space.name}/events")["items"]
        return any(
            one["involvedObject"]["kind"] == kind and one["reason"] == "FailedCreate" and refusal in one["message"]
            for one in events
        )

    for kind in kinds.values():
        wait_until(lambda kind=kind: told(kind), f"an event of the {kind}", SECONDS)  # type: ignore[misc]

    def condition(path: str) -> bool:
        found = space.control_plane.read(f"/apis/apps/v1/namespaces/{space.name}/{path}")
        conditions = [one for item in found.get("items", [found]) for one in item["status"].get("conditions", [])]
        return any(
            (one["type"], one["status"], one["reason"]) == ("ReplicaFailure", "True", "FailedCreate")
            and refusal in one["message"]
            for one in conditions
        )

    for path in ("replicasets", "deployments/deployment"):
        wait_until(lambda path=path: condition(path), f"the condition of {path}", SECONDS)  # type: ignore[misc]
    assert not [one for kind in kinds for one in pods_of(space, kind.lower())]


def test_a_refused_template_that_is_put_right_gets_its_pod(injector: InjectorProcess, space: Namespace) -> None:
    space.apply(route("chat"), workload("Deployment", "web", annotated(log_level="loud")))
    path = f"/apis/apps/v1/namespaces/{space.name}/deployments/web"
    wait_until(
        lambda: "ReplicaFailure" in json.dumps(space.control_plane.read(path).get("status", {})), "a refusal", SECONDS
    )
    space.apply(workload("Deployment", "web", annotated(log_level="debug")))
    assert "--log-level=debug" in gateway(made_by_its_controller(space, "web"))["args"]

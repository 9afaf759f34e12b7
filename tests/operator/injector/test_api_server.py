"""The real injector behind the real API server: what kubectl sees."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.injector.injector_process import (
    SERVICE_ACCOUNT,
    InjectorProcess,
    create,
    registered,
    running_injector,
)
from tests.operator.injector.pod_table import TABLE, Row, annotated
from tests.operator.injector.pods import gateway, pod
from tests.operator.namespace import Namespace, route

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def injector(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InjectorProcess]:
    """One whose webhook is registered; it ends with the module, and the webhook with it."""
    folder = tmp_path_factory.mktemp("injector")
    with (
        running_injector(control_plane, folder) as injector,
        registered(control_plane, injector.port, injector.authority.pem),
    ):
        yield injector


@pytest.fixture(scope="module")
def table_namespace(control_plane: ControlPlane) -> Namespace:
    namespace = Namespace(control_plane, control_plane.new_namespace())
    namespace.kubectl("create", "serviceaccount", "default", check=False)
    namespace.kubectl("label", "namespace", namespace.name, "llmroute.dev/inject=true")
    namespace.apply(route("chat"))
    return namespace


@pytest.mark.parametrize(
    "row", [row for row in TABLE.values() if row.valid], ids=[n for n, r in TABLE.items() if r.valid]
)
def test_a_pod_of_the_table_on_the_api_server(injector: InjectorProcess, table_namespace: Namespace, row: Row) -> None:
    """Server-side dry-run: the whole way of a request but the writing."""
    done = table_namespace.control_plane.kubectl(
        "-n", table_namespace.name, "create", "--dry-run=server", "-f", "-", "-o", "json",
        input=json.dumps(row.document), check=False,
    )  # fmt: skip
    if row.expected in ("injected", "unchanged") or row.document["spec"].get("hostNetwork"):
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        names = [one["name"] for one in made["spec"].get("initContainers", [])]
        assert ("llmroute-gateway" in names) == (row.expected == "injected")
        if row.expected == "injected":
            assert gateway(made)["restartPolicy"] == "Always"
            assert made["status"]["qosClass"] == row.qos
    else:
        assert done.returncode != 0
        assert row.expected in done.stderr


def test_the_gateway_has_no_token_and_the_app_has(injector: InjectorProcess, space: Namespace) -> None:
    made = create(space, pod())
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    (ours,) = [one["name"] for one in gateway(made)["volumeMounts"] if one["mountPath"] == path]
    (theirs,) = [one["name"] for one in made["spec"]["containers"][0]["volumeMounts"] if one["mountPath"] == path]
    assert ours == "llmroute-no-token"
    assert theirs.startswith("kube-api-access-")


def test_a_namespace_with_pod_security_restricted_takes_the_gateway(
    injector: InjectorProcess, space: Namespace
) -> None:
    space.kubectl("label", "namespace", space.name, "pod-security.kubernetes.io/enforce=restricted")
    create(space, TABLE["restricted"].document)


def test_the_secrets_of_a_route_are_mounted(injector: InjectorProcess, space: Namespace) -> None:
    upstream = {
        "name": "main",
        "url": "https://main.example/v1",
        "credential": {"secretRef": {"name": "openai", "key": "api-key"}},
    }
    auth = {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}}
    space.apply(route("chat", upstreams=[upstream], auth=auth))
    made = create(space, annotated(client="web"))
    assert {one["secret"]["secretName"] for one in made["spec"]["volumes"] if "secret" in one} == {"clients", "openai"}


def test_applying_the_same_manifest_again_changes_nothing(injector: InjectorProcess, space: Namespace) -> None:
    document = pod()
    document["metadata"] = {**document["metadata"], "name": "web"}
    del document["metadata"]["generateName"]
    assert "created" in space.kubectl("apply", "-f", "-", input=json.dumps(document))
    assert "unchanged" in space.kubectl("apply", "-f", "-", input=json.dumps(document))
    space.kubectl("delete", "pod", "web", "--force", "--grace-period=0")
    del document["metadata"]["labels"]
    space.kubectl("apply", "-f", "-", input=json.dumps(document))
    assert "initContainers" not in json.loads(space.kubectl("get", "pod", "web", "-o", "json"))["spec"]


def test_a_copy_of_a_running_pod_is_taken_as_it_is(injector: InjectorProcess, space: Namespace) -> None:
    made = create(space, pod())
    copy = {**made, "metadata": {"name": "copy", "labels": made["metadata"]["labels"]}}
    again = create(space, copy)
    assert again["spec"]["initContainers"] == made["spec"]["initContainers"]


def test_without_the_injector_only_pods_that_ask_are_held_back_and_told_what_to_do(
    control_plane: ControlPlane, injector: InjectorProcess, space: Namespace, tmp_path: Path
) -> None:
    """The webhook as it is when nobody listens: at a port that nobody has."""
    with registered(control_plane, 1, injector.authority.pem):
        done = control_plane.kubectl("-n", space.name, "create", "-f", "-", input=json.dumps(pod()), check=False)
        assert done.returncode != 0
        assert "skip-with-inject-false.llmroute.dev" in done.stderr
        create(space, pod(labels={}))
        create(space, pod(labels={"llmroute.dev/inject": "false"}))


def rights(control_plane: ControlPlane, service_account: str) -> list[tuple[list[str], list[str]]]:
    """What the API server itself says that it may do."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"},
    }
    command = ["--kubeconfig", str(control_plane.kubeconfig_for(service_account)), "create", "--validate=false"]
    done = control_plane.kubectl(*command, "-f", "-", "-o", "json", input=json.dumps(review))
    rules = json.loads(done.stdout)["status"]["resourceRules"]
    return [(rule["resources"], sorted(rule["verbs"])) for rule in rules]


def test_the_injector_may_list_and_watch_routes_and_nothing_else(
    control_plane: ControlPlane, injector: InjectorProcess, space: Namespace
) -> None:
    everybodys = rights(control_plane, f"system:serviceaccount:{space.name}:default")
    own = [right for right in rights(control_plane, SERVICE_ACCOUNT) if right not in everybodys]
    assert own == [(["llmroutes"], ["list", "watch"])]

"""The rights in manifests/rbac: enough, and nothing beyond. (That they are enough, every test here shows.)"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import (
    CLUSTER_RBAC,
    NAMESPACE_RBAC,
    SERVICE_ACCOUNT,
    ControllerProcess,
    grant_rights,
    start,
)
from tests.operator.namespace import Namespace, route
from tests.operator.pods import make_pods, pod, runs_at
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


def rules(path: Path) -> list[dict[str, Any]]:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] in ("ClusterRole", "Role"):
            found: list[dict[str, Any]] = document["rules"]
            return found
    raise AssertionError(f"{path} has no role")


BOTH = (CLUSTER_RBAC, NAMESPACE_RBAC)
RIGHTS = [
    (verb, resource) for rule in rules(NAMESPACE_RBAC) for resource in rule["resources"] for verb in rule["verbs"]
]


def test_the_role_of_a_namespace_has_the_rules_of_the_cluster_role() -> None:
    """But for namespaces: a Role reaches its own alone, by `get`."""
    alike = [[rule for rule in rules(path) if rule["resources"] != ["namespaces"]] for path in BOTH]
    assert alike[0] == alike[1]
    namespaces = [[rule["verbs"] for rule in rules(path) if rule["resources"] == ["namespaces"]] for path in BOTH]
    assert namespaces == [[["list"]], [["get"]]]


def test_no_rule_has_a_wildcard_or_reaches_secrets_or_into_pods() -> None:
    for path in BOTH:
        text = json.dumps(rules(path))
        for word in ("*", "secret", "pods/exec", "pods/proxy", "pods/log", "escalate", "impersonate"):
            assert word not in text


def test_the_service_account_may_do_what_its_rules_say_and_nothing_else(
    controller: ControllerProcess, control_plane: ControlPlane, namespace: Namespace
) -> None:
    """By the API server's own account, of one in whom nothing but the rules of every authenticated user is added."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace.name},
    }

    def allowed(account: str) -> set[tuple[str, str, str]]:
        done = control_plane.kubectl(
            "create",
            "--validate=false",
            "-o",
            "json",
            "-f",
            "-",
            f"--kubeconfig={control_plane.kubeconfig_for(account)}",
            input=json.dumps(review),
        )
        return {
            (group, resource, verb)
            for rule in json.loads(done.stdout)["status"]["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", namespace.name)
    everybody = allowed(f"system:serviceaccount:{namespace.name}:nobody")
    wanted = {
        (group, resource, verb)
        for rule in rules(CLUSTER_RBAC)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed(SERVICE_ACCOUNT) - everybody == wanted


def may(namespace: Namespace, verb: str, resource: str) -> bool:
    """Whether the controller may, there: what is changed of a role is known a moment later, and what is created by then
    is never asked for again."""
    kind, _, subresource = resource.partition("/")
    kind = f"{kind}.llmroute.dev" if kind == "llmroutes" else kind
    arguments = [verb, kind, *([f"--subresource={subresource}"] if subresource else []), f"--as={SERVICE_ACCOUNT}"]
    done = namespace.control_plane.kubectl("auth", "can-i", *arguments, "-n", namespace.name, check=False)
    return done.stdout.strip() == "yes"


FORBIDDEN = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("watch", "secrets"),
    ("get", "pods"),
    ("patch", "pods"),
    ("update", "pods/status"),
    ("delete", "pods"),
    ("get", "pods/proxy"),
    ("get", "pods/log"),
    ("create", "pods/exec"),
    ("get", "llmroutes.llmroute.dev"),
    ("update", "llmroutes.llmroute.dev"),
    ("patch", "llmroutes.llmroute.dev"),
    ("delete", "llmroutes.llmroute.dev"),
    ("update", "llmroutes.llmroute.dev/status"),
    ("update", "configmaps"),
    ("deletecollection", "configmaps"),
    ("create", "events"),
    ("get", "namespaces"),
    ("watch", "namespaces"),
    ("patch", "namespaces"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ("create", "serviceaccounts/token"),
    ("patch", "clusterroles.rbac.authorization.k8s.io"),
]


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN, ids=[f"{verb}-{resource}" for verb, resource in FORBIDDEN])
def test_the_controller_may_not(
    controller: ControllerProcess, control_plane: ControlPlane, verb: str, resource: str
) -> None:
    kind, _, subresource = resource.partition("/")
    arguments = [
        verb,
        kind,
        *([f"--subresource={subresource}"] if subresource else []),
        f"--as={SERVICE_ACCOUNT}",
        "-A",
    ]
    assert control_plane.kubectl("auth", "can-i", *arguments, check=False).stdout.strip() == "no"


@pytest.mark.parametrize(("verb", "resource"), RIGHTS, ids=[f"{verb}-{resource}" for verb, resource in RIGHTS])
def test_every_right_is_needed(control_plane: ControlPlane, namespace: Namespace, verb: str, resource: str) -> None:
    """Without it the API server refuses the controller something that it asks for in its everyday work."""
    grant_rights(control_plane, [namespace.name])
    wait_until(lambda: may(namespace, verb, resource), "the API server to know of the right")
    reduced = copy.deepcopy(rules(NAMESPACE_RBAC))
    for rule in reduced:
        if resource in rule["resources"]:
            rule["verbs"].remove(verb)
    kept = [rule for rule in reduced if rule["verbs"]]
    namespace.kubectl("patch", "role", "llmroute-controller", "--type=merge", "-p", json.dumps({"rules": kept}))
    wait_until(lambda: not may(namespace, verb, resource), "the API server to know that it is taken away")
    left_over = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "llmroute-gateway-old",
            "labels": {"app.kubernetes.io/managed-by": "llmroute", "llmroute.dev/gateway": "old"},
            "annotations": {"llmroute.dev/emptied-at": "2020-01-01T00:00:00Z"},
        },
    }
    namespace.apply(route("chat"), left_over)
    make_pods(namespace, pod("web-1"))
    runs_at(namespace, "web-1", "127.0.9.10")
    controller = start(control_plane, "--namespace", namespace.name)
    try:
        kind = resource.partition("/")[0]
        refusal = f'cannot {verb} resource "{resource if "/" in resource else kind}"'
        wait_until(lambda: refusal in controller.log_path.read_text().replace("\\", ""), f"the log to say {refusal}")
    finally:
        controller.close()


def test_the_right_to_list_namespaces_is_needed_where_the_whole_cluster_is_looked_after(
    control_plane: ControlPlane,
) -> None:
    grant_rights(control_plane, [])
    kept = [rule for rule in rules(CLUSTER_RBAC) if rule["resources"] != ["namespaces"]]
    patch = json.dumps({"rules": kept})
    control_plane.kubectl("patch", "clusterrole", "llmroute-controller", "--type=merge", "-p", patch)
    controller = start(control_plane)
    try:
        wait_until(
            lambda: 'cannot list resource "namespaces"' in controller.log_path.read_text().replace("\\", ""),
            "the refusal",
        )
    finally:
        controller.close()
        grant_rights(control_plane, [])

"""Routes that go: their file, their gateway's ConfigMap, and what was missed while the controller was down."""

import json

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import ControllerProcess, running_controller
from tests.operator.namespace import Namespace, route

pytestmark = pytest.mark.cluster

LONG_AGO = "llmroute.dev/emptied-at=2020-01-01T00:00:00Z"


def is_empty(namespace: Namespace) -> bool:
    return namespace.files() == {"gateway.json"} and namespace.index().routes == ()


def test_the_file_of_a_deleted_route_goes_and_the_others_stay(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("stays"), route("goes"))
    namespace.programmed("stays")
    namespace.programmed("goes")
    namespace.delete("goes")
    namespace.wait(lambda: namespace.files() == {"gateway.json", "route.stays.json"}, "the file to go")
    assert [entry.name for entry in namespace.index().routes] == ["stays"]
    namespace.wait(
        lambda: namespace.route("stays")["status"]["revision"] == namespace.index().revision, "the revision to be told"
    )


def test_a_route_that_a_finalizer_holds_back_is_served_no_more(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    held = route("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    namespace.apply(route("stays"), held)
    namespace.programmed("held")
    namespace.kubectl("delete", "llmroute", "held", "--wait=false")
    namespace.wait(lambda: namespace.files() == {"gateway.json", "route.stays.json"}, "the file to go")
    namespace.kubectl("patch", "llmroute", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_the_configmap_of_the_last_route_is_emptied_and_later_removed(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("last"))
    namespace.programmed("last")
    namespace.delete("last")
    namespace.wait(lambda: is_empty(namespace), "the ConfigMap to be emptied")
    assert namespace.emptied_at() is not None
    namespace.kubectl("annotate", "--overwrite", "configmap", "llmroute-gateway-default", LONG_AGO)
    namespace.wait(lambda: namespace.configmap() is None, "the ConfigMap to be removed")


def test_an_emptied_gateway_that_gets_a_route_again_is_served_again(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("first"))
    namespace.programmed("first")
    namespace.delete("first")
    namespace.wait(lambda: namespace.emptied_at() is not None, "the ConfigMap to be emptied")
    namespace.apply(route("second"))
    namespace.programmed("second")
    assert namespace.files() == {"gateway.json", "route.second.json"}
    assert namespace.emptied_at() is None


def test_a_deleted_and_recreated_route_does_not_inherit_what_was_accepted(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("keeps"), route("chat"))
    namespace.programmed("chat")
    bad = route("chat", {"name": "chat", "targets": [{"upstream": "nowhere"}]})
    namespace.control_plane.kubectl("replace", "--force", "-n", namespace.name, "-f", "-", input=json.dumps(bad))
    message = namespace.condition("chat", "Accepted", "False", "UnknownUpstream")
    assert message.endswith("Nothing of this route is served.")
    namespace.wait(lambda: namespace.files() == {"gateway.json", "route.keeps.json"}, "the old form to go")


def test_what_was_missed_while_the_controller_was_down_is_made_up_for(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with running_controller(control_plane):
        namespace.apply(route("a"), route("b"), route("lone", gateway="other"))
        for name in ("a", "b", "lone"):
            namespace.programmed(name)
    namespace.delete("a")
    namespace.delete("lone")
    namespace.apply(route("c"))
    with running_controller(control_plane, "--remove-empty-after-seconds", "1000"):
        namespace.programmed("c")
        assert namespace.files() == {"gateway.json", "route.b.json", "route.c.json"}
        namespace.wait(lambda: namespace.files("other") == {"gateway.json"}, "the left-over to be emptied")
        emptied_at = namespace.emptied_at("other")
    with running_controller(control_plane, "--remove-empty-after-seconds", "1000") as controller:
        controller.wait_until_idle()
        assert namespace.emptied_at("other") == emptied_at, "a restart does not begin to count anew"
    with running_controller(control_plane, "--remove-empty-after-seconds", "1"):
        namespace.wait(lambda: namespace.configmap("other") is None, "the left-over to be removed")


def test_an_emptied_configmap_is_removed_when_its_time_has_come(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with running_controller(control_plane, "--remove-empty-after-seconds", "1"):
        namespace.apply(route("last"))
        namespace.programmed("last")
        namespace.delete("last")
        namespace.wait(lambda: namespace.configmap() is None, "the ConfigMap to be removed")


def test_a_namespace_that_is_being_deleted_is_no_trouble(
    controller: ControllerProcess, control_plane: ControlPlane
) -> None:
    """Its ConfigMap may go before its routes do, and none can be made in it any more: not a failure to alarm about."""
    namespace = Namespace(control_plane, control_plane.new_namespace())
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    controller.wait_until_idle()
    before = {result: controller.metric("reconciles_total", result=result) for result in ("success", "error")}
    namespace.kubectl("delete", "namespace", namespace.name, "--wait=false")  # nobody here empties it
    namespace.kubectl("delete", "configmap", "llmroute-gateway-default")
    namespace.wait(
        lambda: sum(controller.metric("reconciles_total", result=result) for result in before) > sum(before.values()),
        "it to be looked at",
    )
    assert controller.metric("reconciles_total", result="error") == before["error"]
    assert namespace.condition("chat", "Programmed", "True"), "what was told of it stays"

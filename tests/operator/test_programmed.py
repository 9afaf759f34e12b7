"""A route on its way into its gateway's ConfigMap, and what a person sees of it."""

import pytest

from llmroute_contract.compiled import digest
from tests.contract.routes import model
from tests.operator.controller_process import ControllerProcess
from tests.operator.namespace import Namespace, route

pytestmark = pytest.mark.cluster


def test_a_route_is_programmed(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat", "gpt", "llama"))
    revision = namespace.programmed("chat")
    assert namespace.condition("chat", "Accepted", "True") == "Generation 1 is accepted."
    assert namespace.condition("chat", "ResolvedRefs", "True")
    status = namespace.route("chat")["status"]
    assert status["observedGeneration"] == 1
    index = namespace.index()
    assert index.revision == revision
    assert (index.namespace, index.gateway) == (namespace.name, "default")
    assert [(entry.name, entry.generation) for entry in index.routes] == [("chat", 1)]
    assert index.routes[0].digest == digest(namespace.data()["route.chat.json"].encode())
    assert [model.name for model in namespace.compiled("chat").models] == ["gpt", "llama"]
    configmap = namespace.configmap()
    assert configmap is not None
    assert configmap["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "llmroute",
        "llmroute.dev/gateway": "default",
    }
    managers = [(one["manager"], one["operation"]) for one in configmap["metadata"]["managedFields"]]
    assert managers == [("llmroute", "Apply")]


def test_nothing_but_the_status_of_a_users_route_is_touched(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    metadata = namespace.control_plane.get("-n", namespace.name, "llmroute", "chat", "--show-managed-fields")[
        "metadata"
    ]
    assert "finalizers" not in metadata
    assert set(metadata["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
    ours = [one for one in metadata["managedFields"] if one["manager"] == "llmroute"]
    assert [(one["operation"], one["subresource"], list(one["fieldsV1"])) for one in ours] == [
        ("Apply", "status", ["f:status"])
    ]
    assert namespace.control_plane.get("-n", namespace.name, "events")["items"] == []


def test_an_edited_route_is_programmed_anew(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat", "one"))
    before = namespace.programmed("chat")
    times = {kind: one["lastTransitionTime"] for kind, one in namespace.conditions("chat").items()}
    namespace.apply(route("chat", "two"))
    after = namespace.programmed("chat")
    assert before != after
    assert namespace.index().revision == after
    assert [model.name for model in namespace.compiled("chat").models] == ["two"]
    assert {kind: one["lastTransitionTime"] for kind, one in namespace.conditions("chat").items()} == times


def test_all_routes_of_a_gateway_tell_its_one_revision(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("a"), route("b"), route("elsewhere", gateway="other"))
    for name in ("a", "b", "elsewhere"):
        namespace.programmed(name)
    namespace.wait(
        lambda: namespace.route("a")["status"]["revision"] == namespace.index().revision, "a to tell the revision"
    )
    namespace.wait(
        lambda: namespace.route("b")["status"]["revision"] == namespace.index().revision, "b to tell the revision"
    )
    assert namespace.files() == {"gateway.json", "route.a.json", "route.b.json"}
    assert namespace.files("other") == {"gateway.json", "route.elsewhere.json"}


def test_a_route_that_changes_gateway_leaves_the_one_and_joins_the_other(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("stays"), route("moves"))
    namespace.programmed("moves")
    namespace.apply(route("moves", gateway="other"))
    namespace.programmed("moves")
    assert namespace.files("other") == {"gateway.json", "route.moves.json"}
    namespace.wait(lambda: namespace.files() == {"gateway.json", "route.stays.json"}, "the file of moves to go")
    assert namespace.route("moves")["status"]["revision"] == namespace.index("other").revision


def test_kubectl_get_shows_every_column(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat", gateway="front"))
    revision = namespace.programmed("chat")
    head, row = namespace.kubectl("get", "llmr").splitlines()
    assert head.split() == ["NAME", "GATEWAY", "ACCEPTED", "SYNCED", "AGE"]
    assert row.split()[:3] == ["chat", "front", "True"]
    head, row = namespace.kubectl("get", "llmr", "-o", "wide").splitlines()
    assert head.split() == ["NAME", "GATEWAY", "ACCEPTED", "SYNCED", "PROGRAMMED", "REVISION", "AGE"]
    namespace.wait(lambda: "0/0" in namespace.kubectl("get", "llmr"), "the pods to be counted")
    row = namespace.kubectl("get", "llmr", "-o", "wide").splitlines()[1]
    cells = row.split()
    assert cells[:6] == ["chat", "front", "True", "0/0", "True", revision]
    assert len(cells) == 7


def test_kubectl_can_wait_for_a_route(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat"))
    namespace.kubectl("wait", "--for=condition=Programmed", "--timeout=45s", "llmroute/chat")


def test_a_status_that_a_person_has_changed_is_put_back(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat"))
    revision = namespace.programmed("chat")
    namespace.kubectl(
        "patch", "llmr", "chat", "--subresource=status", "--type=merge", "-p", '{"status":{"revision":""}}'
    )
    namespace.wait(lambda: namespace.route("chat")["status"]["revision"] == revision, "the revision to be told again")


def test_fallbacks_over_routes_are_resolved_in_the_gateway(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("backup"), route("chat", model("chat", "backup")))
    namespace.programmed("chat")
    assert namespace.compiled("chat").models[0].fallbacks == ("backup",)


def test_metrics_and_healthz_answer(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    controller.wait_until_idle()
    assert controller.get("/healthz").status_code == 200
    assert controller.get("/healthz").json()["hanging"] == []
    assert controller.get("/metrics").headers["content-type"].startswith("text/plain")
    assert controller.metric("writes_total", kind="ConfigMap") >= 1
    assert controller.metric("writes_total", kind="LLMRouteStatus") >= 1
    assert controller.metric("reconciles_total", result="success") >= 1
    assert controller.metric("reconcile_seconds_count") >= 1
    assert controller.metric("last_relist_timestamp_seconds") > 0
    assert controller.metric("routes") >= 1
    assert controller.metric("watch_silence_seconds", watch="llmroutes") < 180
    assert controller.metric("build_info", version="0.1.0") == 1
    assert all({"timestamp", "level", "message", "logger"} <= line.keys() for line in controller.lines)

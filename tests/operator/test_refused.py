"""Routes that the API server takes and the controller does not: what is told, what is served, how it heals."""

import json
from collections.abc import Mapping, Sequence

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.contract.bad_specs import BadSpec, told_in_conditions
from tests.contract.routes import Document, model
from tests.operator.controller_process import ControllerProcess, running_controller
from tests.operator.namespace import SECONDS, Namespace, route
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_a_route_that_moves_and_is_broken_in_the_same_edit_is_served_where_it_was(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    broken = {"name": "chat", "targets": [{"upstream": "nowhere"}]}
    namespace.apply(route("chat", gateway="old"))
    namespace.programmed("chat")
    before = namespace.data("old")
    namespace.apply(route("chat", broken, gateway="new"))
    namespace.wait(
        lambda: (
            "Gateway 'old', from which it moves," in namespace.condition("chat", "Accepted", "False", "UnknownUpstream")
        ),
        "the keeper to be told",
    )
    assert namespace.data("old") == before
    assert namespace.files("new") == {"gateway.json"}
    namespace.apply(route("chat", gateway="new"))
    namespace.programmed("chat")
    namespace.wait(lambda: namespace.files("old") == {"gateway.json"}, "the old gateway to let go of it")
    namespace.apply(route("chat", broken, gateway="third"))
    namespace.condition("chat", "Accepted", "False", "UnknownUpstream")
    assert "route.chat.json" in namespace.files("new")
    namespace.delete("chat")
    namespace.wait(lambda: namespace.files("new") == {"gateway.json"}, "a deleted one to be let go of")


LOST: Document = {"name": "chat", "targets": [{"upstream": "nowhere"}]}

REFUSED: Mapping[str, tuple[Sequence[Document], str, str]] = {
    "UnknownUpstream": ([LOST], "spec.models[0].targets[0].upstream: no upstream is named 'nowhere'", "False"),
    "UnknownFallback": ([model("chat", "nobody")], "spec.models[0].fallbacks[0]: no model of this gateway", "False"),
    "FallbackCycle": (
        [model("chat", "b"), model("b", "chat")],
        "spec.models[0].fallbacks[0]: leads back to where it starts: chat -> b -> chat",
        "True",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refused_route_names_the_field_and_the_others_are_served(
    controller: ControllerProcess, namespace: Namespace, reason: str
) -> None:
    models, words, resolved = REFUSED[reason]
    namespace.apply(route("good", "other"), route("bad", *models))
    message = namespace.condition("bad", "Accepted", "False", reason)
    assert words in message
    assert message.endswith("Nothing of this route is served.")
    assert namespace.conditions("bad")["ResolvedRefs"]["status"] == resolved
    assert namespace.condition("bad", "Programmed", "False", "NotAccepted")
    namespace.programmed("good")
    assert namespace.files() == {"gateway.json", "route.good.json"}
    namespace.apply(route("bad", "chat"))
    namespace.programmed("bad")


@pytest.mark.parametrize("bad", told_in_conditions(), ids=lambda bad: bad.id)
def test_what_the_api_server_takes_of_the_table_of_bad_specs_is_told_with_field_and_words(
    controller: ControllerProcess, namespace: Namespace, bad: BadSpec
) -> None:
    """The other rows meet the API server itself: tests/contract/test_api_server.py."""
    for older in bad.older:
        namespace.apply(in_namespace(older))
        namespace.programmed(older["metadata"]["name"])
    if bad.older:
        namespace.wait_for_next_second()
    namespace.apply(in_namespace(bad.document))
    name = bad.document["metadata"]["name"]

    def told() -> str | None:
        accepted = namespace.conditions(name).get("Accepted", {})
        return str(accepted["message"]) if accepted.get("status") == "False" else None

    message = wait_until(told, "the route to be refused", SECONDS)
    assert message is not None
    assert f"{bad.field}: " in message
    assert bad.words in message


def in_namespace(document: Document) -> Document:
    """Without a namespace of its own: `kubectl -n` says which."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "namespace"}
    return {**document, "metadata": metadata}


def test_a_url_that_only_the_controller_can_refuse_is_told(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat", upstreams=[{"name": "main", "url": "http://[:::1]/v1"}]))
    message = namespace.condition("chat", "Accepted", "False", "Invalid")
    assert message.startswith("spec.upstreams[0].url: must have an IPv6 address in brackets")
    assert namespace.condition("chat", "ResolvedRefs", "Unknown", "Invalid")


def test_a_bad_new_generation_keeps_the_last_accepted_one_also_over_a_restart(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with running_controller(control_plane):
        namespace.apply(route("chat", "one"))
        revision = namespace.programmed("chat")
        before = dict(namespace.data())
        namespace.apply(route("chat", LOST))
        message = namespace.condition("chat", "Accepted", "False", "UnknownUpstream")
        assert message.endswith("Generation 1 is served instead of 2.")
        message = namespace.condition("chat", "Programmed", "False", "NotAccepted")
        assert message == "ConfigMap llmroute-gateway-default holds generation 1, not 2."
        assert namespace.data() == before
        assert namespace.route("chat")["status"]["revision"] == revision
        versions = namespace.versions()
    with running_controller(control_plane) as second:
        second.wait_until_idle()
        assert namespace.versions() == versions, "it remembers from the ConfigMap, and has nothing new to say"
        namespace.apply(route("neighbour"))
        namespace.programmed("neighbour")
        assert namespace.compiled("chat").generation == 1
        namespace.apply(route("chat", "three"))
        namespace.programmed("chat")
        assert namespace.compiled("chat").generation == 3


def test_of_two_routes_with_one_model_the_older_keeps_it_until_it_goes(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("z-older", "same"))
    namespace.programmed("z-older")
    namespace.wait_for_next_second()
    namespace.apply(route("a-younger", "same", "own"))
    message = namespace.condition("a-younger", "Accepted", "False", "ModelConflict")
    assert "spec.models[0].name: model 'same' belongs to the older route 'z-older'" in message
    assert message.endswith("The rest of generation 1 is served.")
    namespace.programmed("a-younger")
    assert namespace.condition("z-older", "Accepted", "True")
    assert [one.name for one in namespace.compiled("a-younger").models] == ["own"]
    namespace.delete("z-older")
    namespace.condition("a-younger", "Accepted", "True")
    assert [one.name for one in namespace.compiled("a-younger").models] == ["same", "own"]


def test_a_fallback_that_comes_later_heals_the_route_that_waits_for_it(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("chat", model("chat", "backup")))
    namespace.condition("chat", "ResolvedRefs", "False", "UnknownFallback")
    namespace.apply(route("late", "backup"))
    namespace.programmed("chat")
    assert namespace.condition("chat", "ResolvedRefs", "True")


def test_a_client_that_may_use_a_model_that_is_not_there_is_told(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    auth = {"mode": "Keys", "keysFrom": {"secretRef": {"name": "k"}}, "clients": [{"name": "web", "models": ["chta"]}]}
    namespace.apply(route("chat", auth=auth))
    assert "spec.auth.clients[0].models[0]" in namespace.condition("chat", "ResolvedRefs", "False", "UnknownModel")
    assert namespace.condition("chat", "Accepted", "True")
    namespace.programmed("chat")


def test_what_this_version_does_not_act_on_is_told(controller: ControllerProcess, namespace: Namespace) -> None:
    limit = {"name": "spend", "per": "Client", "budget": {"usd": "20", "period": "Day"}}
    namespace.apply(route("chat", limits=[limit]))
    message = namespace.condition("chat", "Accepted", "True")
    assert "Not acted on: spec.limits[0].budget counts nothing of model 'chat'" in message


def test_a_route_that_the_configmap_has_no_room_for_is_told_and_the_first_is_served(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    backups = [f"backup-{number}-{'x' * 180}" for number in range(16)]

    def large(name: str, count: int) -> Document:
        return route(name, *(model(f"{name}-{number}", *backups) for number in range(count)))

    # Server-side: the annotation of a client-side apply has less room than the route needs.
    for document in (route("backups", *backups), large("first", 240), large("second", 120)):
        namespace.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(document))
        namespace.wait(lambda: namespace.conditions(document["metadata"]["name"]), "the route to be looked at")  # noqa: B023 - waited for in this turn
    message = namespace.condition("second", "Accepted", "False", "ConfigMapTooLarge")
    assert "more than the ConfigMap of gateway 'default' has room for; split the route over several gateways" in message
    namespace.programmed("first")
    assert namespace.files() == {"gateway.json", "route.backups.json", "route.first.json"}
    namespace.apply(route("second"))
    namespace.programmed("second")


def test_a_configmap_that_cannot_be_written_is_told(controller: ControllerProcess, namespace: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/configmaps": "0"}},
    }
    namespace.apply(quota)
    # No quota controller runs here, so its status is set by hand; admission goes by that.
    status = '{"status":{"hard":{"count/configmaps":"0"},"used":{"count/configmaps":"0"}}}'
    namespace.kubectl("patch", "quota", "none", "--subresource=status", "--type=merge", "-p", status)
    namespace.apply(route("chat"))
    message = namespace.condition("chat", "Programmed", "False", "ApplyFailed")
    assert "exceeded quota" in message
    assert "llmroute-gateway-default holds nothing of this route." in message
    assert namespace.condition("chat", "Accepted", "True")
    assert namespace.configmap() is None
    namespace.kubectl("delete", "quota", "none")
    namespace.programmed("chat")

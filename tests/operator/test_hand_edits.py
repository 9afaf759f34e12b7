"""A person's edit of a gateway's ConfigMap is put back, whatever it was."""

import json
from collections.abc import Callable, Mapping

import pytest

from tests.contract.routes import Document
from tests.operator.controller_process import ControllerProcess
from tests.operator.namespace import Namespace, route

pytestmark = pytest.mark.cluster

NAME = "llmroute-gateway-default"
LABELS = {"app.kubernetes.io/managed-by": "llmroute", "llmroute.dev/gateway": "default"}


def _patch(patch: Document) -> Callable[[Namespace], None]:
    def edit(namespace: Namespace) -> None:
        namespace.kubectl("patch", "configmap", NAME, "--type=merge", "-p", json.dumps(patch))

    return edit


def _apply_server_side(namespace: Namespace) -> None:
    """Another field manager, with the same labels and a file of its own."""
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"mine.txt": "x"}}
    namespace.kubectl("apply", "--server-side", "--field-manager=someone", "-f", "-", input=json.dumps(document))


def _delete(namespace: Namespace) -> None:
    namespace.kubectl("delete", "configmap", NAME)


EDITS: Mapping[str, Callable[[Namespace], None]] = {
    "a-changed-file": _patch({"data": {"route.chat.json": "{}"}}),
    "a-changed-index": _patch({"data": {"gateway.json": "{}"}}),
    "a-removed-file": _patch({"data": {"route.chat.json": None}}),
    "an-added-file": _patch({"data": {"route.evil.json": "{}"}}),
    "an-added-binary-file": _patch({"binaryData": {"evil.bin": "AAAA"}}),
    "an-added-file-of-another-manager": _apply_server_side,
    "a-removed-label": _patch({"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
    "a-changed-label": _patch({"metadata": {"labels": {"llmroute.dev/gateway": "other"}}}),
    "our-note": _patch({"metadata": {"annotations": {"llmroute.dev/emptied-at": "2020-01-01T00:00:00Z"}}}),
    "all-at-once": _patch({"data": None, "binaryData": {"a": "AAAA"}, "metadata": {"labels": None}}),
    "deleted": _delete,
    "frozen-and-changed": _patch({"immutable": True, "data": {"route.chat.json": "{}"}}),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_hand_edit_is_put_back(
    controller: ControllerProcess, namespace: Namespace, edit: Callable[[Namespace], None]
) -> None:
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    before = dict(namespace.data())
    edit(namespace)

    def is_back() -> bool:
        found = namespace.configmap()
        return (
            found is not None
            and found.get("data") == before
            and "binaryData" not in found
            and found["metadata"].get("labels") == LABELS
            and not found["metadata"].get("annotations")
        )

    namespace.wait(is_back, "the ConfigMap to be as it was")
    controller.wait_until_idle()
    assert is_back()


def test_labels_and_annotations_of_others_stay(controller: ControllerProcess, namespace: Namespace) -> None:
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    _patch({"metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}}, "data": {"gateway.json": ""}})(
        namespace
    )
    namespace.wait(lambda: namespace.data().get("gateway.json"), "the index to be back")
    metadata = (namespace.configmap() or {})["metadata"]
    assert metadata["labels"] == {**LABELS, "team": "x"}
    assert metadata["annotations"] == {"note": "y"}


@pytest.mark.parametrize("edit", ["a-changed-file", "a-removed-file", "deleted"])
def test_a_hand_edit_does_not_take_the_last_accepted_generation_away(
    controller: ControllerProcess, namespace: Namespace, edit: str
) -> None:
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    before = dict(namespace.data())
    namespace.apply(route("chat", {"name": "chat", "targets": [{"upstream": "nowhere"}]}))
    namespace.condition("chat", "Accepted", "False", "UnknownUpstream")
    EDITS[edit](namespace)
    namespace.wait(lambda: namespace.data() == before, "the ConfigMap to hold generation 1 again")
    assert namespace.condition("chat", "Accepted", "False", "UnknownUpstream").endswith(
        "Generation 1 is served instead of 2."
    )


def test_a_configmap_of_another_name_is_none_of_ours(controller: ControllerProcess, namespace: Namespace) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "other", "labels": LABELS},
        "data": {"mine": "x"},
    }
    namespace.apply(document, route("chat"))
    namespace.programmed("chat")
    version = namespace.versions()["ConfigMap/other"]
    _patch({"data": {"gateway.json": ""}})(namespace)
    namespace.wait(lambda: namespace.data().get("gateway.json"), "the index to be back")
    assert namespace.versions()["ConfigMap/other"] == version

"""What is written into a ConfigMap, when, and what is believed of one that is read."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmroute_contract.compile import compile_gateway
from llmroute_operator.controller.api_server import segment, within
from llmroute_operator.controller.configmap import (
    EMPTIED_ANNOTATION,
    GATEWAY_LABEL,
    Keep,
    Present,
    Remove,
    Served,
    Wanted,
    foreign,
    gateway_of,
    holds,
    manifest,
    read_present,
    retire,
    served_from,
    timestamp,
    want,
)
from llmroute_operator.controller.route import GatewayKey
from tests.contract.routes import model, source

KEY = GatewayKey("shop", "default")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WANTED = want(KEY, compile_gateway(*KEY, [source("chat", [model("a")]), source("other", [model("b")])]).files)


def present(wanted: Wanted = WANTED, /, **changes: Any) -> Present:
    """As the API server shows it once it has been applied, with `changes` by a person's hand."""
    metadata = {"uid": "u", "resourceVersion": "7", **manifest(wanted)["metadata"]}
    document = {**manifest(wanted), "metadata": {**metadata, **changes.pop("metadata", {})}, **changes}
    return read_present(document)


def test_what_was_applied_is_held_and_has_nothing_foreign() -> None:
    assert holds(present(), WANTED)
    assert foreign(present(), WANTED) is None


def test_labels_and_annotations_of_others_are_left_alone() -> None:
    edited = present(metadata={"labels": {**WANTED.labels, "team": "x"}, "annotations": {"note": "y"}})
    assert holds(edited, WANTED)
    assert foreign(edited, WANTED) is None


EDITS: Mapping[str, Mapping[str, Any]] = {
    "a changed file": {"data": {**WANTED.data, "route.chat.json": "{}"}},
    "a removed file": {"data": {name: text for name, text in WANTED.data.items() if name != "gateway.json"}},
    "no files": {"data": None},
    "a removed label": {"metadata": {"labels": {GATEWAY_LABEL: "default"}}},
    "a changed label": {"metadata": {"labels": {**WANTED.labels, GATEWAY_LABEL: "other"}}},
    "no labels": {"metadata": {"labels": None}},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_hand_edit_of_what_is_ours_is_seen(edit: Mapping[str, Any]) -> None:
    assert not holds(present(**edit), WANTED)


def test_foreign_keys_are_taken_out_of_the_version_that_was_seen() -> None:
    edited = present(data={**WANTED.data, "z": "1", "b": "2"}, binaryData={"c": "AA=="})
    assert holds(edited, WANTED)
    assert foreign(edited, WANTED) == {
        "metadata": {"uid": "u", "resourceVersion": "7"},
        "data": {"b": None, "z": None},
        "binaryData": {"c": None},
    }


def test_our_own_note_on_a_gateway_with_routes_is_taken_out() -> None:
    edited = present(metadata={"annotations": {EMPTIED_ANNOTATION: timestamp(NOW), "note": "y"}})
    patch = foreign(edited, WANTED)
    assert patch is not None
    assert patch["metadata"]["annotations"] == {EMPTIED_ANNOTATION: None}


def test_the_manifest_names_all_that_is_ours() -> None:
    assert manifest(WANTED) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "llmroute-gateway-default",
            "namespace": "shop",
            "labels": {"app.kubernetes.io/managed-by": "llmroute", "llmroute.dev/gateway": "default"},
        },
        "data": dict(WANTED.data),
    }


@pytest.mark.parametrize(
    ("name", "gateway"), [("llmroute-gateway-a-b", "a-b"), ("other", None), ("a-llmroute-gateway-", None)]
)
def test_the_name_says_which_gateway(name: str, gateway: str | None) -> None:
    assert gateway_of(name) == gateway


# --- reading back


def test_what_was_written_is_read_back() -> None:
    served = served_from(KEY, WANTED.data)
    assert set(served.routes) == {"chat", "other"}
    assert served.generation_of("chat") == 1
    assert served.generation_of("nobody") is None


def test_a_file_that_a_person_has_changed_is_not_believed() -> None:
    edited = {**WANTED.data, "route.chat.json": WANTED.data["route.chat.json"].replace("main.example", "evil.example")}
    assert set(served_from(KEY, edited).routes) == {"other"}


def test_files_of_another_gateway_are_not_believed() -> None:
    assert served_from(GatewayKey("shop", "other"), WANTED.data).routes == {}


@pytest.mark.parametrize("index", [None, "", "{", "[]", '{"schemaVersion": 99}', "\ud7ff"])
def test_without_a_readable_index_nothing_is_believed(index: str | None) -> None:
    data = {name: text for name, text in WANTED.data.items() if name != "gateway.json"}
    assert served_from(KEY, data if index is None else {**data, "gateway.json": index}) == Served()


# --- a gateway without routes

AFTER = timedelta(minutes=5)
EMPTY = compile_gateway(*KEY, []).files


def emptied(at: str) -> Present:
    return present(metadata={"annotations": {EMPTIED_ANNOTATION: at}})


def test_a_gateway_that_lost_its_last_route_is_kept_from_now_on() -> None:
    assert retire(present(), NOW, AFTER) == Keep(NOW, NOW + AFTER)


def test_when_it_was_emptied_is_read_from_its_note() -> None:
    before = NOW - timedelta(minutes=4)
    assert retire(emptied(timestamp(before)), NOW, AFTER) == Keep(before, before + AFTER)


def test_it_is_removed_when_its_time_has_come() -> None:
    assert retire(emptied(timestamp(NOW - AFTER)), NOW, AFTER) == Remove()
    assert retire(emptied(timestamp(NOW - timedelta(days=9))), NOW, AFTER) == Remove()


@pytest.mark.parametrize("note", ["", "yesterday", "2026-11-25T11:00:00", timestamp(NOW + timedelta(days=365))])
def test_a_note_that_cannot_be_counts_from_now(note: str) -> None:
    assert retire(emptied(note), NOW, AFTER) == Keep(NOW, NOW + AFTER)


def test_an_emptied_configmap_is_not_written_again_while_it_waits() -> None:
    kept = want(KEY, EMPTY, NOW)
    assert holds(present(kept), kept)
    assert foreign(present(kept), kept) is None
    assert not holds(present(kept), WANTED)


def test_a_name_stays_one_part_of_a_path() -> None:
    """Clients resolve dots before they ask: `a/../../b` would be another object's path."""
    assert segment("llmroute-gateway-a/../../b c") == "llmroute-gateway-a%2F..%2F..%2Fb%20c"
    assert within("a/../b") == "/namespaces/a%2F..%2Fb"

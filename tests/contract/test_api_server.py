"""The CRD on a real API server: what `kubectl apply` takes, refuses and shows."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from llmroute_contract.llmroute import LLMRoute, parse_route
from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.contract.api import Refusal, RouteApi, route_api
from tests.contract.bad_specs import ABSENT, BAD_SPECS, BadSpec, edited, told_in_conditions
from tests.contract.routes import Document, full_route, model, spec_document
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"
REFUSED = [bad for bad in BAD_SPECS if bad.refused_by == "api"]


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[RouteApi]:
    with route_api(control_plane) as opened:
        yield opened


def small_route(name: str = "small", **changes: Any) -> Document:
    return {**full_route(name), "spec": {**spec_document([model("gpt-4o")]), **changes}}


def parsed(document: Document) -> LLMRoute:
    route = parse_route(document)
    assert isinstance(route, LLMRoute), route
    return route


# --- what is taken


def test_the_full_route_is_taken_and_read_back_as_it_was_meant(api: RouteApi) -> None:
    stored = api.take(full_route())
    assert not isinstance(stored, Refusal), stored
    assert parsed(stored).spec == parsed(full_route()).spec


def test_kubectl_takes_the_quickstart(control_plane: ControlPlane) -> None:
    namespace = control_plane.new_namespace()
    done = control_plane.kubectl("apply", "-f", str(QUICKSTART), "-n", namespace)
    assert "llmroute.llmroute.dev/quickstart created" in done.stdout
    assert done.stderr == ""


def test_defaults_that_the_api_server_fills_in_are_the_models(api: RouteApi) -> None:
    given = small_route(
        auth={"keysFrom": {"secretRef": {"name": "keys"}}}, limits=[{"name": "all", "per": "Gateway", "requests": 1}]
    )
    stored = api.take(given)
    assert not isinstance(stored, Refusal), stored
    upstream = stored["spec"]["upstreams"][0]
    assert upstream["protocol"] == "OpenAI"
    assert upstream["timeouts"] == {"connect": "5s", "firstToken": "1m", "idle": "1m", "request": "10m"}
    assert upstream["breaker"] == {"maxFailures": 5, "reset": "30s", "scope": "Pod"}
    assert upstream["pool"] == {"maxConnections": 100}
    assert stored["spec"]["gateway"] == "default"
    assert stored["spec"]["auth"]["mode"] == "Keys"
    assert stored["spec"]["models"][0]["retry"] == {"attempts": 1, "backoff": "200ms"}
    assert parsed(stored).spec == parsed(given).spec


def test_a_null_is_an_absent_field_to_both(api: RouteApi) -> None:
    given = edited(full_route(), ("spec.logging", None), ("spec.upstreams[0].timeouts", None))
    stored = api.take(given)
    assert not isinstance(stored, Refusal), stored
    assert parsed(stored).spec == parsed(given).spec


def test_the_largest_route_is_taken(api: RouteApi) -> None:
    """Near etcd's limit of 1.5 MiB: the rules' cost, which grows with the route, stays within the budget."""
    names = [f"{number:03}{'u' * 60}" for number in range(64)]
    document = small_route(
        upstreams=[
            {
                "name": name,
                "url": f"https://{'a' * 300}.example/{'v' * 700}",
                "headers": {f"x-{number:02}{'n' * 120}": "v" * 100 for number in range(32)},
                "timeouts": {"connect": "5s"},
            }
            for name in names
        ],
        models=[
            {**model(f"{number:04}{'m' * 190}"), "targets": [{"upstream": names[number % 64]}]}
            for number in range(1000)
        ],
        defaultUpstream=names[-1],
    )
    stored = api.take(document, dry_run=False)
    assert not isinstance(stored, Refusal), stored
    assert parsed(stored).spec == parsed(document).spec


# --- what is refused


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: bad.id)
def test_a_bad_spec_is_refused_and_the_message_names_the_field(api: RouteApi, bad: BadSpec) -> None:
    refusal = api.take(bad.document)
    assert isinstance(refusal, Refusal), "the API server took it"
    assert refusal.status in (400, 422)
    assert bad.named_by_api in refusal.message


@pytest.mark.parametrize("bad", told_in_conditions(), ids=lambda bad: bad.id)
def test_what_only_the_controller_can_tell_is_taken(api: RouteApi, bad: BadSpec) -> None:
    for document in (bad.document, *bad.older):
        assert not isinstance(api.take(document), Refusal)


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(REFUSED) >= 45
    assert len(told_in_conditions()) >= 8


def test_no_rule_runs_into_an_error_of_its_own(api: RouteApi) -> None:
    """CEL's own words ("no such key", "type conversion error") help nobody: our message stands alone."""
    for bad in REFUSED:
        refusal = api.take(bad.document)
        assert isinstance(refusal, Refusal)
        assert "evaluating rule" not in refusal.message or bad.id == "expires-on-no-day", (bad.id, refusal.message)
        assert "no such" not in refusal.message, (bad.id, refusal.message)


SEEN = [
    (
        "spec.upstreams[1].url",
        "file:///etc/passwd",
        'spec.upstreams[1].url: Invalid value: "file:///etc/passwd": must begin with http://, https://, mock:// or',
    ),
    ("spec.upstreams[0].apiKey", "sk-1", 'unknown field "spec.upstreams[0].apiKey"'),
    (
        "spec.auth.keysFrom",
        ABSENT,
        "spec.auth.keysFrom: Required value: is required when mode is Keys",
    ),
    (
        "spec.upstreams[0].timeouts.idle",
        "5",
        "must be a duration such as 200ms, 30s or 1m30s, from 1ms to 24h",
    ),
]


@pytest.mark.parametrize(("path", "value", "words"), SEEN, ids=[path for path, _, _ in SEEN])
def test_a_person_at_kubectl_sees_what_is_wrong(
    control_plane: ControlPlane, api: RouteApi, path: str, value: Any, words: str
) -> None:
    document = edited(full_route(namespace=api.namespace), (path, value))
    done = control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(document), check=False)
    assert done.returncode == 1
    assert words in done.stderr


# --- what is shown


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", ["LLMRoute says which LLM models"]),
        (".spec", ["The models that this route serves", "Who may call", "-required-"]),
        (".spec.upstreams.timeouts", ["Limits in time for one attempt", "Until a connection, TLS included, stands"]),
        (".spec.limits.scope", ["ENUM: Pod Gateway", "the sum over all pods"]),
        (".status.conditions", ["Sentences for people, naming the field"]),
    ],
)
def test_kubectl_explain_describes_each_field(control_plane: ControlPlane, path: str, words: list[str]) -> None:
    def missing() -> list[str]:
        text = " ".join(control_plane.kubectl("explain", f"llmroute{path}", check=False).stdout.split())
        return [each for each in words if each not in text]

    # The API server publishes a CRD's descriptions a moment after it has taken the CRD.
    wait_until(lambda: not missing(), f"kubectl explain to show {words}")


def test_kubectl_get_shows_the_columns_that_matter(control_plane: ControlPlane, api: RouteApi) -> None:
    control_plane.kubectl("create", "-f", "-", input=yaml.safe_dump(full_route("columns", api.namespace)))
    _set_status(api, "columns", "Accepted")
    shown = control_plane.kubectl("get", "llmr", "columns", "-n", api.namespace).stdout
    heads, values = (line.split() for line in shown.splitlines())
    assert heads == ["NAME", "GATEWAY", "ACCEPTED", "SYNCED", "AGE"]
    assert values[:3] == ["columns", "default", "True"]
    assert "columns" in control_plane.kubectl("get", "llmroute", "-n", api.namespace, "-o", "name").stdout


# --- how it is written


def test_server_side_apply_merges_entries_by_name(api: RouteApi) -> None:
    """Two teams own different models of one route; neither takes away the other's."""
    name = "shared"
    first = {**small_route(name), "metadata": {"name": name}}
    assert not isinstance(api.apply(first, "platform"), Refusal)
    second = {**first, "spec": {"auth": {"mode": "None"}, "upstreams": first["spec"]["upstreams"]}}
    merged = api.apply(edited(second, ("spec.models", [model("llama")])), "team")
    assert not isinstance(merged, Refusal), merged
    assert [entry["name"] for entry in merged["spec"]["models"]] == ["gpt-4o", "llama"]
    withdrawn = api.apply(second, "team")
    assert not isinstance(withdrawn, Refusal), withdrawn
    assert [entry["name"] for entry in withdrawn["spec"]["models"]] == ["gpt-4o"]


def test_status_is_a_subresource_of_its_own(api: RouteApi) -> None:
    written = {**full_route("with-status"), "metadata": {"name": "with-status"}}
    created = api.apply(written, "person")
    assert not isinstance(created, Refusal), created
    status = _set_status(api, "with-status", "Accepted")
    assert status["metadata"]["generation"] == created["metadata"]["generation"], "status changes no generation"
    again = api.apply({**written, "status": {"revision": "forged"}}, "person")
    assert not isinstance(again, Refusal), again
    assert api.read("with-status")["status"]["revision"] == "4f0c4f0c4f0c4f0c", "a person's status is not taken over"


def test_conditions_of_several_managers_stand_side_by_side(api: RouteApi) -> None:
    assert not isinstance(api.take(full_route("conditions"), dry_run=False), Refusal)
    _set_status(api, "conditions", "Accepted", manager="llmroute")
    stored = _set_status(api, "conditions", "Synced", manager="another")
    assert [condition["type"] for condition in stored["status"]["conditions"]] == ["Accepted", "Synced"]


def _set_status(api: RouteApi, name: str, kind: str, manager: str = "llmroute") -> Document:
    condition = {
        "type": kind,
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-25T12:00:00Z",
        "reason": "Valid",
        "message": "",
    }
    document = {
        "apiVersion": "llmroute.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": name},
        "status": {"observedGeneration": 1, "conditions": [condition], "revision": "4f0c4f0c4f0c4f0c"},
    }
    stored = api.apply(document, manager, "/status")
    assert not isinstance(stored, Refusal), stored
    return stored

"""What a route's status says of its pods, case by case."""

from typing import Any

import pytest

from llmroute_operator.controller.fleet.conditions import Facts, conditions_of_pods, sidecars_of, unresolved
from llmroute_operator.controller.fleet.report import (
    TEXT_MAX,
    MissingSecret,
    Report,
    UnavailableUpstream,
    UnreadableReport,
    read_report,
)
from llmroute_operator.controller.fleet.roster import Standing
from llmroute_operator.controller.fleet.without import Without, find_without
from llmroute_operator.controller.route import GatewayKey, Route, read_route
from tests.operator.documents import route_document
from tests.operator.fleet.test_roster import report, running

KEYS = {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}}


def standing(name: str, said: Report | None = None, failure: str = "", **pod: Any) -> Standing:
    return Standing(running(name, **pod), said, failure)


def chat(**spec: Any) -> Route:
    return read_route(route_document("chat", **spec))


def told(*standings: Standing, without: Without | None = None, **spec: Any) -> dict[str, tuple[str, str, str]]:
    found = conditions_of_pods(
        chat(**({"auth": {"mode": "None"}} | spec)), "new", Facts(standings, without or Without())
    )
    return {one.type: (one.status, one.reason, one.message) for one in found}


NEW, OLD = report("new"), report("old")
SYNCED = [
    ("no pods", [], ("True", "NoPods", "No pod has this gateway.")),
    ("all", [standing("a", NEW), standing("b", NEW)], ("True", "Synced", "2 of 2 pods serve revision new.")),
    (
        "one is behind",
        [standing("a", NEW), standing("b", OLD)],
        ("False", "RollingOut", "1 of 2 pods serve revision new. b: it has not read the newest configuration yet."),
    ),
    (
        "one was never asked",
        [standing("a")],
        ("False", "RollingOut", "0 of 1 pods serve revision new. a: it has not been asked yet."),
    ),
    (
        "one does not answer, though it served the revision before",
        [standing("a", NEW, "refused"), standing("b", OLD)],
        ("False", "Unreachable", "0 of 2 pods serve revision new. a: refused."),
    ),
    (
        "one rejects a route",
        [standing("a", NEW, "refused"), standing("b", report("old", rejected=(("chat", "no"),)))],
        ("False", "Rejected", "0 of 2 pods serve revision new. b: it does not take route 'chat': no."),
    ),
    (
        "one serves another gateway",
        [standing("a", Report("shop", "other", "new"))],
        (
            "False",
            "RollingOut",
            "0 of 1 pods serve revision new. a: it serves gateway 'other' of namespace 'shop'; another ConfigMap is "
            "mounted.",
        ),
    ),
    (
        "one has nothing yet",
        [standing("a", Report("", "", "", error="there is no gateway.json"))],
        (
            "False",
            "RollingOut",
            "0 of 1 pods serve revision new. a: it has no configuration yet: there is no gateway.json.",
        ),
    ),
    (
        "one tells of a problem",
        [standing("a", report("new", problems=("Secret x cannot be read",))), standing("b", NEW)],
        ("True", "Synced", "2 of 2 pods serve revision new. Of a problem tell 1 pod, a: Secret x cannot be read."),
    ),
]


@pytest.mark.parametrize(("how", "standings", "said"), SYNCED, ids=[case[0] for case in SYNCED])
def test_synced_says(how: str, standings: list[Standing], said: tuple[str, str, str]) -> None:
    assert told(*standings)["Synced"] == said


def test_at_most_five_pods_are_samples() -> None:
    found = sidecars_of("new", [standing(f"pod-{number}", OLD) for number in range(9)] + [standing("z", NEW)])
    assert (found["total"], found["synced"], found["summary"], len(found["samples"])) == (10, 1, "1/10", 5)
    assert found["samples"][0]["revision"] == "old"


def test_pods_that_do_not_mount_a_secret_are_counted_and_five_of_them_named() -> None:
    pods = [standing(f"web-{number}", NEW) for number in range(7)] + [standing("fine", NEW, secrets=["clients"])]
    status, reason, message = told(*pods, auth=KEYS)["PodRestartRequired"]
    assert (status, reason) == ("True", "SecretNotMounted")
    assert message.startswith(
        "7 of 8 pods were made before this route needed Secret 'clients', and do not mount it: web-0, web-1, web-2, "
        "web-3, web-4 and 2 more."
    )
    assert "PodRestartRequired" not in told(standing("fine", NEW, secrets=["clients"]), auth=KEYS)


def test_the_secret_of_the_shared_state_is_needed_by_routes_that_count_there() -> None:
    limit = {"name": "all", "per": "Gateway", "requests": 10}
    for scope, kinds in (("Gateway", ["Synced", "PodRestartRequired"]), ("Pod", ["Synced"])):
        route = chat(auth={"mode": "None"}, limits=[{**limit, "scope": scope}])
        found = conditions_of_pods(route, "new", Facts([standing("a", NEW)], Without(), "state"))
        assert [one.type for one in found] == kinds


def test_a_missing_secret_is_told_by_those_that_mount_it_and_serve_the_revision() -> None:
    entry = MissingSecret("chat", "spec.auth.keysFrom.secretRef", "clients", "web")
    missing = report("new", missing=(entry,))
    pods = [
        standing("a", missing, secrets=["clients"]),
        standing("b", NEW, secrets=["clients"]),
        standing("not-mounted", missing),
        standing("behind", report("old", missing=(entry,)), secrets=["clients"]),
    ]
    assert unresolved(chat(auth=KEYS), "new", pods) == (
        "SecretMissing",
        ["spec.auth.keysFrom.secretRef: entry 'web' of Secret 'clients' is not there in 1 of 4 pods (a)."],
    )


def test_an_upstream_that_pods_cannot_call_is_told_but_not_twice() -> None:
    unavailable = (
        UnavailableUpstream("chat", "claude", "litellm_not_installed"),
        UnavailableUpstream("chat", "openai", "credential_missing"),
        UnavailableUpstream("another", "x", "litellm_not_installed"),
    )
    assert unresolved(chat(), "new", [standing("a", report("new", unavailable=unavailable))]) == (
        "UpstreamUnavailable",
        ["spec.upstreams[claude]: cannot be called (litellm_not_installed) in 1 of 1 pods."],
    )


def bare(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "shop", "uid": name, **more}


def test_pods_without_a_gateway_are_counted_by_the_gateway_that_they_would_have() -> None:
    owner = {"controller": True, "kind": "ReplicaSet", "name": "web-5d4"}
    found = find_without(
        [
            *(
                bare(f"web-{number}", labels={"pod-template-hash": "5d4"}, ownerReferences=[owner])
                for number in range(7)
            ),
            bare("other", annotations={"llmroute.dev/gateway": "front"}),
            *(bare(f"odd-{text}", annotations={"llmroute.dev/gateway": text}) for text in ("../../x", "a/b", "a\n")),
            bare("mirror", annotations={"kubernetes.io/config.mirror": "x"}),
            bare("going", deletionTimestamp="2026-11-25T12:00:00Z"),
        ]
    )
    assert {str(key): one.count for key, one in found.items()} == {"shop/default": 7, "shop/front": 1}
    message = told(without=found[GatewayKey("shop", "default")])["PodsWithoutGateway"][2]
    assert (
        "7 pods of this namespace ask for gateway 'default' and have none: web-0, web-1, web-2, web-3, web-4 and 2"
        in (message)
    )
    assert "restart them: kubectl rollout restart -n shop deployment/web." in message


@pytest.mark.parametrize("name", ["web; touch x-5d4", "$(touch x)-5d4", "web\n-5d4", "--all-5d4"])
def test_an_owner_whose_name_is_none_comes_into_no_command(name: str) -> None:
    owner = {"controller": True, "kind": "ReplicaSet", "name": name}
    found = find_without([bare("web", labels={"pod-template-hash": "5d4"}, ownerReferences=[owner])])
    message = told(without=found[GatewayKey("shop", "default")])["PodsWithoutGateway"][2]
    assert "restart" not in message
    assert "kubectl delete pod -n shop NAME" in message


BAD_REPORTS = [b"", b"[]", b"not json", b'{"routes": 5}', b'{"revision": 7}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize("body", BAD_REPORTS)
def test_an_answer_that_is_no_gateways_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableReport):
        read_report(body)


def test_texts_of_an_answer_are_cut_and_cleaned() -> None:
    found = read_report(b'{"revision": "r", "error": "a\\u0007b\\n%s"}' % (b"x" * 5000))
    assert found.error.startswith("a b x")
    assert len(found.error) == TEXT_MAX

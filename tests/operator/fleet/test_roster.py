"""Whom to ask next, whom to touch, and when enough is known to say anything."""

from typing import Any

import pytest

from llmroute_operator.controller.fleet import pace
from llmroute_operator.controller.fleet.pod import GatewayPod, read_pod
from llmroute_operator.controller.fleet.report import Report
from llmroute_operator.controller.fleet.roster import FAILURES_BELIEVED, Roster
from llmroute_operator.controller.route import GatewayKey
from tests.operator.pods import pod

KEY = GatewayKey("shop", "default")


def running(name: str = "web-1", *, address: str = "10.0.0.1", version: int = 1, **more: Any) -> GatewayPod:
    document = pod(name, uid=f"uid-of-{name}", namespace="shop", resourceVersion=str(version), **more)
    document["status"] = {"phase": "Running", "podIP": address}
    found = read_pod(document)
    assert found is not None
    return found


def report(revision: str, **more: Any) -> Report:
    return Report("shop", "default", revision, **more)


def listed(*pods: GatewayPod) -> Roster:
    """A roster whose pods were there at its start."""
    roster = Roster()
    roster.expect([None])
    for one in pods:
        roster.put(one)
    roster.listed(None, [one.id for one in pods])
    return roster


def test_nothing_is_said_before_pods_are_listed_and_each_was_asked_once() -> None:
    first, second = running("a"), running("b")
    roster = Roster()
    roster.expect([None])
    assert roster.standings(KEY) is None
    roster = listed(first, second)
    assert roster.standings(KEY) is None
    roster.answered(first, report("r1"), 0, 0)
    assert roster.standings(KEY) is None
    for _ in range(FAILURES_BELIEVED):
        assert roster.standings(KEY) is None
        roster.failed(second, "refused", 0)
    standings = roster.standings(KEY)
    assert standings is not None
    assert [(one.pod.id.name, one.failure) for one in standings] == [("a", ""), ("b", "refused")]


def test_a_pod_that_comes_later_is_said_to_be_behind_until_it_answers() -> None:
    roster = listed()
    roster.put(running("late"))
    standings = roster.standings(KEY)
    assert standings is not None
    assert [one.report for one in standings] == [None]


def test_a_new_revision_names_the_pods_that_are_behind_once() -> None:
    one = running()
    roster = listed(one)
    assert roster.want(KEY, "r1", 0) == (one.id,)
    assert roster.want(KEY, "r1", 1) == ()
    roster.answered(one, report("r1"), 1, 0)
    assert roster.want(KEY, "r2", 2) == (one.id,)


TOUCHED = [
    ("it serves another revision", {}, "old", "new"),
    ("it was never asked", {}, None, "new"),
    ("it serves the revision", {}, "new", None),
    ("it was touched for it", {"annotations": {"llmroute.dev/revision": "new"}}, "old", None),
    ("it was touched for another", {"annotations": {"llmroute.dev/revision": "older"}}, "old", "new"),
    ("it has no address yet", {"address": ""}, None, None),
    ("it is being deleted", {"deletionTimestamp": "2026-11-25T12:00:00Z"}, "old", None),
]


@pytest.mark.parametrize(("how", "made", "serves", "touched_for"), TOUCHED, ids=[case[0] for case in TOUCHED])
def test_a_pod_is_touched_only_where_that_helps(
    how: str, made: dict[str, Any], serves: str | None, touched_for: str | None
) -> None:
    one = running(**made)
    roster = listed(one)
    if serves is not None:
        roster.answered(one, report(serves), 0, 0)
    roster.want(KEY, "new", 1)
    assert roster.touch_for(one.id) == touched_for


def test_a_pod_that_was_touched_late_is_asked_again_soon() -> None:
    one = running()
    roster = listed(one)
    roster.want(KEY, "new", 0)
    assert roster.answered(one, report("old"), 60, 0)[1] == pace.BEHIND_SECONDS[1]
    roster.touched(running(version=2, annotations={"llmroute.dev/revision": "new"}), 60)
    assert roster.answered(one, report("old"), 61, 0)[1] == pace.BEHIND_SECONDS[0]


AGAIN = [
    ("all is well", True, True, 1000, pace.STEADY_SECONDS),
    ("just behind", False, True, 0.1, pace.BEHIND_SECONDS[0]),
    ("behind for a while", False, True, 10, 5),
    ("behind for long", False, True, 10_000, pace.BEHIND_SECONDS[1]),
    ("trouble is new", True, False, 0, pace.TROUBLED_SECONDS[0]),
    ("trouble is old", True, False, 10_000, pace.TROUBLED_SECONDS[1]),
]


@pytest.mark.parametrize(("how", "current", "whole", "since", "again"), AGAIN, ids=[case[0] for case in AGAIN])
def test_it_is_asked_soon_after_a_change_and_seldom_when_all_agree(
    how: str, current: bool, whole: bool, since: float, again: float
) -> None:
    def seconds(dice: float) -> float:
        return pace.ask_again_in(is_current=current, is_whole=whole, for_seconds=since, dice=dice)

    assert seconds(0) == again
    assert seconds(1) == again / 2


def test_one_that_never_answers_is_asked_ever_more_seldom_and_that_is_news_once() -> None:
    one = running()
    roster = listed()
    roster.put(one)
    told = [roster.failed(one, "refused", 0) for _ in range(12)]
    assert [is_news for is_news, _ in told] == [True] + [False] * 11
    rests = [again or 0.0 for _, again in told]
    assert rests == sorted(rests)
    assert rests[-1] == pace.UNREACHABLE_MOST_SECONDS


def test_a_lost_answer_of_one_that_has_answered_before_is_no_news_until_the_third() -> None:
    one = running()
    roster = listed(one)
    roster.answered(one, report("r1"), 0, 0)
    assert [roster.failed(one, "silent", 0)[0] for _ in range(4)] == [False, False, True, False]
    assert roster.answered(one, report("r1"), 1, 0)[0]
    assert [roster.failed(one, "silent", 0)[0] for _ in range(2)] == [False, False]
    assert not roster.answered(one, report("r1"), 2, 0)[0]


def test_the_same_answer_twice_is_no_news() -> None:
    one = running()
    roster = listed(one)
    assert roster.answered(one, report("r1"), 0, 0)[0]
    assert not roster.answered(one, report("r1"), 1, 0)[0]
    assert roster.answered(one, report("r2"), 2, 0)[0]


def test_an_answer_of_a_pod_that_has_another_address_since_is_not_believed() -> None:
    before, after = running(), running(address="10.0.0.2", version=2)
    roster = listed(before)
    roster.put(after)
    assert roster.answered(before, report("r1"), 0, 0) == (False, None)


def test_what_the_watch_tells_late_is_passed_over() -> None:
    roster = listed(running(version=5, annotations={"llmroute.dev/revision": "r2"}))
    assert not roster.put(running(version=4))
    roster.want(KEY, "r2", 0)
    assert roster.touch_for(running().id) is None


def test_a_pod_recreated_under_its_name_is_another_one() -> None:
    old = running()
    roster = listed(old)
    roster.answered(old, report("r1"), 0, 0)
    document = pod("web-1", uid="another", namespace="shop", resourceVersion="9")
    document["status"] = {"podIP": "10.0.0.1"}
    new = read_pod(document)
    assert new is not None
    roster.put(new)
    assert roster.remove(old.id) == KEY
    standings = roster.standings(KEY)
    assert standings is not None
    assert [one.report for one in standings] == [None]


NO_GATEWAY: list[tuple[str, dict[str, Any]]] = [
    ("the label alone", {"spec": {"containers": [{"name": "app"}]}}),
    ("on the host's network", {"spec": {"hostNetwork": True, "initContainers": [{"name": "llmroute-gateway"}]}}),
    ("finished", {"status": {"phase": "Succeeded"}}),
]


@pytest.mark.parametrize(("how", "changes"), NO_GATEWAY, ids=[case[0] for case in NO_GATEWAY])
def test_pods_that_have_no_gateway_of_ours_are_passed_over(how: str, changes: dict[str, Any]) -> None:
    document = pod("web-1", uid="1", namespace="shop", resourceVersion="1")
    assert read_pod({**document, **changes}) is None


def test_an_ipv6_address_makes_a_url() -> None:
    assert running(address="fd00::1").url == "http://[fd00::1]:8791/status"


def test_touching_is_spread() -> None:
    paced = pace.Pace(50, 100.0)
    waits = [paced.wait(100.0) for _ in range(3000)]
    assert waits[:50] == pytest.approx([0.0] * 50, abs=0.03)
    assert waits[-1] == pytest.approx(59, abs=0.1)

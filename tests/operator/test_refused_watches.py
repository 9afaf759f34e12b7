"""Watches that the API server refuses, or that end where they began: what is told of them, and how often they ask."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmroute_contract.pods import GATEWAY_LABEL
from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import SERVICE_ACCOUNT, ControllerProcess, grant_rights, start
from tests.operator.namespace import Namespace, route
from tests.operator.unreliable import Asked, Between, Fault, between
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

PATHS = {
    "llmroutes": "/apis/llmroute.dev/v1alpha1/llmroutes",
    "configmaps": "/api/v1/configmaps",
    "pods": "/api/v1/pods",
}


@pytest.fixture(scope="module")
def way(control_plane: ControlPlane) -> Iterator[tuple[Between, Path]]:
    grant_rights(control_plane, [])
    with between(control_plane, SERVICE_ACCOUNT) as found:
        yield found


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, way: tuple[Between, Path]) -> Iterator[ControllerProcess]:
    controller = start(control_plane, "--relist-seconds", "2", kubeconfig=way[1])
    try:
        yield controller
        assert controller.end() == 0, controller.log_path.read_text()[-4000:]
    finally:
        controller.close()


@pytest.fixture
def unreliable(way: tuple[Between, Path]) -> Iterator[Between]:
    yield way[0]
    way[0].fails = lambda _: None


def silence(controller: ControllerProcess, watch: str) -> float:
    return controller.metric("watch_silence_seconds", watch=watch)


def asked_since(unreliable: Between, watch: str, since: float) -> list[Asked]:
    return [asked for asked in unreliable.seen if asked.path == PATHS[watch] and asked.at > since]


def test_a_watch_whose_right_was_taken_away_is_silent_until_it_is_given_back(
    running: ControllerProcess, unreliable: Between, control_plane: ControlPlane, namespace: Namespace
) -> None:
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    control_plane.kubectl("delete", "clusterrolebinding", "llmroute-controller")
    account = f"--as={SERVICE_ACCOUNT}"
    wait_until(
        lambda: control_plane.kubectl("auth", "can-i", "list", "pods", account, "-A", check=False).stdout == "no\n",
        "the right to be gone",
    )
    taken = time.monotonic()
    unreliable.cut()
    for watch in PATHS:
        wait_until(lambda watch=watch: len(asked_since(unreliable, watch, taken)) > 3, f"{watch} to be asked for")  # type: ignore[misc]
        asked = asked_since(unreliable, watch, taken)
        assert silence(running, watch) >= asked[-1].at - asked[0].at, "a refusal is no news"
    assert running.get("/healthz").status_code == 200, "starting anew would not bring the right back"
    given = time.monotonic()
    grant_rights(control_plane, [])
    for watch in PATHS:
        wait_until(
            lambda watch=watch: silence(running, watch) < time.monotonic() - given,  # type: ignore[misc]
            f"the watch of {watch} to hear again",
        )
    namespace.apply(route("chat", "changed"))
    namespace.programmed("chat")


def failures(controller: ControllerProcess) -> int:
    return len([line for line in controller.said("watch failed") if line["watch"] == "pods"])


def watches_pods(asked: Asked) -> bool:
    return asked.path == PATHS["pods"] and asked.selector == GATEWAY_LABEL and asked.is_watch


def lists_pods(asked: Asked) -> bool:
    return asked.path == PATHS["pods"] and asked.selector == GATEWAY_LABEL and not asked.is_watch


@pytest.mark.parametrize(
    ("fault", "lists"),
    [(Fault(200), False), (Fault(429, "TooManyRequests"), False), (Fault(410, "Expired"), True)],
    ids=["ends-at-once", "overloaded", "too-old"],
)
def test_a_watch_that_fails_as_it_begins_rests_in_between(
    running: ControllerProcess, unreliable: Between, namespace: Namespace, fault: Fault, lists: bool
) -> None:
    """A list of thousands may take so long that its end is too old already: asked for again at once, for ever, it would
    keep the API server from catching up. One that says that it has too much to do is asked for none."""
    wait_until(lambda: any(map(watches_pods, unreliable.seen)), "the watch")
    unreliable.fails = lambda asked: fault if watches_pods(asked) else None
    before, seen = failures(running), len(unreliable.seen)
    unreliable.cut()
    wait_until(lambda: failures(running) >= before + 3, "it to rest")
    asked, rests = unreliable.seen[seen:], failures(running) - before
    assert len(list(filter(watches_pods, asked))) <= rests + 2
    assert len(list(filter(lists_pods, asked))) <= (rests + 1 if lists else 0)
    unreliable.fails = lambda _: None
    namespace.apply(route("chat"))
    namespace.programmed("chat")
    assert running.get("/healthz").json()["hanging"] == []

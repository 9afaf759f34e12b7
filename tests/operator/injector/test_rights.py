"""Each of the injector's two rights, taken away: what breaks, and where it is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.injector.injector_process import InjectorProcess, grant_rights, launch
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@contextmanager
def with_only(control_plane: ControlPlane, verb: str, folder: Path) -> Iterator[InjectorProcess]:
    grant_rights(control_plane)
    edit = json.dumps([{"op": "replace", "path": "/rules/0/verbs", "value": [verb]}])
    control_plane.kubectl("patch", "clusterrole", "llmroute-injector", "--type=json", "-p", edit)
    try:
        injector = launch(control_plane, folder, "--drain-seconds=0")
        try:
            yield injector
        finally:
            injector.kill()
    finally:
        grant_rights(control_plane)


def says(injector: InjectorProcess, refusal: str) -> bool:
    return refusal in (injector.folder / "injector.log").read_text().replace("\\", "")


def test_without_list_it_is_never_ready_and_becomes_so_once_it_may(control_plane: ControlPlane, tmp_path: Path) -> None:
    with with_only(control_plane, "watch", tmp_path) as injector:
        wait_until(lambda: says(injector, 'cannot list resource "llmroutes"'), "the log to say so")
        assert injector.get("/readyz").json() == {"ready": False, "reason": "the routes are not all known yet"}
        assert injector.get("/healthz").status_code == 200  # a new start would not help
        assert not injector.listens_on("webhook")
        grant_rights(control_plane)
        wait_until(injector.is_ready, "it to be ready")


def test_without_watch_it_serves_by_what_it_listed_and_says_so(control_plane: ControlPlane, tmp_path: Path) -> None:
    """It is ready: to hold back every pod that asks would be worse than to know of a new Secret minutes later."""
    with with_only(control_plane, "list", tmp_path) as injector:
        wait_until(lambda: says(injector, 'cannot watch resource "llmroutes"'), "the log to say so")
        wait_until(injector.is_ready, "it to be ready")
        assert injector.metric("last_watch_timestamp_seconds") == 0
        assert injector.metric("last_relist_timestamp_seconds") > 0
        grant_rights(control_plane)
        wait_until(lambda: injector.metric("last_watch_timestamp_seconds") > 0, "the watch to be taken up")

"""A controller that touches no pods, of one namespace: no other may be about that does."""

from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import running_controller
from tests.operator.fleet.test_sidecars import OPEN, gateway_at
from tests.operator.namespace import Namespace, route
from tests.operator.pods import make_pods, pod, runs_at, sidecars, touched_for

pytestmark = pytest.mark.cluster


def test_touching_can_be_switched_off(control_plane: ControlPlane, namespace: Namespace, tmp_path: Path) -> None:
    arguments = ("--namespace", namespace.name, "--touch-pods-per-second", "0")
    with running_controller(control_plane, *arguments):
        namespace.apply(route("chat", "one", auth=OPEN))
        namespace.programmed("chat")
        with gateway_at(namespace, tmp_path / "a", "127.0.9.40") as a:
            make_pods(namespace, pod("web-1", port=a.admin_port))
            runs_at(namespace, "web-1", "127.0.9.40")
            namespace.wait(lambda: sidecars(namespace, "chat") == "1/1", "the pod to be synced")
            namespace.apply(route("chat", "two", auth=OPEN))
            revision = namespace.programmed("chat")
            namespace.wait(lambda: revision in namespace.condition("chat", "Synced", "True"), "the pod to be synced")
            assert touched_for(namespace, "web-1") is None

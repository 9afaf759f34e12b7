"""A controller that looks after listed namespaces, with rights in those alone."""

import subprocess

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import COMMAND, NAMESPACE_RBAC, grant_rights, running_controller, start
from tests.operator.namespace import Namespace, route

pytestmark = pytest.mark.cluster


def test_listed_namespaces_are_served_and_no_others(control_plane: ControlPlane) -> None:
    first, second, unlisted = (Namespace(control_plane, control_plane.new_namespace()) for _ in range(3))
    unlisted.apply(route("chat"))
    arguments = ["--namespace", first.name, "--namespace", second.name]
    with running_controller(control_plane, *arguments) as controller:
        for namespace in (first, second):
            namespace.apply(route("chat"))
            namespace.programmed("chat")
            namespace.kubectl("delete", "configmap", "llmroute-gateway-default")
            namespace.wait(namespace.files, "the ConfigMap to be back")
        controller.wait_until_idle()
        assert controller.metric("routes") == 2
        assert controller.metric("watch_silence_seconds", watch=f"configmaps/{first.name}") < 180
        assert not any("forbidden" in line["message"] for line in controller.lines)
    assert unlisted.configmap() is None
    assert "status" not in unlisted.route("chat")


def test_a_namespace_that_is_gone_keeps_nobody_waiting(control_plane: ControlPlane) -> None:
    """Its Role went with it."""
    gone, kept = (Namespace(control_plane, control_plane.new_namespace()) for _ in range(2))
    grant_rights(control_plane, [gone.name, kept.name])
    gone.kubectl("delete", "rolebinding", "llmroute-controller")
    kept.apply(route("chat"))
    controller = start(control_plane, "--namespace", gone.name, "--namespace", kept.name)
    try:
        kept.programmed("chat")
        kept.condition("chat", "Synced", "True", "NoPods")
        gone.apply(route("chat"))
        gone.kubectl("apply", "-f", str(NAMESPACE_RBAC))  # and comes again
        gone.programmed("chat")
        kept.apply(route("chat", "changed"))
        kept.programmed("chat")
        assert controller.end() == 0
    finally:
        controller.close()


def test_a_pattern_of_namespaces_is_refused() -> None:
    command = [str(COMMAND), "controller", "--namespace", "team-*"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'team-*' is not a namespace's name" in done.stderr

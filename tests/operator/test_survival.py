"""What the controller outlives, and that it writes nothing that is so already."""

import signal
import subprocess

import pytest

from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.operator.controller_process import COMMAND, SERVICE_ACCOUNT, grant_rights, running_controller, start
from tests.operator.namespace import Namespace, route
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_an_idle_controller_writes_nothing_however_often_it_reads_all(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with running_controller(control_plane, "--relist-seconds", "2") as controller:
        namespace.apply(route("a"), route("b"), route("bad", {"name": "x", "targets": [{"upstream": "nowhere"}]}))
        namespace.programmed("a")
        namespace.programmed("b")
        namespace.condition("bad", "Accepted", "False", "UnknownUpstream")
        namespace.wait(
            lambda: {namespace.route(name)["status"]["revision"] for name in "ab"} == {namespace.index().revision},
            "both to tell the revision",
        )
        first = controller.metric("relists_total", result="success")
        wait_until(lambda: controller.metric("relists_total", result="success") > first, "all to be known to it")
        controller.wait_until_idle()
        versions, writes = namespace.versions(), controller.writes
        relists = controller.metric("relists_total", result="success")
        reconciles = controller.metric("reconciles_total", result="success")
        wait_until(lambda: controller.metric("relists_total", result="success") >= relists + 3, "three relists")
        wait_until(
            lambda: controller.metric("reconciles_total", result="success") >= reconciles + 3, "three more looks"
        )
        assert controller.writes == writes
        assert namespace.versions() == versions


def test_a_restart_with_nothing_changed_writes_nothing(control_plane: ControlPlane, namespace: Namespace) -> None:
    with running_controller(control_plane) as first:
        namespace.apply(route("a"), route("b"), route("lone", gateway="other"))
        for name in ("a", "b", "lone"):
            namespace.programmed(name)
        first.wait_until_idle()
        versions = namespace.versions()
    with running_controller(control_plane) as second:
        wait_until(lambda: second.metric("reconciles_total", result="success") >= 2, "both gateways to be looked at")
        second.wait_until_idle()
        assert second.writes == 0
        assert namespace.versions() == versions


def test_a_killed_controller_leaves_nothing_that_its_successor_cannot_go_on_from(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    with running_controller(control_plane):
        namespace.apply(route("a"))
        namespace.programmed("a")
    killed = start(control_plane)
    try:
        namespace.apply(route("a", "changed"), route("b"))
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
    finally:
        killed.close()
    with running_controller(control_plane):
        namespace.programmed("a")
        namespace.programmed("b")
        assert [model.name for model in namespace.compiled("a").models] == ["changed"]


def test_it_outlives_the_api_server(control_plane: ControlPlane, namespace: Namespace) -> None:
    with running_controller(control_plane) as controller:
        namespace.apply(route("a"))
        namespace.programmed("a")
        controller.wait_until_idle()
        writes = controller.writes
        control_plane.stop_api_server()
        assert controller.get("/healthz").status_code == 200, "starting anew would not bring the API server back"
        wait_until(
            lambda: any(line["level"] in ("warning", "error") for line in controller.lines), "it to notice", seconds=60
        )
        control_plane.start_api_server()
        namespace.apply(route("a", "changed"))
        namespace.programmed("a")
        namespace.kubectl("delete", "configmap", "llmroute-gateway-default")
        namespace.wait(lambda: namespace.files() == {"gateway.json", "route.a.json"}, "the ConfigMap to be back")
        assert controller.process.poll() is None
        assert controller.writes >= writes + 3


def test_it_can_start_before_the_api_server_does(control_plane: ControlPlane, namespace: Namespace) -> None:
    grant_rights(control_plane, [])
    namespace.apply(route("a"))
    kubeconfig = control_plane.kubeconfig_for(SERVICE_ACCOUNT)
    control_plane.stop_api_server()
    try:
        controller = start(control_plane, kubeconfig=kubeconfig)
    finally:
        control_plane.start_api_server()
    try:
        namespace.programmed("a")
        assert controller.said("LLMRoutes cannot be listed")
        assert controller.end() == 0
    finally:
        controller.close()


def test_it_takes_over_a_renewed_token(control_plane: ControlPlane, namespace: Namespace) -> None:
    """Tokens of pods expire; here the old one is void because its service account is another one now."""
    with running_controller(control_plane) as controller:
        namespace.apply(route("a"))
        namespace.programmed("a")
        control_plane.kubectl("delete", "serviceaccount", "llmroute-controller", "-n", "llmroute-system")
        grant_rights(control_plane, [])
        control_plane.kubeconfig_for(SERVICE_ACCOUNT)  # written over the file that the controller has
        control_plane.stop_api_server()  # ends connections that were let in with the old one
        control_plane.start_api_server()
        namespace.apply(route("a", "changed"))
        namespace.programmed("a")
        assert "401" in controller.log_path.read_text(), "the old token was still good: nothing was tested"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_told_to(control_plane: ControlPlane, number: signal.Signals) -> None:
    with running_controller(control_plane) as controller:
        controller.wait_until_idle()
        controller.process.send_signal(number)
        assert controller.process.wait(timeout=40) == 0
        assert controller.said("ended")


def test_it_ends_cleanly_when_told_to_before_it_has_begun(control_plane: ControlPlane) -> None:
    with running_controller(control_plane) as controller:
        controller.process.terminate()
        assert controller.process.wait(timeout=40) == 0


def test_without_a_way_to_the_api_server_it_says_so_in_one_line() -> None:
    for arguments in (["--kubeconfig", "/nowhere"], ["--kubeconfig", str(REPOSITORY / "Makefile")], []):
        done = subprocess.run([str(COMMAND), "controller", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith("llmroute-operator: no way to the API server: ")
        assert "Traceback" not in done.stderr + done.stdout

"""The harness itself: what other tests rely on."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster


def test_kubectl_knows_our_resource_by_its_short_name(control_plane: ControlPlane) -> None:
    namespace = control_plane.new_namespace()
    assert control_plane.get("llmr", "-n", namespace)["items"] == []


def test_what_kubectl_remembers_of_this_api_server_ends_with_the_run(control_plane: ControlPlane) -> None:
    """By host and port: the next run's may have the same, and not the same kinds."""
    control_plane.get("namespaces")
    host = control_plane.url.removeprefix("https://").replace(":", "_")
    assert (Path(os.environ["KUBECACHEDIR"]) / "discovery" / host).is_dir()


def test_a_service_account_has_no_rights_but_its_own(control_plane: ControlPlane) -> None:
    namespace = control_plane.new_namespace()
    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    kubeconfig = control_plane.kubeconfig_for(f"system:serviceaccount:{namespace}:nobody")
    kubectl = control_plane.kubectl_command[0]
    arguments = [kubectl, "--kubeconfig", str(kubeconfig), "get", "configmaps", "-n", namespace]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"system:serviceaccount:{namespace}:nobody" in done.stderr


def test_the_api_server_comes_back_with_what_it_had(control_plane: ControlPlane) -> None:
    namespace = control_plane.new_namespace()
    control_plane.stop_api_server()
    assert control_plane.kubectl("get", "namespaces", check=False).returncode != 0
    control_plane.start_api_server()
    assert control_plane.get("namespace", namespace)["metadata"]["name"] == namespace

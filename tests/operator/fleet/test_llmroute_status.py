"""`kubectl llmroute status` on a real API server, whose proxy reaches real gateways."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llmroute_sidecar.status.gather import GatewayState, PodState, read_pod_state
from llmroute_sidecar.status.show import as_text
from tests.operator.controller_process import ControllerProcess
from tests.operator.fleet.test_sidecars import OPEN, gateway_at
from tests.operator.namespace import Namespace, route
from tests.operator.pods import make_pods, pod, runs_at, sidecars

SCRIPTS = Path(sys.executable).parent


def own_address() -> str:
    """An address of this machine that is not the loopback's, which the API server's proxy refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return "" if address.startswith("127.") else address


@pytest.mark.cluster
def test_the_plugin_shows_pods_revisions_breakers_and_errors(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but the loopback's, and the API server's proxy refuses that")
    plane = namespace.control_plane
    upstream = {"name": "main", "url": "mock://fail", "breaker": {"maxFailures": 1, "reset": "1h"}}
    namespace.apply(route("chat", auth=OPEN, upstreams=[upstream]))
    revision = namespace.programmed("chat")
    with gateway_at(namespace, tmp_path / "a", address) as gateway:
        make_pods(namespace, pod("web-1", port=gateway.admin_port), pod("pending"))
        runs_at(namespace, "web-1", address)
        namespace.wait(lambda: sidecars(namespace, "chat") == "1/1", "the pod to serve the route")
        gateway.post({"model": "chat", "messages": []}, key=None)
        done = subprocess.run(
            [str(plane._kubectl), "llmroute", "status", f"--kubeconfig={plane.admin_kubeconfig}", "-n", namespace.name],
            env={**os.environ, "PATH": f"{SCRIPTS}:{plane._kubectl.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        lines = [line.split() for line in done.stdout.splitlines()]
        assert lines[0] == f"gateway {namespace.name}/default: revision {revision}, 1/2 synced".split()
        assert lines[2] == ["POD", "REVISION", "STATE", "BREAKERS", "TELLS"]
        assert lines[3][:4] == ["pending", "-", "unreachable", "-"]
        assert lines[4] == ["web-1", revision, "synced", "chat/main", "open", "-"]
        assert done.returncode == 1
        done = subprocess.run(
            [
                *(str(SCRIPTS / "llmroute"), "status", f"--kubeconfig={plane.admin_kubeconfig}"),
                *("-n", namespace.name, f"--kubectl={plane._kubectl}", "-o", "json"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        (shown,) = json.loads(done.stdout)
        assert (shown["gateway"], shown["synced"], shown["total"]) == ("default", 1, 2)


def test_without_kubectl_it_says_so() -> None:
    done = subprocess.run(
        [str(SCRIPTS / "llmroute"), "status", "--kubectl=no-such-kubectl"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "llmroute: there is no no-such-kubectl on the PATH\n"


@pytest.mark.skipif(shutil.which("false") is None, reason="there is no program that fails")
def test_where_kubectl_fails_its_words_are_told() -> None:
    done = subprocess.run([str(SCRIPTS / "llmroute"), "status", "--kubectl=false"], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"llmroute: kubectl failed\n")


@pytest.mark.parametrize(
    "answer",
    ['{"routes": 5}', '{"routes": ["x"]}', "[]", '{"problems": 1}'],
    ids=["number", "texts", "list", "problem"],
)
def test_a_pod_that_answers_anything_is_shown_as_one_that_does_not_answer(tmp_path: Path, answer: str) -> None:
    """One pod with a server of its own must not take the others from who looks at all of them."""
    document = pod("web-1")
    document["metadata"]["namespace"] = "shop"
    document["status"] = {"phase": "Running", "podIP": "10.0.0.1"}
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh
case "$*" in
  *--raw*) echo '{answer}' ;;
  *llmroutes*) echo '{{"items": []}}' ;;
  *) echo '{json.dumps({"items": [document]})}' ;;
esac
"""
    )
    kubectl.chmod(0o755)
    done = subprocess.run(
        [str(SCRIPTS / "llmroute"), "status", f"--kubectl={kubectl}"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    (line,) = [line.split() for line in done.stdout.splitlines() if "web-1" in line]
    assert line == ["web-1", "-", "unreachable", "-", "its", "answer", "is", "not", "a", "gateway's"]


def test_a_pods_text_can_neither_move_the_cursor_nor_flood_the_screen() -> None:
    flood = GatewayState("shop", "default", "r", ["chat"], [PodState("web", "\x1b[2Jr", tells=["x" * 10**6])])
    assert "\x1b" not in as_text([flood])
    assert len(as_text([flood])) < 5000
    status = {"revision": "r", "error": "broken\x1b[2J\nworse", "routes": [{"name": "chat", "accepted": False}]}
    state = GatewayState("shop", "default", "r", ["chat"], [read_pod_state("web-1", status, {})])
    assert "broken [2J worse; route chat: None" in as_text([state])


def test_a_refused_credential_is_told_though_its_breaker_is_closed() -> None:
    breaker = {"route": "chat", "upstream": "openai", "state": "closed", "credential_refused": True}
    state = read_pod_state("web-1", {"revision": "r"}, {"circuit_breakers": [breaker]})
    assert (state.breakers, state.tells) == ({}, ["upstream chat/openai refuses the gateway's credential"])


def test_a_pod_that_is_behind_makes_the_count() -> None:
    pods = [PodState("a", "new"), PodState("b", "old"), PodState("c", failure="refused")]
    text = as_text([GatewayState("shop", "default", "new", ["chat"], pods)])
    assert text.splitlines()[0] == "gateway shop/default: revision new, 1/3 synced"
    assert [line.split()[2] for line in text.splitlines()[3:6]] == ["synced", "behind", "unreachable"]

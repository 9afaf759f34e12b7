"""The whole journey where it ends: on a real node, with the real images.

The controller is a pod under its own service account; apps call through the gateway in their pod with the official SDK;
providers are pods behind Services that answer to their key alone.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from llmroute_contract.pods import GATEWAY_CONTAINER
from tests.cluster.node import RealNode
from tests.cluster.workloads import controller, job, with_gateway_label
from tests.journey.shop import CLIENT_KEY, PROVIDER_KEY, SECONDS, App, Shop, calls_of, lost, open_shop
from tests.operator.controller_process import CLUSTER_RBAC
from tests.waiting import wait_until

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def installed(real_node: RealNode) -> RealNode:
    """The controller as people install it, at work."""
    plane = real_node.control_plane
    plane.kubectl("apply", "-f", str(CLUSTER_RBAC))
    plane.kubectl("label", "namespace", "llmroute-system", "pod-security.kubernetes.io/enforce=restricted")
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(controller(real_node.operator)))
    rollout = ["rollout", "status", "-n", "llmroute-system", "deployment/llmroute-controller"]
    plane.kubectl(*rollout, f"--timeout={SECONDS:.0f}s")
    return real_node


@pytest.fixture(scope="module")
def shop(installed: RealNode) -> Shop:
    return open_shop(installed)


@pytest.fixture(scope="module")
def web(shop: Shop) -> Iterator[App]:
    """An app that calls ten times a second, all through the module."""
    with shop.app("web") as app:
        app.wait_for("first")
        yield app


def test_the_controller_runs_as_a_pod_under_its_own_service_account(shop: Shop) -> None:
    wait_until(lambda: shop.condition("Programmed").get("status") == "True", "the route to be programmed", SECONDS)
    pods = shop.node.control_plane.get("-n", "llmroute-system", "pods", "-l", "app=llmroute-controller")["items"]
    assert [pod["spec"]["serviceAccountName"] for pod in pods] == ["llmroute-controller"]
    assert pods[0]["status"]["containerStatuses"][0]["restartCount"] == 0


def test_an_app_is_answered_through_the_gateway_in_its_pod(web: App) -> None:
    assert web.restarts() == {GATEWAY_CONTAINER: 0, "app": 0}
    assert lost(web.calls()) == []  # not even the first: the app starts once its gateway is ready


def test_the_route_tells_that_the_pod_serves_it(web: App) -> None:
    wait_until(lambda: web.shop.condition("Synced").get("status") == "True", "the route to be Synced", SECONDS, 0.3)


def test_an_edited_route_reaches_the_pod_while_it_calls_and_no_call_is_lost(web: App) -> None:
    web.shop.route_to("second")
    web.wait_for("second", count=5)
    web.shop.route_to("first")
    web.wait_for("first", count=5)
    calls = web.calls()
    assert lost(calls) == []
    said = [call["said"] for call in calls]
    turns = [one for place, one in enumerate(said) if place == 0 or said[place - 1] != one]
    assert turns == ["first", "second", "first"]  # no answer by an old route after one by a new


FIND_TEXT = """
import os, sys
text, found, files = sys.argv[1].encode(), [], 0
def look(path):
    global files
    try:
        with open(path, "rb") as file:
            files += 1
            if text in file.read():
                found.append(path)
    except OSError:
        pass
for folder, inner, names in os.walk("/"):
    inner[:] = [one for one in inner if os.path.join(folder, one) not in ("/proc", "/sys", "/dev")]
    for name in names:
        if os.path.isfile(os.path.join(folder, name)):
            look(os.path.join(folder, name))
for process in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "maps"):
        look(f"/proc/{process}/{name}")
    if int(process) != os.getpid():
        look(f"/proc/{process}/cmdline")
print(files, *found)
"""


def test_the_providers_key_is_nowhere_in_the_apps_container(web: App) -> None:
    """Its environment, its processes, every file that it can read. The client's own key is found: the search works."""

    def holders(text: str) -> list[str]:
        files, *found = web.exec("/app/venv/bin/python", "-c", FIND_TEXT, text).split()
        assert int(files) > 1000
        return found

    assert holders(PROVIDER_KEY) == []
    assert any(path.endswith("environ") for path in holders(CLIENT_KEY))
    assert PROVIDER_KEY not in web.shop.node.logs(web.shop.namespace, web.pod, GATEWAY_CONTAINER)


def test_the_gateways_root_is_read_only_and_its_user_is_nobody(web: App) -> None:
    tell = "import os; print(os.getuid(), os.statvfs('/').f_flag & os.ST_RDONLY, os.path.exists('/usr/bin/pip'))"
    told = web.shop.node.exec(web.shop.namespace, web.pod, GATEWAY_CONTAINER, "/opt/llmroute/bin/python", "-c", tell)
    assert told.split() == ["65532", "1", "False"]


def test_a_job_completes_and_its_gateway_goes_with_it(shop: Shop) -> None:
    shop.apply(with_gateway_label(job("batch", shop.pod_spec("5"))))
    shop.kubectl("wait", "--for=condition=Complete", "job/batch", f"--timeout={SECONDS:.0f}s")
    calls = calls_of(shop.kubectl("logs", "job/batch", "-c", "app"))
    assert (len(calls), lost(calls)) == (5, [])


def test_a_deleted_pods_gateway_serves_until_the_app_has_gone(shop: Shop) -> None:
    """The app makes twenty calls more after it was told to go; the gateway drains only then."""
    with shop.app("leaver") as app, following(app) as (app_log, gateway_log):
        app.wait_for("first")
        shop.kubectl("delete", "pod", app.pod, f"--timeout={SECONDS:.0f}s")
    calls = calls_of("".join(app_log))
    last = [call for call in calls if call["going"]]
    assert len(last) == 20
    assert lost(calls) == []
    events = [json.loads(line) for line in gateway_log if line.startswith("{")]
    messages = [event["message"] for event in events]
    assert messages[-1] == "stopped"
    drained = next(place for place, message in enumerate(messages) if message == "draining")
    served = [place for place, event in enumerate(events) if event.get("path") == "/v1/chat/completions"]
    assert served[-1] < drained


@contextmanager
def following(app: App) -> Iterator[tuple[list[str], list[str]]]:
    """The lines of the app's and the gateway's log, to their end."""
    plane = app.shop.node.control_plane
    base = [*plane.kubectl_command, "logs", "-f", "-n", app.shop.namespace, app.pod]
    lines: tuple[list[str], list[str]] = ([], [])
    followers = []
    for container, into in zip(("app", GATEWAY_CONTAINER), lines, strict=True):
        process = subprocess.Popen([*base, "-c", container], stdout=subprocess.PIPE, text=True)
        reader = threading.Thread(target=_read_all, args=(process, into), daemon=True)
        reader.start()
        followers.append((process, reader))
    try:
        yield lines
    finally:
        for process, reader in followers:
            reader.join(60)  # the log ends with its container
            process.kill()
            process.wait()


def _read_all(process: "subprocess.Popen[str]", into: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as stdout:
        into.extend(stdout)


def test_a_gateway_that_is_killed_in_mid_stream_comes_back_and_serves(shop: Shop) -> None:
    shop.route_to("slow")
    try:
        with shop.app("streamer", STREAM="true") as app:
            app.wait_for("slow " * 30)
            shop.node.kill(shop.namespace, app.pod, GATEWAY_CONTAINER)
            wait_until(lambda: lost(app.calls()), "the stream under way to fail", SECONDS, every=0.3)
            wait_until(lambda: app.calls()[-1]["said"] == "slow " * 30, "a stream after that", SECONDS, every=0.3)
            assert app.restarts() == {GATEWAY_CONTAINER: 1, "app": 0}
    finally:
        shop.route_to("first")

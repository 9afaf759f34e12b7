"""The journey with the injector as pods, called by the API server over its Service: an app's author writes a label, and
nothing else of a gateway."""

import json
from collections.abc import Iterator

import pytest
import yaml
from playwright.sync_api import Browser, expect

from llmroute_contract.pods import GATEWAY_CONTAINER
from tests.browser import looking_at
from tests.chat_app import FOLDER, say
from tests.cluster.images import chat_image
from tests.cluster.node import RealNode
from tests.cluster.workloads import asking_pod, controller, deployment, injector, job, labelled
from tests.journey.shop import PROVIDER_KEY, SECONDS, App, Shop, calls_of, lost, open_shop
from tests.operator.controller_process import CLUSTER_RBAC, RBAC
from tests.operator.injector.injector_process import RBAC as INJECTOR_RBAC
from tests.operator.injector.injector_process import WEBHOOK
from tests.waiting import wait_until

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

CERTIFICATE = "/api/v1/namespaces/llmroute-system/secrets/llmroute-injector-tls"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/llmroute-injector"


@pytest.fixture(scope="module")
def installed(real_node: RealNode) -> RealNode:
    """Controller and injector as pods; the controller makes the certificate and publishes its authority."""
    plane = real_node.control_plane
    for manifest in (CLUSTER_RBAC, RBAC / "certificates.yaml", INJECTOR_RBAC, WEBHOOK):
        plane.kubectl("apply", "-f", str(manifest))
    if plane.read(CERTIFICATE) is None:
        plane.kubectl("create", "secret", "generic", "llmroute-injector-tls", "-n", "llmroute-system")
    made = controller(
        real_node.operator,
        "--certificates=self",
        "--injector-namespace=llmroute-system",
        "--certificate-publish-seconds=2",
    )
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(made))
    wait_until(lambda: "tls.crt" in ((plane.read(CERTIFICATE) or {}).get("data") or {}), "a certificate", SECONDS)
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(injector(real_node.operator, real_node.gateway)))
    for name in ("llmroute-controller", "llmroute-injector"):
        rollout = ["rollout", "status", "-n", "llmroute-system", f"deployment/{name}"]
        plane.kubectl(*rollout, f"--timeout={SECONDS:.0f}s")
    assert all(one["clientConfig"].get("caBundle") for one in plane.read(WEBHOOKS)["webhooks"])
    return real_node


@pytest.fixture(scope="module")
def shop(installed: RealNode) -> Shop:
    return open_shop(installed)


@pytest.fixture(scope="module")
def web(shop: Shop) -> Iterator[App]:
    shop.apply(labelled(deployment("web", asking_pod(shop.node.app))))
    with shop.following("web") as app:
        app.wait_for("first")
        yield app


def test_a_labelled_deployment_comes_up_with_its_gateway_and_is_answered(web: App) -> None:
    pod = web.shop.get("pod", web.pod)
    assert [one["name"] for one in pod["spec"]["initContainers"]] == [GATEWAY_CONTAINER]
    assert lost(web.calls()) == []
    assert PROVIDER_KEY not in json.dumps(pod)


def test_an_edit_reaches_an_injected_pod_while_it_calls_and_no_call_is_lost(web: App) -> None:
    web.shop.route_to("second")
    web.wait_for("second", count=5)
    web.shop.route_to("first")
    web.wait_for("first", count=5)
    assert lost(web.calls()) == []
    wait_until(lambda: web.shop.condition("Synced").get("status") == "True", "the route to be Synced", SECONDS, 0.3)


def test_a_labelled_job_completes(shop: Shop) -> None:
    shop.apply(labelled(job("batch", asking_pod(shop.node.app, "5"))))
    shop.kubectl("wait", "--for=condition=Complete", "job/batch", f"--timeout={SECONDS:.0f}s")
    calls = calls_of(shop.kubectl("logs", "job/batch", "-c", "app"))
    assert (len(calls), lost(calls)) == (5, [])


def test_without_the_label_a_pod_is_left_alone(shop: Shop) -> None:
    pods = shop.node.control_plane.get("-n", shop.namespace, "pods", "-l", "app=first")["items"]
    assert [pod["spec"].get("initContainers") for pod in pods] == [None]


@pytest.fixture(scope="module")
def chat_page(shop: Shop) -> Iterator[str]:
    """The example app, applied as it stands; the address of its page, over a forwarded port."""
    shop.node.load(chat_image())
    shop.kubectl("apply", "-f", str(FOLDER))
    shop.kubectl("rollout", "status", "deployment/chat-app", f"--timeout={SECONDS:.0f}s")
    with shop.node.forwarding(shop.namespace, "service/chat-app", 80) as url:
        yield url
    shop.kubectl("delete", "-f", str(FOLDER), "--wait=false")


def test_the_example_chat_comes_up_from_its_folder_and_shows_a_fallback(browser: Browser, chat_page: str) -> None:
    with looking_at(browser, chat_page) as look:
        answer = look.page.locator(".it").last
        say(look.page, "hi", "chat")
        expect(answer).to_contain_text("answered by steady")
        say(look.page, "and if you fail?", "shaky")
        expect(answer).to_contain_text("answered by steady, chat stood in for shaky")
        expect(answer.locator("p")).to_contain_text("mock upstream")
        assert look.complaints == []

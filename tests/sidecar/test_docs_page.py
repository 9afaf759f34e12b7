"""The admin port's /docs, in a real browser: every endpoint is told, can be asked, and nobody else is."""

from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import WAIT_MILLISECONDS, looking_at, opened_browser
from tests.gateway_process import GatewayProcess, running, spec

pytestmark = pytest.mark.server

expect.set_options(timeout=WAIT_MILLISECONDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running(tmp_path_factory.mktemp("gateway"), {"chat": spec("mock://local")}) as gateway:
        yield gateway


def test_each_endpoint_is_told_and_can_be_asked_and_nothing_leaves_the_origin(
    browser: Browser, gateway: GatewayProcess
) -> None:
    paths = set(gateway._client.get(f"{gateway.admin_url}/openapi.json").json()["paths"])
    assert {"/status", "/models", "/limits", "/requests", "/health", "/ready", "/metrics"} < paths
    with looking_at(browser, f"{gateway.admin_url}/docs") as look:
        sections = look.page.locator("section")
        expect(sections).to_have_count(len(paths))
        assert {section.get_attribute("data-path") for section in sections.all()} == paths
        status = look.page.locator('section[data-path="/status"]')
        status.locator("summary").click()
        expect(status).to_contain_text("What this gateway serves from.")
        expect(status).to_contain_text("list of UnavailableUpstream")
        status.get_by_role("button").click()
        expect(status.locator("pre")).to_contain_text(gateway.status()["revision"])
        metrics = look.page.locator('section[data-path="/metrics"]')
        metrics.get_by_role("button").click()
        expect(metrics.locator("pre")).to_contain_text("llmroute_build_info")
        assert {urlsplit(url).netloc for url in look.asked} == {urlsplit(gateway.admin_url).netloc}
        assert look.complaints == []


def test_its_policy_lets_it_talk_to_this_origin_alone(gateway: GatewayProcess) -> None:
    answer = gateway._client.get(f"{gateway.admin_url}/docs")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert "http" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone(browser: Browser, gateway: GatewayProcess, scheme: Literal["light", "dark"]) -> None:
    with looking_at(browser, f"{gateway.admin_url}/docs", width=360, scheme=scheme) as look:
        expect(look.page.locator('section[data-path="/status"]')).to_be_visible()
        for summary in look.page.locator("summary").all():
            summary.click()
        assert not look.overflows()
        assert look.unreadable() == []


def test_what_a_gateway_without_an_answer_looks_like(browser: Browser, gateway: GatewayProcess) -> None:
    with looking_at(browser, f"{gateway.admin_url}/docs") as look:
        expect(look.page.locator('section[data-path="/health"]')).to_be_visible()
        look.page.route("**/health", lambda route: route.abort())
        health = look.page.locator('section[data-path="/health"]')
        health.get_by_role("button").click()
        expect(health.locator("pre")).to_contain_text("No answer")

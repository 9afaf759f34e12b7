"""The admin port's page, as a person sees it: a real gateway, a real browser."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import looking_at
from tests.gateway_process import GatewayProcess, running, spec, upstream, write_config
from tests.provider import Provider, answers, providing, response

pytestmark = pytest.mark.server
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture
def gateway(tmp_path: Path, provider: Provider) -> Iterator[GatewayProcess]:
    with running(tmp_path, {"chat": route(provider)}, keys={"web": "key-of-web"}) as gateway:
        yield gateway


def route(provider: Provider) -> dict[str, object]:
    """A model that works, one that falls back, one that waits for its Secret, and all that no entry names."""
    return spec(
        provider.url,
        upstreams=[
            upstream("provider", provider.url),
            upstream("broken", "mock://fail", breaker={"maxFailures": 2, "reset": "1h"}),
            upstream("locked", provider.url, credential={"secretRef": {"name": "absent", "key": "api-key"}}),
        ],
        models=[
            {
                "name": "gpt",
                "targets": [{"upstream": "provider", "model": "gpt-eu", "weight": 3}, {"upstream": "locked"}],
            },
            {"name": "shaky", "targets": [{"upstream": "broken"}], "fallbacks": ["gpt"]},
        ],
        defaultUpstream="provider",
        limits=[
            {"name": "per-client", "per": "Client", "requests": 7, "window": "1h"},
            {"name": "spend", "per": "Client", "budget": {"usd": "20", "period": "Day"}},
            {"name": "slots", "per": "Gateway", "concurrency": 64},
        ],
    )


def ask(gateway: GatewayProcess, model: str, **more: str) -> httpx.Response:
    return gateway.post({"model": model, "messages": []}, **more)


def row(page: Page, table: str, name: str) -> Locator:
    """The row of that table that is headed, or has a cell, `name`."""
    cell = page.locator("th, td").filter(has_text=name)
    return page.locator(f"#{table} tbody tr").filter(has=cell).first


def test_all_that_is_served_is_shown(browser: Browser, gateway: GatewayProcess) -> None:
    with looking_at(browser, gateway.admin_url) as look:
        page = look.page
        expect(page.locator("h1")).to_have_text("llmroute tests/default")
        expect(page.locator("#facts")).to_contain_text(gateway.status()["revision"])
        expect(row(page, "routes", "chat")).to_contain_text("accepted")
        expect(row(page, "models", "gpt")).to_contain_text("provider as gpt-eu 75 %")
        expect(row(page, "models", "shaky")).to_contain_text("gpt")
        expect(row(page, "models", "any other")).to_contain_text("provider")
        expect(row(page, "upstreams", "provider")).to_contain_text("closed")
        expect(row(page, "limits", "per-client")).to_contain_text("7 of 7")
        expect(row(page, "limits", "spend")).to_contain_text("$20.00 of $20.00")
        expect(row(page, "limits", "slots")).to_contain_text("64 of 64")
        expect(page.locator("#requests tbody")).to_have_text("No call yet.")
        assert look.complaints == []


def test_what_is_wrong_is_said_first(browser: Browser, gateway: GatewayProcess) -> None:
    with looking_at(browser, gateway.admin_url) as look:
        verdict = look.page.locator("#verdict")
        expect(verdict).to_contain_text("One thing is wrong")
        expect(verdict).to_contain_text("Secret 'absent' is not there")
        expect(look.page.locator("#upstreams tbody tr").first).to_contain_text("unavailable")
        (gateway.secrets_dir / "absent").mkdir()
        (gateway.secrets_dir / "absent" / "api-key").write_text("key-of-provider")
        expect(verdict).to_contain_text("All is well")


def test_a_call_appears_while_one_looks(browser: Browser, gateway: GatewayProcess) -> None:
    with looking_at(browser, gateway.admin_url) as look:
        expect(look.page.locator("#live")).to_have_text("live")
        request_id = ask(gateway, "gpt", key="key-of-web").headers["x-request-id"]
        call = row(look.page, "requests", request_id)
        for text in ("200", "gpt", "web", "provider", "chat/completions"):
            expect(call).to_contain_text(text)
        expect(row(look.page, "limits", "per-client")).to_contain_text("6 of 7")


def test_a_fallback_a_limit_and_an_open_breaker_are_shown(browser: Browser, gateway: GatewayProcess) -> None:
    ids = [ask(gateway, "shaky").headers["x-request-id"] for _ in range(7)]
    refused = ask(gateway, "shaky")
    assert refused.status_code == 429
    with looking_at(browser, gateway.admin_url) as look:
        page = look.page
        breaker = row(page, "upstreams", "broken")
        expect(breaker).to_contain_text("open")
        expect(breaker).to_contain_text("60 min")
        expect(row(page, "requests", ids[0])).to_contain_text("fallback gpt")
        expect(row(page, "requests", ids[0])).to_contain_text("broken: mock_failure")
        expect(row(page, "requests", refused.headers["x-request-id"])).to_contain_text("limit per-client")
        expect(page.locator("#problems")).to_contain_text("The breaker of broken is open")
        expect(page.locator("#problems")).to_contain_text("The limit per-client is used up")


def test_a_broken_reload_is_told_and_so_is_its_end(
    browser: Browser, gateway: GatewayProcess, provider: Provider, tmp_path: Path
) -> None:
    write_config(tmp_path / "next", {"chat": {**route(provider), "defaultUpstream": "broken"}})
    with looking_at(browser, gateway.admin_url) as look:
        expect(row(look.page, "routes", "chat")).to_contain_text("accepted")
        (tmp_path / "next" / "gateway.json").replace(gateway.config_dir / "gateway.json")
        expect(row(look.page, "routes", "chat")).to_contain_text("rejected")
        expect(look.page.locator("#problems")).to_contain_text("Route chat is rejected, generation 1 is served instead")
        (gateway.config_dir / "gateway.json").write_text("{")
        expect(look.page.locator("#problems")).to_contain_text("The newest configuration is not applied")
        write_config(gateway.config_dir, {"chat": route(provider)})
        expect(row(look.page, "routes", "chat")).to_contain_text("accepted")
        expect(look.page.locator("#problems")).not_to_contain_text("configuration")


def test_a_gateway_that_is_gone_is_said_to_be(browser: Browser, gateway: GatewayProcess) -> None:
    with looking_at(browser, gateway.admin_url) as look:
        expect(look.page.locator("#live")).to_have_text("live")
        gateway.process.kill()
        expect(look.page.locator("#verdict")).to_contain_text("The gateway does not answer")
        expect(look.page.locator("#live")).to_contain_text("last seen")


def test_it_asks_nobody_while_it_is_paused(browser: Browser, gateway: GatewayProcess) -> None:
    with looking_at(browser, gateway.admin_url) as look:
        expect(look.page.locator("#live")).to_have_text("live")
        look.page.keyboard.press("Tab")
        look.page.keyboard.press("Enter")
        expect(look.page.locator("#live")).to_have_text("paused")
        look.page.wait_for_load_state("networkidle")
        asked = len(look.asked)
        look.page.clock.install()
        look.page.clock.run_for(60_000)
        assert len(look.asked) == asked
        look.page.keyboard.press("Enter")
        expect(look.page.locator("#live")).to_have_text("live")
        assert len(look.asked) > asked


def test_what_clients_say_stays_text(browser: Browser, tmp_path: Path, provider: Provider) -> None:
    with running(tmp_path, {"chat": route(provider)}, keys={MARKUP: "key-of-markup"}) as gateway:
        assert ask(gateway, MARKUP, key="key-of-markup").status_code == 200
        with looking_at(browser, gateway.admin_url) as look:
            call = row(look.page, "requests", MARKUP)
            expect(call.locator("[data-label=Model]")).to_have_text(MARKUP)
            expect(call.locator("[data-label=Client]")).to_have_text(MARKUP)
            assert look.page.locator("img").count() == 0
            assert look.complaints == []


def test_the_browser_is_told_to_run_nothing_else_and_ask_nobody_else(
    browser: Browser, gateway: GatewayProcess, provider: Provider
) -> None:
    with looking_at(browser, gateway.admin_url) as look:
        expect(look.page.locator("#live")).to_have_text("live")
        assert {url.split("/", 3)[2] for url in look.asked if not url.startswith("data:")} == {
            gateway.admin_url.removeprefix("http://")
        }
        assert look.complaints == []
        page = look.page
        page.evaluate("""() => {
            const script = document.createElement("script");
            script.append("document.title = 'ran'");
            document.body.append(script);
        }""")
        page.evaluate("url => fetch(url).catch(() => {})", provider.url)
        assert (
            page.evaluate("() => { try { document.body.innerHTML = '<b>'; } catch { return 'refused'; } }") == "refused"
        )
        assert page.title() != "ran"
        assert not any(request.path == "/" for request in provider.requests)
        blocked = " ".join(look.complaints)
        assert "TrustedScript" in blocked
        assert "TrustedHTML" in blocked
        assert "connect-src" in blocked


def test_it_can_be_read_on_a_phone_and_in_the_dark(browser: Browser, gateway: GatewayProcess) -> None:
    for model in ("gpt", "shaky", "shaky", "x" * 256):
        ask(gateway, model)
    assert ask(gateway, "gpt", key="wrong").status_code == 401
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for width, scheme in itertools.product((320, 390, 800, 1280), schemes):
        with looking_at(browser, gateway.admin_url, width=width, scheme=scheme) as look:
            expect(row(look.page, "upstreams", "broken")).to_contain_text("open")
            expect(row(look.page, "requests", "xxx")).to_contain_text("200")
            assert not look.overflows(), width
            assert look.unreadable() == [], (width, scheme)


def test_a_failure_of_an_upstream_is_counted_and_named(
    browser: Browser, gateway: GatewayProcess, provider: Provider
) -> None:
    provider.behaviour = answers(response(500, b"{}"))
    request_id = ask(gateway, "gpt").headers["x-request-id"]
    with looking_at(browser, gateway.admin_url) as look:
        call = row(look.page, "requests", request_id)
        expect(call).to_contain_text("502")
        expect(call).to_contain_text("provider: server_error")
        expect(row(look.page, "upstreams", "provider")).to_contain_text("1")

"""The example chat, as a person has it: a real gateway, the app's own server, a real browser."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import looking_at
from tests.chat_app import FOLDER, say, serving
from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, closes_after, event, providing
from tests.sidecar.local_process import llmroute

pytestmark = pytest.mark.server


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture
def gateway(tmp_path: Path, provider: Provider) -> Iterator[GatewayProcess]:
    route = spec(
        provider.url,
        upstreams=[upstream("provider", provider.url), upstream("broken", "mock://fail")],
        models=[
            {"name": "chat", "targets": [{"upstream": "provider"}]},
            {"name": "shaky", "targets": [{"upstream": "broken"}], "fallbacks": ["chat"]},
        ],
        limits=[{"name": "few", "per": "Model", "requests": 1, "window": "1h"}],
    )
    with running(tmp_path, {"chat": route}) as gateway:
        yield gateway


@pytest.fixture
def app(gateway: GatewayProcess) -> Iterator[str]:
    """The app's address."""
    with serving(gateway.url, KEY) as url:
        yield url


def test_an_answer_appears_piece_by_piece(browser: Browser, app: str, provider: Provider) -> None:
    go_on = asyncio.Event()

    async def slow(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("one ")))
        await go_on.wait()
        writer.write(chunk(event("two")) + chunk(event(None, "stop")) + chunk(DONE) + END)

    provider.behaviour = slow
    with looking_at(browser, app) as look:
        say(look.page, "count", "chat")
        answer = look.page.locator(".it")
        expect(answer.locator("p")).to_have_text("one ")
        expect(answer).to_contain_text("answered by provider")
        provider.call(go_on.set)
        expect(answer.locator("p")).to_have_text("one two")
        expect(answer).to_have_attribute("data-over", "true")
        assert {url.split("/", 3)[2] for url in look.asked if url.startswith("http")} == {app.removeprefix("http://")}
        assert look.complaints == []


def test_a_fallback_and_a_limit_are_shown(browser: Browser, app: str) -> None:
    with looking_at(browser, app) as look:
        say(look.page, "hi", "shaky")
        expect(look.page.locator(".it")).to_contain_text("answered by provider, chat stood in for shaky")
        say(look.page, "again", "shaky")
        expect(look.page.locator(".it").last).to_contain_text("Limit few reached: try again in")


def test_an_answer_that_breaks_off_is_not_taken_for_whole(browser: Browser, app: str, provider: Provider) -> None:
    provider.behaviour = closes_after(STREAM_HEAD + chunk(event("half an ")))
    with looking_at(browser, app) as look:
        say(look.page, "hi", "chat")
        expect(look.page.locator(".it")).to_contain_text("half an ")
        expect(look.page.locator(".it")).to_contain_text("The answer broke off")


def test_it_can_be_read_on_a_phone_and_in_the_dark(browser: Browser, app: str) -> None:
    with looking_at(browser, app, width=320, scheme="dark") as look:
        say(look.page, "x" * 200, "shaky")
        expect(look.page.locator(".it")).to_contain_text("stood in")
        assert not look.overflows()
        assert look.unreadable() == []


def test_its_route_is_valid() -> None:
    done = llmroute("validate", "-f", FOLDER / "llmroute.yaml")
    assert done.returncode == 0, done.stderr

"""docs/images: the admin port's page and the example chat, taken of the real thing. `make screenshots` writes them.

By hand, when they look different: two runs differ in times and ids.
"""

import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser import looking_at, opened_browser
from tests.chat_app import FOLDER, say, serving
from tests.sidecar import local_process

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_browser() as browser,
        local_process.running(Path(folder), "-f", FOLDER / "llmroute.yaml") as gateway,
        serving(gateway.url) as app,
    ):
        _chat(browser, app, gateway)
        _admin(browser, gateway.admin_url)


def _chat(browser: Browser, app: str, gateway: local_process.LocalProcess) -> None:
    with looking_at(browser, app, width=640) as look:
        for words, model in (("What are you?", "chat"), ("And if you fail?", "shaky")):
            say(look.page, words, model)
            expect(look.page.locator(".it").last).to_have_attribute("data-over", "true")
        for _ in range(10):
            gateway.ask("scarce", key=None)
        say(look.page, "One more question", "scarce")
        expect(look.page.locator(".it").last).to_contain_text("Limit")
        look.page.set_viewport_size({"width": 640, "height": 620})
        look.page.screenshot(path=IMAGES / "chat-app.png")
    for _ in range(5):
        gateway.ask("shaky", key=None)


def _admin(browser: Browser, url: str) -> None:
    with looking_at(browser, url, width=1180) as look:
        expect(look.page.locator("#live")).to_have_text("live")
        look.page.set_viewport_size({"width": 1180, "height": 960})
        look.page.screenshot(path=IMAGES / "admin.png")


if __name__ == "__main__":
    main()

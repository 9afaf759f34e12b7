"""A real browser for tests of what people look at: Debian's headless Chromium, driven by Playwright.

Playwright's loop stays on the thread for as long as a browser is open, and `asyncio.run` refuses to run beside it: a
browser is opened for a module of tests and closed with it (`browser`, tests/conftest.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, Response, expect, sync_playwright

from tools.debian import find

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
WAIT_MILLISECONDS = 60_000
expect.set_options(timeout=WAIT_MILLISECONDS)


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """A browser; the tests are skipped, in CI failed, where there is none."""
    program = next(filter(None, map(find, PROGRAMS)), None)
    if program is None:
        why = "there is no Chromium; on Debian: apt-get install chromium-headless-shell"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        arguments = ["--host-resolver-rules=MAP *.rebound.test 127.0.0.1"]
        if os.geteuid() == 0:  # Chromium has no sandbox for root
            arguments.append("--no-sandbox")
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Look:
    """An open page, and what it did: whom it asked, and what the browser complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def unreadable(self) -> list[str]:
        """What axe-core finds against WCAG 2.2 A and AA: contrast, names, tables, landmarks."""
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = Axe().run(self.page, options={"runOnly": tags}).response["violations"]
        return [f"{one['id']}: {node['html'][:120]} {node['failureSummary']}" for one in found for node in one["nodes"]]

    def overflows(self) -> bool:
        """Whether a reader has to scroll sideways."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        return wide


@contextmanager
def looking_at(
    browser: Browser, url: str, *, width: int = 1280, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Look]:
    """Opens `url` as a person would who has never been there."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(WAIT_MILLISECONDS)
    page = context.new_page()
    look = Look(page)
    page.on("request", lambda request: look.asked.append(request.url))
    page.on("console", lambda message: look.complaints.append(message.text))
    page.on("pageerror", lambda error: look.complaints.append(str(error)))

    def refuse(dialog: Dialog) -> None:
        look.complaints.append("a dialog opened")
        dialog.dismiss()

    page.on("dialog", refuse)
    response: Response | None = page.goto(url)
    assert response is not None
    assert response.ok, response.status
    try:
        yield look
    finally:
        context.close()

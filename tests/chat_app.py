"""The example chat (examples/chat-app) for tests and screenshots: its server as a process, and a person's hand."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Page

from tests.children import with_us
from tests.waiting import HANGS_AFTER, wait_until

FOLDER = Path(__file__).parents[1] / "examples" / "chat-app"
UVICORN = Path(sys.executable).parent / "uvicorn"


def image_arguments() -> Sequence[str]:
    """What its image runs, after the program."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    found = [re.findall(rf"^{word} (.+)$", dockerfile, re.MULTILINE)[-1] for word in ("ENTRYPOINT", "CMD")]
    _, *arguments = [part for line in found for part in json.loads(line)]
    return arguments


@contextmanager
def serving(gateway_url: str, key: str = "none") -> Iterator[str]:
    """The app's own server, over that gateway."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = [str(UVICORN), "--app-dir", str(FOLDER), "app:app", "--fd", str(listening.fileno())]
        environment = {**os.environ, "OPENAI_BASE_URL": f"{gateway_url}/v1", "OPENAI_API_KEY": key}
        process = subprocess.Popen(
            with_us(command), env=environment, pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL
        )
    try:
        wait_until(lambda: httpx.get(url, timeout=HANGS_AFTER).status_code == 200, "the app to serve")
        yield url
    finally:
        process.kill()
        process.wait()


def say(page: Page, words: str, model: str) -> None:
    page.get_by_label("Model").select_option(model)
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")

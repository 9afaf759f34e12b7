"""The `llmroute` command as a person at a terminal has it: real processes, what they say on stdout and on stderr."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.children import with_us
from tests.gateway_process import COMMAND
from tests.waiting import HANGS_AFTER, wait_until

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"


def llmroute(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that ends by itself. Files are named as from the repository."""
    return subprocess.run(
        [COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )


def shell(line: str) -> str:
    """What a line gives that a person pastes into bash."""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def save(file: Path, text: str) -> None:
    """As editors save: at no moment is there half a file."""
    fresh = file.with_name(f".{file.name}")
    fresh.write_text(text)
    fresh.replace(file)


@dataclass
class LocalProcess:
    """A gateway that `llmroute run` serves."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def told(self) -> str:
        """What it said to the person so far."""
        return (self.folder / "stderr").read_text()

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "stdout").read_text().splitlines() if line.endswith("}")]

    def tells(self, text: str, after: int = 0) -> int:
        """Waits until it has told `text`, past the first `after` characters; returns how much was told by then."""

        def found() -> int:
            assert self.process.poll() is None, self.told
            told = self.told
            return len(told) if text in told[after:] else 0

        return wait_until(found, f"the person to be told {text!r}")

    @property
    def url(self) -> str:
        return self._address(r"serving (http://\S+?)/v1 ")

    @property
    def admin_url(self) -> str:
        return self._address(r"look +(http://\S+?)/ ")

    @property
    def curl_line(self) -> str:
        return self._address(r"try +(curl .+)")

    def _address(self, pattern: str) -> str:
        found = re.search(pattern, self.told)
        assert found is not None, self.told
        return found[1]

    def ask(self, model: str, key: str | None = "dev-key") -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        body = {"model": model, "messages": []}
        return httpx.post(f"{self.url}/v1/chat/completions", headers=headers, json=body, timeout=HANGS_AFTER)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = httpx.get(f"{self.admin_url}/status", timeout=HANGS_AFTER).json()
        return document

    def interrupt(self) -> int:
        """Ctrl-C, which a terminal sends to all that it runs; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=40)


@contextmanager
def started(folder: Path, *arguments: str | Path) -> Iterator[LocalProcess]:
    """`llmroute run` on ports of the system's choice, whether it has something to serve or not; ended at the end."""
    with started_by([COMMAND, "run", "--port", "0", "--admin-port", "0", *arguments], folder) as local:
        yield local


@contextmanager
def started_by(command: Sequence[str | Path], folder: Path) -> Iterator[LocalProcess]:
    """The same, however it is called."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            with_us(command), stdout=stdout, stderr=stderr, cwd=REPOSITORY, start_new_session=True
        )
    local = LocalProcess(process, folder)
    try:
        wait_until(lambda: process.poll() is not None or local.told, "llmroute run to say something")
        yield local
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def running(folder: Path, *arguments: str | Path) -> Iterator[LocalProcess]:
    """The same, once it serves."""
    with started(folder, *arguments) as local:
        local.tells("Ctrl-C ends.")
        yield local

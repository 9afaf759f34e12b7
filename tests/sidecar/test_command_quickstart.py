"""The first minute: what `llmroute run` prints and what the quickstart's comments promise, pasted into a shell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sidecar.local_process import QUICKSTART, LocalProcess, running, save, shell, started_by

pytestmark = pytest.mark.server


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[LocalProcess]:
    with running(tmp_path, "-f", QUICKSTART) as local:
        yield local


def promised(local: LocalProcess, begin: str, part: str = "") -> str:
    """The one command of the quickstart's comments that begins and holds as said, at this gateway's ports."""
    comments = [line[2:] for line in QUICKSTART.read_text().splitlines() if line.startswith("# ")]
    commands: list[str] = re.findall(r"^  ((?:.*\\\n)*.*)$", "\n".join(comments), flags=re.MULTILINE)
    (command,) = [command for command in commands if command.startswith(begin) and part in command]
    for address, url in (("localhost:8790", local.url), ("localhost:8791", local.admin_url)):
        command = command.replace(address, url.removeprefix("http://"))
    return command


def test_the_printed_curl_line_works_as_pasted(quickstart: LocalProcess) -> None:
    assert shell(f"{quickstart.curl_line} -o /dev/null -w '%{{http_code}}'") == "200"
    answer = json.loads(shell(quickstart.curl_line))
    assert answer["model"] == "chat"
    assert answer["choices"][0]["message"]["content"]


def test_make_run_prints_a_curl_line_that_works(tmp_path: Path) -> None:
    # -o: the environment that this test runs in is the one that `make setup` would make.
    command = ["make", "--no-print-directory", "-o", ".venv/.ready", "run", "RUN=--port 0 --admin-port 0"]
    with started_by(command, tmp_path) as local:
        local.tells("Ctrl-C ends.")
        assert shell(f"{local.curl_line} -o /dev/null -w '%{{http_code}}'") == "200"
        local.interrupt()
    assert "llmroute: ending" in local.told


def test_each_promise_of_the_quickstart_holds(quickstart: LocalProcess) -> None:
    plain = json.loads(shell(promised(quickstart, "curl", '"chat", "messages"')))
    assert plain["choices"][0]["message"]["content"]

    events = shell(promised(quickstart, "curl", '"stream": true')).split("\n\n")
    assert len(events) > 40
    assert json.loads(events[1].removeprefix("data: "))["choices"][0]["delta"]["content"]
    assert events[-2:] == ["data: [DONE]", ""]

    head, _, body = shell(promised(quickstart, "curl -si")).partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "x-fallback-model: chat" in head.lower()
    assert json.loads(body)["choices"]

    lines = shell(promised(quickstart, "for i in")).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("HTTP")] == ["200"] * 19 + ["429"] * 2
    waits = [int(line.split(":")[1]) for line in lines if line.lower().startswith("retry-after")]
    assert len(waits) == 2
    assert all(1 <= wait <= 60 for wait in waits)

    assert '"open"' in shell(promised(quickstart, "curl", "circuit-breakers")).lower()
    status = json.loads(shell(promised(quickstart, "curl", "/status")))
    assert (status["healthy"], status["models"]) == (True, ["chat", "shaky"])
    metrics = shell(promised(quickstart, "curl", "/metrics"))
    for line in (
        'gateway_fallback_used_total{from_model="shaky",to_model="chat"} 20.0',
        "gateway_rate_limited_total 2.0",
        'gateway_requests_total{method="POST",path="/v1/chat/completions",status="429"} 2.0',
    ):
        assert line in metrics


def test_a_save_that_breaks_the_quickstart_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "quickstart.yaml"
    save(file, QUICKSTART.read_text())
    line = next(n for n, text in enumerate(QUICKSTART.read_text().splitlines(), start=1) if "fallbacks: [chat]" in text)
    with running(tmp_path / "run", "-f", file) as local:
        revision = local.status()["revision"]
        save(file, QUICKSTART.read_text().replace("fallbacks: [chat]", "fallbacks: [nobody]"))
        local.tells(f"{file}:{line}: spec.models[1].fallbacks[0]: ")
        local.tells(f"not taken over; revision {revision} goes on being served")
        assert local.ask("chat").status_code == 200
        (problem,) = local.status()["problems"]
        assert problem.startswith(f"{file}:{line}: spec.models[1].fallbacks[0]: ")


def test_the_commands_of_the_comments_are_the_ones_tested_here(quickstart: LocalProcess) -> None:
    commands = re.findall(r"^#   (\S.*)$", QUICKSTART.read_text(), flags=re.MULTILINE)
    assert [command.split()[0] for command in commands if not command.startswith("-")] == [
        "llmroute",
        "curl",
        "curl",
        "curl",
        "for",
        "curl",
        "curl",
        "curl",
    ]

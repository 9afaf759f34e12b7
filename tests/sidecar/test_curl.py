"""The system's curl, as a person types it."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running(tmp_path_factory.mktemp("gateway"), {"chat": spec("mock://local?tokens=4&gap=1ms")}) as gateway:
        yield gateway


def curl(gateway: GatewayProcess, body: object, *options: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *options]
    command += ["--header", f"Authorization: Bearer {KEY}", "--header", "Content-Type: application/json"]
    command += ["--data", json.dumps(body), f"{gateway.url}/v1/chat/completions"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_plain_call(gateway: GatewayProcess) -> None:
    answer = json.loads(curl(gateway, {"model": "gpt", "messages": []}))
    assert answer["choices"][0]["message"]["content"] == "This answer comes from"


def test_a_stream(gateway: GatewayProcess) -> None:
    text = curl(gateway, {"model": "gpt", "messages": [], "stream": True}, "--no-buffer")
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    words = [json.loads(one)["choices"][0]["delta"].get("content", "") for one in events[:-1]]
    assert "".join(words) == "This answer comes from"


def test_a_large_body_waits_for_leave_and_gets_it(gateway: GatewayProcess) -> None:
    """curl sends `Expect: 100-continue` with bodies above a megabyte."""
    written = curl(
        gateway,
        {"model": "gpt", "user": "x" * 100},
        "--header",
        "Expect: 100-continue",
        "--write-out",
        "\n%{http_code}",
    )
    assert written.splitlines()[-1] == "200"


def test_an_error_says_what_to_do(gateway: GatewayProcess) -> None:
    answer = json.loads(curl(gateway, {"model": "unheard-of", "messages": []}))
    assert answer["error"]["code"] == "model_not_found"
    assert "GET /v1/models" in answer["error"]["message"]


def test_http_1_0_and_head_and_options(gateway: GatewayProcess) -> None:
    assert "chat.completion" in curl(gateway, {"model": "gpt", "messages": []}, "--http1.0")
    head = subprocess.run(["curl", "--silent", "--head", f"{gateway.url}/health"], check=True, capture_output=True)
    assert head.stdout.startswith(b"HTTP/1.1 200 OK")

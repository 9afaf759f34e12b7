"""Keys and prompts stay where they belong: in no log line, no metric, no status, and in no other upstream's process."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess, end, spec, start, write_config, write_secret
from tests.provider import Provider
from tests.sidecar.litellm.providers import any_provider, cut_after, fails
from tests.sidecar.litellm.routes import CREDENTIALS, URLS, litellm_upstream, write_credentials
from tests.waiting import wait_until

pytestmark = pytest.mark.server
PROMPT = "canary-prompt"
UPSTREAM_ERROR = "canary-upstream-error"
NAMES = sorted(URLS)


def body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], **more}


def test_no_canary_is_told(gateway: GatewayProcess, provider: Provider) -> None:
    failures = [
        any_provider,
        fails(400, UPSTREAM_ERROR),
        fails(401, UPSTREAM_ERROR),
        fails(500, UPSTREAM_ERROR),
        cut_after([], in_good_order=False),
        cut_after([b"data: " + UPSTREAM_ERROR.encode() + b"\n\n"], in_good_order=True),
    ]
    for behaviour in failures:
        provider.behaviour = behaviour
        for name in NAMES:
            for stream in (False, True):
                gateway.post(body(name, stream=stream))
            gateway.post(body(name, **{PROMPT: 1}))
    gateway.request_line(gateway.post(body("openai")).headers["x-request-id"])
    told = {
        "the log": gateway.log_path.read_text(),
        "/metrics": gateway.get("/metrics").text,
        "/status": json.dumps(gateway.status()),
    }
    for worker in gateway.status()["litellm_workers"]:
        process = Path(f"/proc/{worker['pid']}")
        told[f"{worker['upstream']}'s arguments"] = (process / "cmdline").read_text()
        told[f"{worker['upstream']}'s environment"] = (process / "environ").read_text()
    canaries = (PROMPT, UPSTREAM_ERROR, *CREDENTIALS.values())
    assert [(where, canary) for where, text in told.items() for canary in canaries if canary in text] == []


def test_a_process_holds_no_credential_but_its_own(gateway: GatewayProcess, provider: Provider) -> None:
    for name in NAMES:
        assert gateway.post(body(name)).status_code == 200
    for worker in gateway.status()["litellm_workers"]:
        memory = memory_of(worker["pid"])
        held = {name for name, credential in CREDENTIALS.items() if credential.encode() in memory}
        assert held == {worker["upstream"]}


def memory_of(pid: int) -> bytes:
    """What a process has in writable memory."""
    parts = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            if permissions.startswith("rw"):
                begin, end = (int(bound, 16) for bound in span.split("-"))
                memory.seek(begin)
                parts.append(memory.read(end - begin))
    return b"".join(parts)


AUDITED = """#!/bin/sh
exec "{python}" -I -c '
import os, runpy, sys

def hook(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and arguments[0] != "{record}":
        with open("{record}", "a") as record:
            print("writes", arguments[0], file=record)
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "subprocess.")):
        with open("{record}", "a") as record:
            print(event, arguments[1] if event == "socket.connect" else arguments[0], file=record)

sys.addaudithook(hook)
runpy.run_path(sys.argv[-1], run_name="__main__")
' "$@"
"""


def test_a_worker_calls_nobody_but_its_provider_and_writes_nowhere(
    litellm_python: Path, provider: Provider, tmp_path: Path
) -> None:
    """Neither at its start (litellm would fetch its prices) nor beside its calls; and it writes no file (a pod's root
    is read-only). Python itself records."""
    record, python = tmp_path / "record", tmp_path / "python"
    record.touch()
    python.write_text(AUDITED.format(python=litellm_python, record=record))
    python.chmod(0o755)
    write_secret(tmp_path / "secrets", "clients", {"app": "test-key-of-app"})
    write_credentials(tmp_path / "secrets")
    models = [{"name": "openai", "targets": [{"upstream": "openai"}]}]
    route = spec(provider.url, upstreams=[litellm_upstream("openai", provider.url)], models=models)
    write_config(tmp_path / "config", {"chat": route})
    outside = {"CANARY": "canary-outside", "OPENAI_API_KEY": "canary-outside", "HTTPS_PROXY": "http://127.0.0.1:1"}
    gateway = start(tmp_path, "--litellm-python", str(python), environment=outside)
    try:
        for stream in (False, True):
            assert gateway.post(body("openai", stream=stream)).status_code == 200
        assert gateway.post({"model": "openai", "input": "x"}, path="/v1/embeddings").status_code == 200
        pid = gateway.status()["litellm_workers"][0]["pid"]
        environment = Path(f"/proc/{pid}/environ").read_text()
        assert "canary" not in environment
        assert "HTTPS_PROXY" not in environment
        gateway.terminate()
        assert gateway.exit_code() == 0
    finally:
        end(gateway)
    host, port = provider.url.removeprefix("http://").split(":")
    allowed = (f"socket.connect ('{host}', {port})", f"socket.getaddrinfo {host}")
    lines = record.read_text().splitlines()
    written = [line for line in lines if line.startswith("writes ")]
    assert set(written) <= {"writes /proc/self/oom_score_adj", "writes /dev/null"}, written
    calls = [line for line in lines if not line.startswith(("writes ", "subprocess.Popen"))]
    assert any(line.startswith("socket.connect") for line in calls)
    assert [line for line in calls if line not in allowed] == []
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the worker to be gone")

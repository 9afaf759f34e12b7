"""A worker's life: started on first use, once; anew when it dies; ended when idle, not needed, or at the end."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_process import KEY, GatewayProcess, end, running, spec, start, upstream, write_config
from tests.provider import Provider, event
from tests.sidecar.litellm.providers import any_provider, says, silent
from tests.sidecar.litellm.routes import litellm_upstream, write_credentials
from tests.waiting import wait_until

pytestmark = pytest.mark.server
HELLO = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}]}
Starting = Callable[..., AbstractContextManager[GatewayProcess]]


def route(provider: Provider, **changes: Any) -> dict[str, Any]:
    """`gpt` at OpenAI's through litellm, `canned` beside it, `safe` which falls back from one to the other."""
    return spec(
        provider.url,
        upstreams=[litellm_upstream("openai", provider.url, **changes), upstream("mock", "mock://local")],
        models=[
            {"name": "gpt", "targets": [{"upstream": "openai"}], "retry": {"attempts": 1}},
            {"name": "canned", "targets": [{"upstream": "mock"}]},
            {"name": "safe", "targets": [{"upstream": "openai"}], "retry": {"attempts": 1}, "fallbacks": ["canned"]},
        ],
    )


@pytest.fixture
def starting(litellm_python: Path, provider: Provider, tmp_path: Path) -> Starting:
    """Starts a gateway with `route`; more arguments go to it."""
    write_credentials(tmp_path / "secrets")

    @contextmanager
    def started(*arguments: str, python: Path = litellm_python) -> Iterator[GatewayProcess]:
        with running(tmp_path, {"chat": route(provider)}, "--litellm-python", str(python), *arguments) as gateway:
            yield gateway

    return started


def worker_of(gateway: GatewayProcess) -> dict[str, Any]:
    (worker,) = gateway.status()["litellm_workers"]
    found: dict[str, Any] = worker
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended (or is a zombie, where nobody is left to bury it)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def hang_up(provider: Provider) -> None:
    for task in provider._tasks:
        task.cancel()


def messages(gateway: GatewayProcess) -> list[str]:
    return [line["message"] for line in gateway.lines if line["logger"] == "llmroute.litellm"]


def test_one_process_is_started_by_the_first_calls(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        assert worker_of(gateway)["state"] == "not_started"
        assert gateway.metric("llmroute_litellm_worker_resident_bytes", upstream="openai") == 0
        gateway.post({**HELLO, "model": "canned"})
        before = gateway.memory_kib()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: httpx.post(**call(gateway)), range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        wait_until(lambda: "litellm worker is ready" in messages(gateway), "the log to tell of it")
        assert messages(gateway).count("litellm worker starts") == 1
        worker = worker_of(gateway)
        assert (worker["state"], worker["restarts"]) == ("ready", 0)
        assert worker["resident_bytes"] > 50_000_000
        assert gateway.metric("llmroute_litellm_worker_resident_bytes", upstream="openai") > 50_000_000
        assert Path(f"/proc/{worker['pid']}/oom_score_adj").read_text() == "1000\n"
        assert gateway.memory_kib() - before < 16 * 1024
        assert "litellm" not in Path(f"/proc/{gateway.process.pid}/maps").read_text()
        gateway.terminate()
        assert gateway.exit_code() == 0
        assert is_gone(worker["pid"])


def call(gateway: GatewayProcess, **changes: Any) -> dict[str, Any]:
    """Arguments for httpx."""
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"{gateway.url}/v1/chat/completions"
    return {"url": url, "json": {**HELLO, **changes}, "headers": headers, "timeout": 60}


def test_a_worker_that_dies_is_started_anew(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        assert gateway.post(HELLO).status_code == 200
        first = worker_of(gateway)["pid"]
        provider.behaviour = silent
        before = len(provider.requests)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(lambda: httpx.post(**call(gateway, model="safe")))
            wait_until(lambda: len(provider.requests) > before, "the call to arrive")
            os.kill(first, signal.SIGKILL)
            answer = under_way.result()
        assert (answer.status_code, answer.headers["x-fallback-model"]) == (200, "canned")
        provider.behaviour = any_provider

        reasons: set[str] = set()

        def serves() -> bool:
            answer = gateway.post(HELLO)
            if answer.status_code != 200:
                reasons.update(attempt["reason"] for attempt in answer.json()["error"]["attempts"])
            return answer.status_code == 200

        wait_until(serves, "a new worker", seconds=60)
        assert reasons <= {"worker_unavailable", "connect_failed", "connection_lost"}
        worker = worker_of(gateway)
        assert worker["pid"] != first
        assert worker["restarts"] == 1
        assert gateway.metric("llmroute_litellm_worker_restarts_total", upstream="openai") == 1
        wait_until(lambda: "litellm worker died" in messages(gateway), "the log to tell of it")


def test_a_worker_does_not_outlive_a_gateway_that_is_killed(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        assert gateway.post(HELLO).status_code == 200
        pid = worker_of(gateway)["pid"]
        gateway.process.kill()
        wait_until(lambda: is_gone(pid), "the worker to be gone")


def test_an_idle_worker_is_ended_and_comes_back(starting: Starting, provider: Provider) -> None:
    with starting("--litellm-idle", "0.3") as gateway:
        assert gateway.post(HELLO).status_code == 200
        wait_until(lambda: worker_of(gateway)["state"] == "not_started", "the worker to be ended")
        assert gateway.post(HELLO).status_code == 200
        assert worker_of(gateway)["restarts"] == 0
        assert "litellm worker died" not in messages(gateway)


def test_a_reload_keeps_the_worker_of_an_upstream_that_stays(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        assert gateway.post(HELLO).status_code == 200
        pid = worker_of(gateway)["pid"]
        gateway.write({"chat": route(provider, headers={"x-team": "other"}, timeouts={"request": "77s"})})
        assert gateway.post(HELLO).status_code == 200
        assert provider.requests[-1].headers["x-team"] == "other"
        (gateway.secrets_dir / "openai" / "key").write_text("rotated-credential\n")
        wait_until(
            lambda: gateway.post(HELLO).is_success and "rotated-credential" in str(provider.requests[-1].headers),
            "the new credential to be used",
        )
        assert worker_of(gateway)["pid"] == pid


def test_a_worker_whose_upstream_goes_ends_after_its_last_call(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        assert gateway.post(HELLO).status_code == 200
        pid = worker_of(gateway)["pid"]
        provider.behaviour = says([event("one ")])
        with httpx.stream("POST", **call(gateway, stream=True)) as answer:
            pieces = answer.iter_raw()
            assert b"one " in next(pieces)
            gateway.write({"chat": spec(provider.url)})
            assert worker_of(gateway)["pid"] == pid
            assert not is_gone(pid)
        wait_until(lambda: is_gone(pid), "the worker to be gone")
        assert gateway.status()["litellm_workers"] == []
        wait_until(lambda: messages(gateway)[-1] == "litellm worker ended", "the log to tell of it")


def test_a_drain_lets_a_call_end_before_its_worker(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        assert gateway.post(HELLO).status_code == 200
        pid = worker_of(gateway)["pid"]
        provider.behaviour = silent
        before = len(provider.requests)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(lambda: httpx.post(**call(gateway, model="safe")))
            wait_until(lambda: len(provider.requests) > before, "the call to arrive")
            gateway.terminate()
            wait_until(lambda: any(line["message"] == "draining" for line in gateway.lines), "the drain")
            assert not is_gone(pid)
            provider.call(lambda: hang_up(provider))
            assert under_way.result().headers["x-fallback-model"] == "canned"
        assert gateway.exit_code() == 0
        assert is_gone(pid)


def test_without_an_interpreter_the_upstream_is_unavailable(
    litellm_python: Path, provider: Provider, tmp_path: Path
) -> None:
    write_credentials(tmp_path / "secrets")
    with running(tmp_path, {"chat": route(provider)}) as gateway:
        unavailable = {"route": "chat", "upstream": "openai", "reason": "litellm_not_installed"}
        assert gateway.status()["unavailable_upstreams"] == [unavailable]
        error = gateway.post(HELLO).json()["error"]
        assert error["attempts"][0]["reason"] == "litellm_not_installed"
        assert gateway.post({**HELLO, "model": "safe"}).headers["x-fallback-model"] == "canned"


def test_the_interpreter_may_be_named_by_the_environment(
    litellm_python: Path, provider: Provider, tmp_path: Path
) -> None:
    write_credentials(tmp_path / "secrets")
    write_config(tmp_path / "config", {"chat": route(provider)})
    gateway = start(tmp_path, environment={"LLMROUTE_LITELLM_PYTHON": str(litellm_python)})
    try:
        assert gateway.status()["unavailable_upstreams"] == []
    finally:
        end(gateway)


def test_an_interpreter_without_litellm_fails_soon_and_says_why(starting: Starting, provider: Provider) -> None:
    with starting(python=Path(os.path.relpath(sys.executable))) as gateway:  # as one types it
        error = gateway.post(HELLO).json()["error"]
        assert error["attempts"][0]["reason"] == "worker_unavailable"
        assert worker_of(gateway)["resident_bytes"] == 0
        wait_until(lambda: "litellm worker died" in messages(gateway), "the log to tell of it")
        said = [line["text"] for line in gateway.lines if line["message"] == "litellm worker says"]
        assert said[-1] == "ModuleNotFoundError: No module named 'litellm'"


def test_a_missing_credential_leaves_the_upstream_without_a_worker(starting: Starting, provider: Provider) -> None:
    with starting() as gateway:
        (gateway.secrets_dir / "openai" / "key").unlink()
        wait_until(lambda: gateway.status()["unavailable_upstreams"], "the credential to be missed")
        assert gateway.status()["litellm_workers"] == []


def test_the_gateway_imports_nothing_of_litellms() -> None:
    """Whatever it may import: all of its modules but the worker's own."""
    import importlib
    import pkgutil

    import llmroute_sidecar

    names = [module.name for module in pkgutil.walk_packages(llmroute_sidecar.__path__, "llmroute_sidecar.")]
    for name in names:
        if not name.startswith("llmroute_sidecar.litellm_worker"):
            importlib.import_module(name)
    assert not [name for name in sys.modules if name.split(".")[0] == "litellm"]

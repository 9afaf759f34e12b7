"""`llmroute serve`: from mounted volumes as kubelet lays them out, from compiled files, and from GATEWAY_* alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cluster.projection import project
from tests.gateway_process import GatewayProcess, end, start
from tests.sidecar.config.mounted import compiled
from tests.sidecar.local_process import QUICKSTART, llmroute, save
from tests.waiting import wait_until

pytestmark = pytest.mark.server


@contextmanager
def serving(folder: Path, *arguments: str, config: bool = True, **environment: str) -> Iterator[GatewayProcess]:
    gateway = start(folder, *arguments, environment=environment, config=config)
    try:
        yield gateway
    finally:
        end(gateway)


def status_of(gateway: GatewayProcess, model: str, key: str) -> int:
    return gateway.post({"model": model, "messages": []}, key=key).status_code


def logged(gateway: GatewayProcess, message: str) -> list[dict[str, object]]:
    return [line for line in gateway.lines if message in line["message"]]


def told_and_healed(gateway: GatewayProcess) -> list[dict[str, object]]:
    """The one line of a loss, and the last one, which tells that it is over."""
    return logged(gateway, "configuration not applied") + logged(gateway, "configuration applied")[-1:]


def test_mounted_volumes_are_followed_through_swaps_rotation_and_loss(tmp_path: Path) -> None:
    config, secrets = tmp_path / "config", tmp_path / "secrets"
    with serving(tmp_path) as gateway:
        assert gateway.get("/ready").status_code == 503
        assert f"there is no directory {config}" in gateway.status()["error"]

        project(tmp_path / "late", compiled(a=1))  # the ConfigMap comes late, and its Secret later still
        (tmp_path / "late").rename(config)
        wait_until(lambda: gateway.get("/ready").status_code == 200, "the gateway to be ready")
        assert gateway.status()["missing_secrets"] == ["spec.auth.keysFrom.secretRef: Secret 'clients' is not there"]
        assert status_of(gateway, "a-1", "one") == 401
        project(secrets / "clients", {"app": b"one\n"})
        wait_until(lambda: status_of(gateway, "a-1", "one") == 200, "the key to be known")
        assert gateway.status()["missing_secrets"] == []

        project(secrets / "clients", {"app": b"two\n"})
        wait_until(lambda: status_of(gateway, "a-1", "two") == 200, "the rotated key to be known")
        assert status_of(gateway, "a-1", "one") == 401

        project(config, compiled(a=2))
        wait_until(lambda: status_of(gateway, "a-2", "two") == 200, "the new version to be served")
        revision = gateway.status()["revision"]

        config.rename(tmp_path / "lost")
        wait_until(lambda: not gateway.status()["healthy"], "the loss to be seen")
        assert status_of(gateway, "a-2", "two") == 200
        assert gateway.status()["revision"] == revision
        assert gateway.metric("llmroute_config_healthy") == 0
        failures = gateway.metric("llmroute_config_reloads_total", result="failed")

        project(secrets / "clients", {"app": b"three\n"})  # looked at again, and no second word about it
        (tmp_path / "lost").rename(config)
        wait_until(lambda: status_of(gateway, "a-2", "three") == 200, "the gateway to heal")
        status = gateway.status()
        assert (status["healthy"], status["error"], status["revision"]) == (True, None, revision)
        assert gateway.metric("llmroute_config_healthy") == 1
        assert gateway.metric("llmroute_config_reloads_total", result="failed") == failures == 2
        wait_until(lambda: logged(gateway, "configuration")[-2:] == told_and_healed(gateway), "the log to tell all")
        assert len(logged(gateway, "there is no configuration yet")) == 1
        (told,) = logged(gateway, "configuration not applied; the last good one is served")
        assert (told["level"], told["revision"]) == ("warning", revision)
        assert f"there is no directory {config}" in str(told["error"])


def test_a_broken_route_keeps_its_version_and_is_told_once(tmp_path: Path) -> None:
    config = tmp_path / "config"
    project(tmp_path / "secrets" / "clients", {"app": b"one"})
    project(config, compiled(a=1, b=1))
    with serving(tmp_path) as gateway:
        files = compiled(a=2, b=2)
        project(config, files | {"route.a.json": files["route.a.json"][:50]})
        wait_until(lambda: status_of(gateway, "b-2", "one") == 200, "the good route to be served")
        assert (status_of(gateway, "a-1", "one"), status_of(gateway, "a-2", "one")) == (200, 404)
        told, fine = gateway.status()["routes"]
        assert (told["name"], told["accepted"], told["generation"]) == ("a", False, 1)
        assert "route.a.json is not the one that gateway.json names" in told["reason"]
        assert fine["accepted"]
        assert gateway.metric("llmroute_config_reloads_total", result="partial") == 1
        project(config, files)
        wait_until(lambda: status_of(gateway, "a-2", "one") == 200, "the mended route to be served")
        assert gateway.status()["healthy"]
        assert len(logged(gateway, "configuration applied in part")) == 1


def test_what_compile_writes_is_what_serve_serves(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    save(file, QUICKSTART.read_text())
    done = llmroute("compile", "-f", file, "-o", tmp_path / "config")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (tmp_path / "secrets" / "quickstart-clients").mkdir(parents=True)
    (tmp_path / "secrets" / "quickstart-clients" / "app").write_text("dev-key")
    with serving(tmp_path) as gateway:
        assert status_of(gateway, "chat", "dev-key") == 200
        first = gateway.status()["revision"]
        save(file, QUICKSTART.read_text().replace("name: chat\n", "name: talk\n").replace("[chat]", "[talk]"))
        assert llmroute("compile", "-f", file, "-o", tmp_path / "config").returncode == 0
        wait_until(lambda: status_of(gateway, "talk", "dev-key") == 200, "what was compiled anew to be served")
        assert status_of(gateway, "chat", "dev-key") == 404
        assert gateway.status()["revision"] != first
        save(file, "spec: [\n")
        refused = llmroute("compile", "-f", file, "-o", tmp_path / "config")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"{file}:2: is not YAML")
        assert status_of(gateway, "talk", "dev-key") == 200


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    environment = {
        "GATEWAY_API_KEYS": "first, second",
        "GATEWAY_UPSTREAMS": "llama=mock://fail;mock=mock://local",
        "GATEWAY_FALLBACKS": "llama=mock",
        "GATEWAY_DEFAULT_UPSTREAM": "mock",
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "3",
    }
    with serving(tmp_path, config=False, **environment) as gateway:
        answer = gateway.post({"model": "llama", "messages": []}, key="first")
        assert (answer.status_code, answer.headers["x-fallback-model"]) == (200, "mock")
        assert status_of(gateway, "anything", "first") == 200
        assert status_of(gateway, "mock", "third") == 401
        assert [status_of(gateway, "mock", "first") for _ in range(2)] == [200, 429]
        assert status_of(gateway, "mock", "second") == 200


def test_a_wrong_variable_is_told_with_exit_code_2() -> None:
    done = llmroute("serve", "--port", "0", "--admin-port", "0", GATEWAY_RATE_LIMIT_PER_MINUTE="many")
    assert done.returncode == 2
    assert done.stderr == "llmroute: GATEWAY_RATE_LIMIT_PER_MINUTE must be a number, not 'many'\n"


def test_the_admin_port_is_open_on_each_address_that_is_named(tmp_path: Path) -> None:
    both = ("--admin-host", "127.0.0.2", "--admin-host", "127.0.0.1", "--admin-host", "127.0.0.2")
    with serving(tmp_path, *both) as gateway:
        for host in ("127.0.0.1", "127.0.0.2"):
            assert httpx.get(f"http://{host}:{gateway.admin_port}/health", timeout=10).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.3:{gateway.admin_port}/health", timeout=10)


def test_from_another_address_than_its_loopbacks_nobody_can_call(tmp_path: Path) -> None:
    """127.0.0.2 leads to this machine too, and to nobody who listens on 127.0.0.1 alone; with --host all can."""
    with serving(tmp_path, config=False, GATEWAY_UPSTREAMS="chat=mock://local") as gateway:
        assert gateway.get("/health").status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.2:{gateway.port}/v1/models", timeout=20)
    with serving(tmp_path, "--host=0.0.0.0", config=False, GATEWAY_UPSTREAMS="chat=mock://local") as gateway:
        assert httpx.get(f"http://127.0.0.2:{gateway.port}/v1/models", timeout=20).status_code in (200, 401)

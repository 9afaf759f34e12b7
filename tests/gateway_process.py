"""The real gateway as a process, with a config directory of its own, for tests over sockets."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import parse_spec
from tests.children import with_us
from tests.waiting import HANGS_AFTER, wait_until

COMMAND = Path(os.environ.get("LLMROUTE_TEST_PROGRAM") or Path(sys.executable).parent / "llmroute")
"""The gateway that is tested. `make test` runs some of these tests again with the compiled one (tools/compiled.py)."""
KEY = "test-key-of-app"


def why_it_cannot_start(program: str) -> str:
    """In a line; "" where it can."""
    try:
        done = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, timeout=100)
    except FileNotFoundError:
        return "its interpreter is not there" if Path(program).exists() else "it is not there"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"it ends with {done.returncode}")


def spec(provider_url: str, **changes: Any) -> dict[str, Any]:
    """A route with one model `gpt` at one upstream, changed as said."""
    return {
        "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
        "upstreams": [upstream("provider", provider_url)],
        "models": [{"name": "gpt", "targets": [{"upstream": "provider"}]}],
        **changes,
    }


def upstream(name: str, url: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "url": url, **changes}


def write_config(folder: Path, routes: Mapping[str, dict[str, Any]]) -> str:
    """Compiles `routes` (name -> spec) into `folder`, each file swapped whole; returns the revision."""
    sources = []
    for name, document in routes.items():
        parsed = parse_spec(document)
        assert not isinstance(parsed, tuple), parsed
        sources.append(RouteSource(name, parsed, generation=1))
    compilation = compile_gateway("tests", "default", sources)
    assert all(verdict.accepted for verdict in compilation.verdicts.values()), compilation.verdicts
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name, data in compilation.files.items():
        (fresh / name).write_bytes(data)
    for old in folder.iterdir():
        if old.name not in compilation.files:
            old.unlink()
    for name in sorted(compilation.files, key=lambda name: name == "gateway.json"):
        (fresh / name).replace(folder / name)
    fresh.rmdir()
    return compilation.revision


@dataclass
class GatewayProcess:
    """A running gateway. `lines` are its log lines so far."""

    process: subprocess.Popen[bytes]
    folder: Path
    log_path: Path
    port: int = 0
    admin_port: int = 0
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=HANGS_AFTER))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def config_dir(self) -> Path:
        return self.folder / "config"

    @property
    def secrets_dir(self) -> Path:
        return self.folder / "secrets"

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.endswith("}")]

    def request_line(self, request_id: str) -> dict[str, Any]:
        """The log line of one request, once it is there."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if line.get("request_id") == request_id]

        lines = wait_until(found, f"the log line of {request_id}")
        assert len(lines) == 1, lines
        return lines[0]

    def post(self, body: Any, path: str = "/v1/chat/completions", key: str | None = KEY, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers.setdefault("authorization", f"Bearer {key}")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.post(self.url + path, content=content, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self._client.get(self.url + path, **more)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self._client.get(self.admin_url + "/status").json()
        return document

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value; 0 where it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.metrics_text().splitlines():
            series, _, value = line.rpartition(" ")
            found_name, _, rest = series.partition("{")
            if found_name == name and wanted == set(filter(None, rest.rstrip("}").split(","))):
                return float(value)
        return 0.0

    def metrics_text(self) -> str:
        return self._client.get(self.admin_url + "/metrics").text

    def serves(self, revision: str) -> None:
        wait_until(lambda: self.status()["revision"] == revision, f"revision {revision} to be served")

    def write(self, routes: Mapping[str, dict[str, Any]]) -> str:
        """Writes another configuration and waits until it is served."""
        revision = write_config(self.config_dir, routes)
        self.serves(revision)
        return revision

    def memory_kib(self) -> int:
        return self._memory("VmRSS")

    def peak_memory_kib(self) -> int:
        """The most that it ever was."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        return 0

    def tasks(self) -> int:
        """Of its event loop; one is for this look at it."""
        return round(self.metric("llmroute_tasks"))

    def connections(self, side: Literal["client", "upstream"]) -> int:
        """Those that are open, at its data port or to its upstreams."""
        return round(self.metric("llmroute_connections", side=side))

    def command_line(self) -> str:
        return Path(f"/proc/{self.process.pid}/cmdline").read_text()

    def open_sockets(self) -> int:
        """How many sockets the process holds."""
        descriptors = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(1 for descriptor in descriptors if _points_to_socket(descriptor))

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self.process.wait(timeout=40)


def _points_to_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False  # closed meanwhile


def start(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, config: bool = True
) -> GatewayProcess:
    """Starts a gateway on ports of the system's choice and waits until it listens."""
    log_path = folder / "log"
    command = [str(COMMAND), "serve", "--port", "0", "--admin-port", "0"]
    if config:
        command += ["--config-dir", str(folder / "config"), "--secrets-dir", str(folder / "secrets")]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            with_us([*command, *arguments]),
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    gateway = GatewayProcess(process, folder, log_path)

    def listening() -> dict[str, Any] | None:
        assert process.poll() is None, log_path.read_text()
        text = log_path.read_text()
        return (
            next((line for line in gateway.lines if line["message"] == "listening"), None)
            if "listening" in text
            else None
        )

    line = wait_until(listening, "the gateway to listen")
    assert line is not None
    gateway.port, gateway.admin_port = line["port"], line["admin_port"]
    return gateway


@contextmanager
def running(
    folder: Path,
    routes: Mapping[str, dict[str, Any]],
    *arguments: str,
    keys: Mapping[str, str] | None = None,
) -> Iterator[GatewayProcess]:
    """A gateway that serves `routes`, with `keys` (client -> key) in the Secret `clients`; ended at the end."""
    write_secret(folder / "secrets", "clients", {"app": KEY, **(keys or {})})
    write_config(folder / "config", routes)
    gateway = start(folder, *arguments)
    try:
        yield gateway
    finally:
        end(gateway)


def end(gateway: GatewayProcess) -> None:
    gateway._client.close()
    gateway.process.kill()
    gateway.process.wait()


def write_secret(secrets_dir: Path, name: str, entries: Mapping[str, str]) -> None:
    (secrets_dir / name).mkdir(parents=True, exist_ok=True)
    for key, value in entries.items():
        (secrets_dir / name / key).write_text(value)

"""A real Prometheus as a process, and what its HTTP API says."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.children import with_us
from tests.ports import free_ports
from tests.waiting import HANGS_AFTER, wait_until

Document = dict[str, Any]
START_SECONDS = 60.0


def program(name: str) -> str | None:
    """`prometheus` or `promtool`; both are in Debian's package prometheus."""
    return shutil.which(name)


@dataclass
class Prometheus:
    url: str
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=HANGS_AFTER))

    def query(self, expression: str) -> list[Document]:
        """The series of an expression as it is now. Fails, saying what Prometheus said, where it is no PromQL."""
        answer = self._client.post(f"{self.url}/api/v1/query", data={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}\n{answer.get('error')}"
        result = answer["data"]["result"]
        return [result] if answer["data"]["resultType"] == "scalar" else list(result)

    def up(self) -> dict[str, list[Document]]:
        """The targets that are read, by job."""
        found: dict[str, list[Document]] = {}
        for target in self._get("/api/v1/targets")["activeTargets"]:
            if target["health"] == "up":
                found.setdefault(target["labels"]["job"], []).append(target)
        return found

    def rules(self) -> list[Document]:
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> Any:
        return self._client.get(self.url + path).json()["data"]

    def is_ready(self) -> bool:
        try:
            return self._client.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_prometheus(command: str, folder: Path, configuration: Document) -> Iterator[Prometheus]:
    """One on a free port of the loopback, with its data in `folder`."""
    [port] = free_ports(1)
    path = folder / "prometheus.yaml"
    path.touch(mode=0o600)  # may hold the path of a token
    path.write_text(yaml.safe_dump(configuration))
    log_path = folder / "prometheus.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            with_us(
                [
                    command,
                    f"--config.file={path}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ]
            ),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")

    def ready() -> bool:
        assert process.poll() is None, log_path.read_text()[-2000:]
        return prometheus.is_ready()

    try:
        wait_until(ready, "Prometheus to be ready", START_SECONDS)
        yield prometheus
    finally:
        prometheus._client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""The gateway with all of its policy on: keys, a request limit, breaker, metrics, a JSON line for each request."""

import subprocess
from pathlib import Path

from bench.contenders import CLIENT_KEY, CONNECTIONS_MAX, MODEL, UPSTREAM_KEY, Absent, Ports
from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import parse_spec

_VERSIONS = """
import platform
from importlib.metadata import version
beside = ", ".join(f"{part} {version(part)}" for part in ("uvicorn", "uvloop", "httptools"))
print(f"{version('llmroute-sidecar')} (Python {platform.python_version()}, {beside})")
"""
"""Asked of the Python that serves, which need not be the one that measures."""


class Llmroute:
    name = "llmroute"
    setup = "keys, request limit, breaker, metrics, a JSON line for each request"

    def __init__(self, program: Path) -> None:
        self._program = program

    def version(self) -> str:
        if not self._program.is_file():
            raise Absent(f"there is no {self._program}; try: make setup")
        python = str(self._program.parent / "python")
        done = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            raise Absent(f"{python} does not know llmroute: {done.stderr.strip()[-200:]}")
        return done.stdout.strip()

    def prepare(self, folder: Path, ports: Ports) -> list[str]:
        config, secrets = folder / "config", folder / "secrets"
        config.mkdir()
        for name, data in _compiled(ports.upstream).items():
            (config / name).write_bytes(data)
        for secret, key, value in (("bench-clients", "bench", CLIENT_KEY), ("bench-upstream", "key", UPSTREAM_KEY)):
            (secrets / secret).mkdir(parents=True)
            (secrets / secret / key).write_text(value)
        places = ["--config-dir", str(config), "--secrets-dir", str(secrets)]
        ends = ["--host", "127.0.0.1", "--port", str(ports.data), "--admin-port", str(ports.admin)]
        return [str(self._program), "serve", *places, *ends]


def _compiled(upstream_port: int) -> dict[str, bytes]:
    """The gateway's files, compiled from an LLMRoute as a platform team would write it."""
    spec = parse_spec(
        {
            "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "bench-clients"}}},
            "upstreams": [
                {
                    "name": "provider",
                    "url": f"http://127.0.0.1:{upstream_port}/v1",
                    "credential": {"secretRef": {"name": "bench-upstream", "key": "key"}},
                    "breaker": {"maxFailures": 5, "reset": "30s"},
                    "pool": {"maxConnections": CONNECTIONS_MAX},
                }
            ],
            "models": [{"name": MODEL, "targets": [{"upstream": "provider"}]}],
            "limits": [{"name": "per-client", "per": "Client", "requests": 1_000_000_000, "window": "60s"}],
        }
    )
    compilation = compile_gateway("bench", "default", [RouteSource("bench", spec, generation=1)])
    verdict = compilation.verdicts["bench"]
    if not verdict.accepted:
        raise Absent("the benchmark's own route is refused: " + "; ".join(str(problem) for problem in verdict.problems))
    return dict(compilation.files)

"""The gateway with all of its policy on: keys, a request limit, breaker, metrics, a JSON line for each request.

Its configuration lies as kubelet lays a ConfigMap, and is changed as kubelet changes one.
"""

import itertools
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bench.contenders import CLIENT_KEY, CONNECTIONS_MAX, MODEL, OURS, UPSTREAM_KEY, Absent, Contender, Ports, Setup
from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import parse_spec

_VERSIONS = """
import importlib.util, platform, sys
from importlib.metadata import version
whose = "Debian's Python" if sys.base_prefix == "/usr" else "Python"
beside = ", ".join(f"{part} {version(part)}" for part in ("uvloop", "httptools"))
found = importlib.util.find_spec("llmroute_sidecar.server.connection")
how = "compiled as in its image" if found.origin.endswith(".so") else "not compiled"
print(f"{version('llmroute-sidecar')}, {how} ({whose} {platform.python_version()}, {beside})")
"""
"""Asked of the Python that serves, which need not be the one that measures."""
_RELOADS = re.compile(r'^llmroute_config_reloads_total\{result="applied"\} ([0-9.e+]+)$', re.MULTILINE)


class Llmroute(Contender):
    name = OURS
    setup = "keys, request limit, breaker, metrics, a JSON line for each request; looks at its ConfigMap each second"

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

    def prepare(self, folder: Path, ports: Ports) -> Setup:
        return self._prepare(folder, ports, [_compiled(ports.upstream, version, models=2) for version in (0, 1)])

    def prepare_large(self, folder: Path, ports: Ports, models: int) -> Setup | None:
        return self._prepare(folder, ports, [_compiled(ports.upstream, version, models) for version in (0, 1)])

    def _prepare(self, folder: Path, ports: Ports, versions: Iterable[Mapping[str, bytes]]) -> Setup:
        config, secrets = folder / "config", folder / "secrets"
        following = itertools.cycle(versions)
        project = _projector(config)
        project(next(following))
        for secret, key, value in (("bench-clients", "bench", CLIENT_KEY), ("bench-upstream", "key", UPSTREAM_KEY)):
            (secrets / secret).mkdir(parents=True)
            (secrets / secret / key).write_text(value)
        places = ["--config-dir", str(config), "--secrets-dir", str(secrets)]
        ends = ["--host", "127.0.0.1", "--port", str(ports.data), "--admin-port", str(ports.admin)]
        return Setup(
            [str(self._program), "serve", *places, *ends],
            change=lambda _pid: project(next(following)),
            taken=lambda: _reloads(ports.admin),
        )


def _reloads(admin_port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=5) as answer:
        found = _RELOADS.search(answer.read().decode())
    return int(float(found[1])) if found else 0


def _projector(volume: Path) -> Callable[[Mapping[str, bytes]], None]:
    """What kubelet does: a folder for each version, the link `..data` renamed from one to the next."""
    numbers = itertools.count()
    volume.mkdir()

    def project(files: Mapping[str, bytes]) -> None:
        number = next(numbers)
        folder = volume / f"..{number}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (volume / "..data_tmp").symlink_to(folder.name)
        (volume / "..data_tmp").rename(volume / "..data")
        for name in files:
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")
        if number:
            shutil.rmtree(volume / f"..{number - 1}")

    return project


def _compiled(upstream_port: int, version: int, models: int) -> dict[str, bytes]:
    """The gateway's files, compiled from an LLMRoute as a platform team would write it. A version changes the upstream
    and every model, so that nothing of it can be kept.
    """
    names = [MODEL, *(f"other-model-{number}" for number in range(1, models))]
    spec = parse_spec(
        {
            "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "bench-clients"}}},
            "upstreams": [
                {
                    "name": "provider",
                    "url": f"http://127.0.0.1:{upstream_port}/v1",
                    "credential": {"secretRef": {"name": "bench-upstream", "key": "key"}},
                    "timeouts": {"idle": f"{60 + version}s"},
                    "breaker": {"maxFailures": 5, "reset": "30s"},
                    "pool": {"maxConnections": CONNECTIONS_MAX},
                }
            ],
            "models": [
                {
                    "name": name,
                    "targets": [{"upstream": "provider"}],
                    "retry": {"attempts": 2, "backoff": f"{200 + version}ms"},
                }
                for name in names
            ],
            "limits": [{"name": "per-client", "per": "Client", "requests": 1_000_000_000, "window": "60s"}],
        }
    )
    compilation = compile_gateway("bench", "default", [RouteSource("bench", spec, generation=1 + version)])
    verdict = compilation.verdicts["bench"]
    if not verdict.accepted:
        raise Absent("the benchmark's own route is refused: " + "; ".join(str(problem) for problem in verdict.problems))
    return dict(compilation.files)

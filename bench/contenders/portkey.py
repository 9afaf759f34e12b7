"""Portkey's gateway, configured as its docs say: by a header of each request that names provider, key and host.

Neither retry, fallback, cache nor guardrails are asked for; no console (`--headless`), NODE_ENV=production. It knows no
keys of its own, no limits and no breaker. It would listen on every address; a file that node loads before it keeps it
on the loopback and changes nothing else.
"""

import json
import subprocess
from pathlib import Path

from bench.contenders import UPSTREAM_KEY, Absent, Contender, Effort, Ports, Setup
from tools.debian import find

_ON_LOOPBACK = """\
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, host, ...rest) {
  return listen.call(this, port, host ?? "127.0.0.1", ...rest);
};
"""


class Portkey(Contender):
    name = "portkey"
    setup = "provider, key and host by x-portkey-config; no retry, fallback, cache or guardrail, no console"
    effort = Effort(slow=True)
    transparent = False

    def __init__(self, modules: Path | None) -> None:
        self._modules = modules

    def version(self) -> str:
        about = json.loads((self._package() / "package.json").read_text())
        node = subprocess.run([_node(), "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
        return f"{about['version']} (node {node.removeprefix('v')})"

    def prepare(self, folder: Path, ports: Ports) -> Setup:
        first = folder / "loopback.cjs"
        first.write_text(_ON_LOOPBACK)
        program = self._package() / "build" / "start-server.js"
        host = f"http://127.0.0.1:{ports.upstream}/v1"
        config = {"provider": "openai", "api_key": UPSTREAM_KEY, "custom_host": host}
        return Setup(
            [_node(), "--require", str(first), str(program), f"--port={ports.data}", "--headless"],
            environment={"NODE_ENV": "production"},
            headers={"x-portkey-config": json.dumps(config)},
            ready_path="/",
        )

    def _package(self) -> Path:
        if self._modules is None:
            raise Absent("it could not be installed from requirements/bench-portkey")
        return self._modules / "@portkey-ai" / "gateway"


def _node() -> str:
    program = find("node")
    if program is None:
        raise Absent("node is not here")
    return program

"""LiteLLM's proxy as its page on production wants it where there is no database: one worker, master key, errors alone
in the log, no `.env` (LITELLM_MODE), a request timeout; its price table comes from the package, not from the network.

It parses and writes anew every answer and chunk, so it is checked by what they say. It does less than the others put
on it can wait for, hence the smaller effort.
"""

import json
import subprocess
from pathlib import Path

from bench.contenders import CLIENT_KEY, MODEL, UPSTREAM_KEY, Absent, Contender, Effort, Ports, Setup

_VERSION = """
import platform
from importlib.metadata import version
print(f"{version('litellm')} (Python {platform.python_version()}, uvicorn {version('uvicorn')})")
"""


class LiteLlm(Contender):
    name = "litellm"
    setup = "master key, one uvicorn worker, no database, LITELLM_MODE=PRODUCTION, LITELLM_LOG=ERROR"
    effort = Effort(connections=8, streams=4, paced_streams=40, slow=True)
    transparent = False

    def __init__(self, environment: Path | None) -> None:
        self._environment = environment

    def version(self) -> str:
        python = self._programs() / "python"
        done = subprocess.run([str(python), "-c", _VERSION], capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            raise Absent(f"its environment is broken: {done.stderr.strip()[-200:]}")
        return done.stdout.strip()

    def prepare(self, folder: Path, ports: Ports) -> Setup:
        config = folder / "config.yaml"
        config.write_text(json.dumps(_config(ports.upstream), indent=1))  # JSON is YAML
        place = ["--host", "127.0.0.1", "--port", str(ports.data)]
        return Setup(
            [str(self._programs() / "litellm"), "--config", str(config), *place, "--num_workers", "1"],
            environment={
                "LITELLM_MODE": "PRODUCTION",
                "LITELLM_LOG": "ERROR",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            ready_path="/health/readiness",
        )

    def _programs(self) -> Path:
        if self._environment is None:
            raise Absent("it could not be installed from requirements/bench-litellm.txt")
        return self._environment / "bin"


def _config(upstream_port: int) -> dict[str, object]:
    there = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": UPSTREAM_KEY,
    }
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": there}],
        "general_settings": {"master_key": CLIENT_KEY},
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True, "telemetry": False},
    }

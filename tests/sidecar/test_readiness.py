"""`llmroute ready`: what a postStart hook runs in the gateway's container."""

from pathlib import Path

import pytest

from tests.cluster.projection import project
from tests.gateway_process import end, start
from tests.sidecar.config.mounted import compiled
from tests.sidecar.local_process import llmroute

pytestmark = pytest.mark.server


def test_it_says_by_its_exit_code_whether_a_gateway_is_ready(tmp_path: Path) -> None:
    gateway = start(tmp_path)
    try:
        port = gateway.url.rpartition(":")[2]
        not_yet = llmroute("ready", "--port", port)
        assert not_yet.returncode == 1
        assert not_yet.stderr == f"llmroute: no gateway at 127.0.0.1:{port} is ready\n"
        project(gateway.config_dir, compiled(a=1))
        assert llmroute("ready", "--port", port, "--within", "30").returncode == 0
    finally:
        end(gateway)
    assert llmroute("ready", "--port", port).returncode == 1

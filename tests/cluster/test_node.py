"""The real node's harness itself: what other tests, and people who interrupt them, rely on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.node import CGROUP_PREFIX, RealNode, sweep_cgroups
from tests.cluster.node_config import POD_RANGE, SERVICE_RANGE
from tests.waiting import wait_until

pytestmark = pytest.mark.node


def test_the_node_and_its_control_plane_are_of_one_version(real_node: RealNode) -> None:
    version = real_node.control_plane.read("/version")["gitVersion"]
    nodes = real_node.control_plane.get("nodes")["items"]
    assert [node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes] == [version]


def test_the_machines_own_network_and_mounts_know_nothing_of_the_node(real_node: RealNode) -> None:
    assert "node0" not in {path.name for path in Path("/sys/class/net").iterdir()}
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert POD_RANGE not in routes
    assert SERVICE_RANGE not in routes
    assert str(real_node.control_plane.folder) not in Path("/proc/mounts").read_text()


RUN_AND_WAIT = """
import sys, time
from pathlib import Path
from tests.cluster.node import running_node
with running_node(Path(sys.argv[1])):
    Path(sys.argv[1], "ready").touch()
    time.sleep(600)
"""


@pytest.mark.timeout(300)
def test_a_killed_test_run_leaves_nothing_behind(real_node: RealNode, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_AND_WAIT, str(tmp_path)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])

    def processes() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(tmp_path) in line and path.parent.name != str(run.pid):
                found.append(line)
        return found

    try:
        wait_until((tmp_path / "ready").exists, "a second node beside the first", 150, every=0.2)
        assert len(processes()) > 6
        os.kill(run.pid, signal.SIGKILL)
        wait_until(lambda: not processes(), "the killed run's processes to be gone")
    finally:
        run.kill()
        run.communicate()
    sweep_cgroups()  # as the next run does: control groups are files, which no process takes along
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{CGROUP_PREFIX}{run.pid}-*"))

"""What the documentation says of clusters, on a real API server: it takes the routes, and commands do what is shown."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.cluster.workloads import asking_pod, deployment, secret
from tests.contract.api import Refusal, RouteApi, route_api
from tests.docs.blocks import Block, blocks_of
from tests.docs.routes import every_route
from tests.docs.terminal import SCRIPTS, ClusterSession, shell
from tests.docs.test_blocks import BLOCKS, LISTED
from tests.monitoring.operator_crds import install_crds
from tests.operator.controller_process import running_controller

pytestmark = pytest.mark.cluster

MONITORING = REPOSITORY / "docs" / "monitoring.md"
PAGES = sorted(
    {block.page for block in BLOCKS if block.is_run and block.is_of_a_cluster and block not in LISTED} - {MONITORING}
)
THERE = [
    deployment("web", asking_pod("web:1")),
    secret("chat-clients", {"web": "old-key"}),
    secret("openai", {"api-key": "OLD"}),
]
"""What a team's namespace has, by the pages that change it."""


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[RouteApi]:
    with route_api(control_plane) as opened:
        yield opened


def test_every_route_of_the_documentation_and_of_the_examples_is_taken(api: RouteApi) -> None:
    outcomes = {place: api.take(route) for place, route in every_route()}
    assert len(outcomes) >= 15
    assert {place: str(refusal) for place, refusal in outcomes.items() if isinstance(refusal, Refusal)} == {}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """One where the operator is installed, as far as a control plane alone can have it."""
    with running_controller(control_plane):
        yield control_plane


@contextmanager
def reader(page: Path, cluster: ControlPlane, folder: Path) -> Iterator[ClusterSession]:
    """A person with kubectl, who has saved the page's first route."""
    shop, here = cluster.new_namespace(), cluster.new_namespace()
    cluster.kubectl("apply", "-n", shop, "-f", "-", input=yaml.safe_dump_all(THERE))
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(cluster.admin_kubeconfig.read_text())
    cluster.kubectl("config", "set-context", "--current", "--namespace", here, f"--kubeconfig={kubeconfig}")
    (folder / "route.yaml").write_text(next((one.text for one in blocks_of(page) if one.is_route), ""))
    path = os.pathsep.join((str(SCRIPTS), str(Path(cluster.kubectl_command[0]).parent), os.environ["PATH"]))
    with shell(folder, {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)}) as terminal:
        yield ClusterSession(terminal, shop)


def told_on(page: Path) -> list[Block]:
    return [one for one in blocks_of(page) if one.is_run and one.is_of_a_cluster and one not in LISTED]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_commands_of_a_page_do_what_it_shows_on_a_cluster(
    cluster: ControlPlane, page: Path, tmp_path: Path
) -> None:
    with reader(page, cluster, tmp_path) as session:
        session.follow(told_on(page))


@pytest.mark.timeout(400)  # as in tests/monitoring
def test_the_commands_of_the_page_on_monitoring_do_what_it_says(control_plane: ControlPlane, tmp_path: Path) -> None:
    install_crds(control_plane)
    with reader(MONITORING, control_plane, tmp_path) as session:
        try:
            session.follow(told_on(MONITORING))
        finally:
            control_plane.kubectl("delete", "-k", str(REPOSITORY / "manifests" / "monitoring"), "--ignore-not-found")

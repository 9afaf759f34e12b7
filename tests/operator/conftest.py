"""A controller for a module's tests, and a namespace for each test."""

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import ControllerProcess, running_controller
from tests.operator.namespace import Namespace


@pytest.fixture(scope="module")
def controller(control_plane: ControlPlane) -> Iterator[ControllerProcess]:
    """One that looks after the whole cluster, for tests that do not care about its start and end."""
    with running_controller(control_plane) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Namespace:
    return Namespace(control_plane, control_plane.new_namespace())

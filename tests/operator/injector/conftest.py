"""Namespaces for pods of the tests."""

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.namespace import Namespace


@pytest.fixture
def space(control_plane: ControlPlane) -> Namespace:
    """A namespace with the service account that its pods run under: nobody else here makes it."""
    namespace = Namespace(control_plane, control_plane.new_namespace())
    namespace.kubectl("create", "serviceaccount", "default", check=False)
    return namespace

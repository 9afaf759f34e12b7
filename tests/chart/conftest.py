"""Helm, both versions of it."""

import os
from pathlib import Path

import pytest

from tests.cluster.go_build import Unavailable
from tests.cluster.helm import HELM, ensure_helm


@pytest.fixture(scope="session", params=sorted(HELM), ids=lambda major: f"helm-{major}")
def helm(request: pytest.FixtureRequest) -> Path:
    try:
        return ensure_helm(request.param)
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no helm: {reason}")
        pytest.skip(f"there is no helm: {reason}")

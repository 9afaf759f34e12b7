"""What all tests of the sidecar share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.sidecar.collector import Collector, collecting

# How long an example takes says how busy the machine is, and nothing else: no test may fail for it.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector of spans that takes all it is sent."""
    with collecting() as collector:
        yield collector

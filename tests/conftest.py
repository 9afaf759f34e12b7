"""Fixtures that several folders of tests share."""

import os
from collections.abc import Generator, Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import opened_browser
from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.cluster.go_build import Unavailable
from tests.cluster.node import RealNode, running_node
from tests.failures_told import FailuresTold
from tests.gateway_process import why_it_cannot_start
from tests.state_server import told


@pytest.hookimpl(trylast=True)  # the reporter is there
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        config.pluginmanager.register(FailuresTold(reporter))


def pytest_report_header() -> str:
    return told()


def pytest_sessionstart() -> None:
    """A gateway that cannot even start fails every test that wants one, minutes later."""
    named = os.environ.get("LLMROUTE_TEST_PROGRAM")
    if named and (why := why_it_cannot_start(named)):
        pytest.exit(f"LLMROUTE_TEST_PROGRAM={named} cannot start: {why}", returncode=1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may be skipped: what could not be had there would never be tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("\nIn CI a skipped test is a failed one.")


@pytest.fixture(scope="session", autouse=True)
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the person's own machine remembers or is told has no part in the tests, nor they in it."""
    with pytest.MonkeyPatch.context() as environment:
        # kubectl and helm remember by host and port what an API server knows: another run's had the same port
        environment.setenv("KUBECACHEDIR", str(tmp_path_factory.mktemp("kubectl-cache")))
        for name in ("NO_PROXY", "no_proxy"):
            environment.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost,::1"))))
        yield


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for the whole run; tests take namespaces of their own in it."""
    try:
        with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
            yield plane
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no control plane: {reason}")
        pytest.skip(f"there is no control plane: {reason}")


@pytest.fixture(scope="session")
def real_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """One real node, with a control plane of its own, for the whole run."""
    try:
        with running_node(tmp_path_factory.mktemp("node")) as node:
            yield node
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no real node: {reason}")
        pytest.skip(f"there is no real node: {reason}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each module that looks at pages."""
    with opened_browser() as browser:
        yield browser


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test of the real node brings what its pods and programs said, so that it can be read from CI's log."""
    report = yield
    node = getattr(item, "funcargs", {}).get("real_node")
    if report.failed and isinstance(node, RealNode):
        report.sections.append(("the real node", node.report()))
    return report

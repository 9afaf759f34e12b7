"""The injector while something of it changes: its certificate, its settings, its replicas. No admission is lost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from tests.cluster.control_plane import ControlPlane
from tests.operator.injector.balancer import balancing
from tests.operator.injector.injector_process import InjectorProcess, create, registered, running_injector, start
from tests.operator.injector.pods import IMAGE, gateway, pod
from tests.operator.namespace import Namespace
from tests.sidecar.certificates import Authority
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@contextmanager
def constant_admissions(space: Namespace) -> Iterator[list[str]]:
    """Pods are made one after another, all the time. The value is what each came to: `good`, or what kubectl said."""
    results: list[str] = []
    stop = threading.Event()

    def admit() -> None:
        while not stop.is_set():
            try:
                made = create(space, pod(), "--dry-run=server")
                results.append("good" if gateway(made) else "without a gateway")
            except (AssertionError, ValueError) as error:
                results.append(str(error))

    threads = [threading.Thread(target=admit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def some_more(results: list[str]) -> None:
    wanted = len(results) + 4
    wait_until(lambda: len(results) >= wanted, "some more admissions")


def test_a_renewed_certificate_loses_no_admission(
    control_plane: ControlPlane, space: Namespace, tmp_path: Path
) -> None:
    """The bundle holds both authorities, as the controller publishes them; each admission is a handshake of its own."""
    with running_injector(control_plane, tmp_path / "injector") as injector:
        other = Authority(tmp_path / "other")
        with registered(control_plane, injector.port, injector.authority.pem + other.pem):
            loaded = 'llmroute_injector_loads_total{input="certificate",result="success"}'
            with constant_admissions(space) as results:
                for times, authority in enumerate((other, injector.authority, other), 2):
                    some_more(results)
                    injector.renew_certificate(authority)
                    wanted = f"{loaded} {times}.0"
                    wait_until(lambda wanted=wanted: wanted in injector.get("/metrics").text, wanted)  # type: ignore[misc]
                some_more(results)
            assert set(results) == {"good"}
        [served] = x509.load_pem_x509_certificates((injector.folder / "tls.crt").read_bytes())
        assert injector.metric("certificate_expiry_timestamp_seconds") == served.not_valid_after_utc.timestamp()
        with registered(control_plane, injector.port, other.pem):
            create(space, pod(), "--dry-run=server")


def test_settings_are_read_again_and_bad_ones_are_not_taken(
    control_plane: ControlPlane, space: Namespace, tmp_path: Path
) -> None:
    with (
        running_injector(control_plane, tmp_path / "injector") as injector,
        registered(control_plane, injector.port, injector.authority.pem),
    ):
        settings = injector.folder / "settings.yaml"
        settings.write_text(f"{{image: {IMAGE}, logLevel: debug}}")

        def has_changed() -> bool:
            return "--log-level=debug" in gateway(create(space, pod(), "--dry-run=server"))["args"]

        wait_until(has_changed, "the new settings to be used")
        settings.write_text("image: app:1")
        good = 'llmroute_injector_input_good{input="settings"} 0.0'
        wait_until(lambda: good in injector.get("/metrics").text, "the bad settings to be told of")
        assert has_changed()


def test_a_rolling_restart_of_two_replicas_loses_no_admission(
    control_plane: ControlPlane, space: Namespace, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")

    def replica(name: str) -> InjectorProcess:
        made = start(control_plane, tmp_path / name, "--drain-seconds=1", authority=authority)
        running.append(made)
        return made

    running: list[InjectorProcess] = []
    try:
        replicas = [replica("a"), replica("b")]
        with balancing(replicas) as port, registered(control_plane, port, authority.pem):
            with constant_admissions(space) as results:
                for index in range(2):
                    some_more(results)
                    fresh = replica(f"new-{index}")
                    old, replicas[index] = replicas[index], fresh
                    assert old.end() == 0
                some_more(results)
            assert set(results) == {"good"}
    finally:
        for one in running:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()

"""One scene for all tests here: gateways in pods, controller and injector, read by a Prometheus that finds them itself.

The controller makes a certificate for a webhook that asks about no pod: the control plane is also for other tests.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmroute_contract.pods import INJECT_LABEL
from monitoring.rules import Windows, rules_file
from monitoring.scrape import (
    CONTROLLER,
    GATEWAY_JOB,
    INJECTOR,
    OPERATOR_NAMESPACE,
    Part,
    metrics_service,
    scrape_configs,
)
from tests.cluster.control_plane import ControlPlane
from tests.monitoring.discovery import pod_targets, service_targets
from tests.monitoring.prometheus import Prometheus, program, running_prometheus
from tests.monitoring.scene import Scene, admitting, lead_astray, playing
from tests.operator.controller_process import CERTIFICATES_RBAC, CLUSTER_RBAC, running_controller
from tests.operator.injector.injector_process import WEBHOOK, running_injector
from tests.operator.namespace import Namespace, route
from tests.operator.pods import make_pods, pod, runs_at
from tests.waiting import wait_until

Document = dict[str, Any]
SHORT = Windows("5s", "5s", "8s", "8s", "8s")
SECOND = "1s"
CERTIFICATES = (
    *("--certificates", "self", "--injector-namespace", OPERATOR_NAMESPACE),
    *("--certificate-publish-seconds", "1"),
)
LOOPBACK = "127.0.0.1"
SERVICE_ADDRESS = "192.0.2.1"
"""An EndpointSlice may not name the loopback; this is nobody's (RFC 5737); Prometheus is told the true one."""


def prometheus_program(name: str) -> str:
    found = program(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"there is no {name}: apt-get install prometheus")
        pytest.skip(f"there is no {name}: apt-get install prometheus")
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    return prometheus_program("promtool")


@dataclass(frozen=True)
class Observed:
    prometheus: Prometheus
    scene: Scene
    namespace: str


@pytest.fixture(scope="package")
def observed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Prometheus has read all targets for longer than the longest window."""
    command = prometheus_program("prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        scene = stack.enter_context(playing(folder / "gateways"))
        namespace = Namespace(control_plane, control_plane.new_namespace())
        make_pods(
            namespace,
            *(pod(name, port=gateway.admin_port) for name, gateway in scene.gateways.items()),
            pod("without", injected=False, labels={INJECT_LABEL: "true"}),
        )
        for name in scene.gateways:
            runs_at(namespace, name, LOOPBACK)
        runs_at(namespace, "without", LOOPBACK)
        namespace.apply(route("chat"))
        stack.enter_context(_webhook(control_plane))
        controller = stack.enter_context(running_controller(control_plane, *CERTIFICATES))
        injector = stack.enter_context(running_injector(control_plane, folder / "injector"))
        stack.enter_context(admitting(injector, namespace.name))
        _make_service(control_plane, CONTROLLER, controller.port)
        _make_service(control_plane, INJECTOR, injector.health_port)
        configuration = _configuration(control_plane, folder)
        prometheus = stack.enter_context(running_prometheus(command, folder, configuration))
        wait_until(lambda: _all_up(prometheus, scene), "Prometheus to read all targets", every=0.2)
        lead_astray(scene.gateways["astray"])
        wait_until(lambda: _has_seen_enough(prometheus), "Prometheus to have read all for a while", every=0.2)
        yield Observed(prometheus, scene, namespace.name)


def _all_up(prometheus: Prometheus, scene: Scene) -> bool:
    up = {job: len(targets) for job, targets in prometheus.up().items()}
    return up == {GATEWAY_JOB: len(scene.gateways), CONTROLLER.job: 1, INJECTOR.job: 1}


def _has_seen_enough(prometheus: Prometheus) -> bool:
    """The longest window is full of samples that were taken after the last thing had happened."""
    return bool(prometheus.query(f"min(min_over_time(up[{SHORT.hours6}])) == 1")) and bool(
        prometheus.query(f"max(max_over_time(llmroute_config_healthy[{SHORT.hours6}]) - 0) == 1")
        and prometheus.query(f"min(max_over_time(llmroute_config_healthy[{SHORT.hours6}])) == 0")
    )


@contextmanager
def _webhook(control_plane: ControlPlane) -> Iterator[None]:
    """What the controller fills in: its Secret, and a webhook whose selector no namespace has."""
    control_plane.kubectl("apply", "-f", str(CLUSTER_RBAC), "-f", str(CERTIFICATES_RBAC))
    configuration = yaml.safe_load(WEBHOOK.read_text())
    for webhook in configuration["webhooks"]:
        webhook["namespaceSelector"] = {"matchLabels": {"llmroute.test/asked-about": "nothing"}}
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(configuration))
    secret = ("secret", "llmroute-injector-tls", "-n", OPERATOR_NAMESPACE)
    control_plane.kubectl("create", "secret", "generic", *secret[1:], check=False)
    try:
        yield
    finally:
        control_plane.kubectl("delete", "mutatingwebhookconfiguration", configuration["metadata"]["name"])
        control_plane.kubectl("delete", *secret)


def _make_service(control_plane: ControlPlane, part: Part, port: int) -> None:
    """What Kubernetes would make of a part's Service and its pod."""
    control_plane.kubectl("create", "namespace", OPERATOR_NAMESPACE, check=False)
    slice_of = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": f"{part.service}-1",
            "namespace": OPERATOR_NAMESPACE,
            "labels": {"kubernetes.io/service-name": part.service, **part.labels},
        },
        "endpoints": [{"addresses": [SERVICE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "metrics", "port": port, "protocol": "TCP"}],
    }
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(slice_of))
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(metrics_service(part)))


def _configuration(control_plane: ControlPlane, folder: Path) -> Document:
    """The generated scrape configuration and rules, with short times and what there is in this control plane."""
    configs = scrape_configs()
    for config in configs:
        config["scrape_interval"] = SECOND
        [discovery] = config.pop("kubernetes_sd_configs")
        match discovery["role"]:
            case "pod":
                config["static_configs"] = pod_targets(control_plane)
            case "endpointslice":
                [namespace] = discovery["namespaces"]["names"]
                config["static_configs"] = service_targets(control_plane, namespace)
        config["relabel_configs"].append(
            {
                "source_labels": ["__address__"],
                "regex": f"{SERVICE_ADDRESS}:(.*)",
                "target_label": "__address__",
                "replacement": f"{LOOPBACK}:$1",
            }
        )
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(rules_file(SHORT)))
    return {
        "global": {"scrape_interval": SECOND, "evaluation_interval": SECOND},
        "rule_files": [str(rules)],
        "scrape_configs": configs,
    }

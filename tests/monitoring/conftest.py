"""One scene for all tests here: gateways in pods and a controller, read by a Prometheus that finds them by itself."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmroute_contract.pods import INJECT_LABEL
from monitoring.rules import Windows, rules_file
from monitoring.scrape import CONTROLLER_JOB, CONTROLLER_LABELS, CONTROLLER_NAMESPACE, GATEWAY_JOB, scrape_configs
from tests.cluster.control_plane import REPOSITORY, ControlPlane
from tests.monitoring.discovery import pod_targets, service_targets
from tests.monitoring.prometheus import Prometheus, program, running_prometheus
from tests.monitoring.scene import Scene, lead_astray, playing
from tests.operator.controller_process import running_controller
from tests.operator.namespace import Namespace, route
from tests.operator.pods import make_pods, pod, runs_at
from tests.waiting import wait_until

Document = dict[str, Any]
SHORT = Windows("5s", "5s", "8s", "8s", "8s")
SECOND = "1s"
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
        controller = stack.enter_context(running_controller(control_plane))
        _make_service(control_plane, controller.port)
        configuration = _configuration(control_plane, folder)
        prometheus = stack.enter_context(running_prometheus(command, folder, configuration))
        wait_until(lambda: _all_up(prometheus, scene), "Prometheus to read all targets", 60, every=0.2)
        lead_astray(scene.gateways["astray"])
        wait_until(lambda: _has_seen_enough(prometheus), "Prometheus to have read all for a while", 60, every=0.2)
        yield Observed(prometheus, scene, namespace.name)


def _all_up(prometheus: Prometheus, scene: Scene) -> bool:
    up = {job: len(targets) for job, targets in prometheus.up().items()}
    return up == {GATEWAY_JOB: len(scene.gateways), CONTROLLER_JOB: 1}


def _has_seen_enough(prometheus: Prometheus) -> bool:
    """The longest window is full of samples that were taken after the last thing had happened."""
    return bool(prometheus.query(f"min(min_over_time(up[{SHORT.hours6}])) == 1")) and bool(
        prometheus.query(f"max(max_over_time(llmroute_config_healthy[{SHORT.hours6}]) - 0) == 1")
        and prometheus.query(f"min(max_over_time(llmroute_config_healthy[{SHORT.hours6}])) == 0")
    )


def _make_service(control_plane: ControlPlane, port: int) -> None:
    """What Kubernetes would make of the controller's Service and its pod."""
    control_plane.kubectl("create", "namespace", CONTROLLER_NAMESPACE, check=False)
    slice_of = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": "llmroute-controller-metrics-1",
            "namespace": CONTROLLER_NAMESPACE,
            "labels": {"kubernetes.io/service-name": "llmroute-controller-metrics", **CONTROLLER_LABELS},
        },
        "endpoints": [{"addresses": [SERVICE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "metrics", "port": port, "protocol": "TCP"}],
    }
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(slice_of))
    documents = yaml.safe_load_all((REPOSITORY / "manifests/monitoring/servicemonitor.yaml").read_text())
    service = next(document for document in documents if document["kind"] == "Service")
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(service))


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

"""What Prometheus' Kubernetes discovery would find, as static targets with the same meta labels.

Debian builds Prometheus without that discovery, so it is played here, from the objects of the real API server; the
labels are those of Prometheus' manual (`kubernetes_sd_config`, roles pod and endpointslice). What is kept of them, and
what becomes of them, is the relabelling's matter, and so the real Prometheus'.
"""

from collections.abc import Iterator
from typing import Any

from monitoring.scrape import label_of
from tests.cluster.control_plane import ControlPlane

Document = dict[str, Any]


def pod_targets(control_plane: ControlPlane) -> list[Document]:
    """One for each port of each container, init containers included; for the address alone where there is none."""
    pods = control_plane.get("pods", "--all-namespaces")["items"]
    return [target for pod in pods if pod["status"].get("podIP") for target in _of_pod(pod)]


def _of_pod(pod: Document) -> Iterator[Document]:
    address = pod["status"]["podIP"]
    common = {
        "namespace": pod["metadata"]["namespace"],
        "pod_name": pod["metadata"]["name"],
        "pod_phase": pod["status"]["phase"],
        "pod_ip": address,
        **_labels("pod", pod["metadata"].get("labels", {})),
    }
    for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])):
        named = {**common, "pod_container_name": container["name"]}
        ports = container.get("ports", [])
        if not ports:
            yield _target(address, named)
        for port in ports:
            more = {
                "pod_container_port_name": port.get("name", ""),
                "pod_container_port_number": str(port["containerPort"]),
            }
            yield _target(f"{address}:{port['containerPort']}", {**named, **more})


def service_targets(control_plane: ControlPlane, namespace: str) -> list[Document]:
    """One for each address and port of each EndpointSlice, with the labels of its Service."""
    services = {one["metadata"]["name"]: one for one in control_plane.get("services", "-n", namespace)["items"]}
    found = []
    for one in control_plane.get("endpointslices", "-n", namespace)["items"]:
        name = one["metadata"]["labels"]["kubernetes.io/service-name"]
        labels = {
            "namespace": namespace,
            "service_name": name,
            **_labels("service", services[name]["metadata"].get("labels", {})),
        }
        for endpoint in one["endpoints"]:
            for port in one["ports"]:
                for address in endpoint["addresses"]:
                    named = {**labels, "endpointslice_port_name": port["name"]}
                    found.append(_target(f"{address}:{port['port']}", named))
    return found


def _labels(what: str, labels: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, value in labels.items():
        found[f"{what}_label_{label_of(name)}"] = value
        found[f"{what}_labelpresent_{label_of(name)}"] = "true"
    return found


def _target(address: str, labels: dict[str, str]) -> Document:
    return {"targets": [address], "labels": {f"__meta_kubernetes_{name}": value for name, value in labels.items()}}

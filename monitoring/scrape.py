"""How Prometheus finds gateways, controller and injector: a PodMonitor, a ServiceMonitor each, and the same for a
Prometheus without an operator, translated from them as prometheus-operator does it.

Every series of a gateway has the labels `namespace`, `pod`, `gateway` and `job="llmroute-gateway"`; dashboards and
rules rely on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmroute_contract.pods import ADMIN_PORT_NAME, GATEWAY_LABEL

Document = dict[str, Any]

GATEWAY_JOB = "llmroute-gateway"
OPERATOR_NAMESPACE = "llmroute-system"
METRICS_PORT_NAME = "metrics"
METRICS_PORT = 8080
INTERVAL = "15s"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the operator that tells its metrics on a port of its own."""

    name: str

    @property
    def job(self) -> str:
        return f"llmroute-{self.name}"

    @property
    def service(self) -> str:
        return f"llmroute-{self.name}-metrics"

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its pods, and of the Service before them."""
        return {"app.kubernetes.io/part-of": "llmroute", "app.kubernetes.io/component": self.name}


CONTROLLER = Part("controller")
INJECTOR = Part("injector")


def label_of(kubernetes_label: str) -> str:
    """As Prometheus spells it: what is neither letter nor digit becomes an underscore."""
    return "".join(letter if letter.isalnum() else "_" for letter in kubernetes_label)


def pod_monitor() -> Document:
    """For every pod that was given a gateway, in any namespace. An init container's port is found like another's."""
    gateway = f"__meta_kubernetes_pod_label_{label_of(GATEWAY_LABEL)}"
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _metadata("llmroute-gateways"),
        "spec": {
            "namespaceSelector": {"any": True},
            "selector": {"matchExpressions": [{"key": GATEWAY_LABEL, "operator": "Exists"}]},
            "podMetricsEndpoints": [
                {
                    "port": ADMIN_PORT_NAME,
                    "path": "/metrics",
                    "interval": INTERVAL,
                    "relabelings": [
                        {"sourceLabels": [gateway], "targetLabel": "gateway", "action": "replace"},
                        {"targetLabel": "job", "replacement": GATEWAY_JOB, "action": "replace"},
                    ],
                }
            ],
        },
    }


def metrics_service(part: Part) -> Document:
    """What the ServiceMonitor selects; headless, as nobody but Prometheus calls it. A pod that is not ready is read
    too: that is when its numbers are wanted."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(part.service, part.labels),
        "spec": {
            "clusterIP": "None",
            "selector": dict(part.labels),
            "ports": [{"name": METRICS_PORT_NAME, "port": METRICS_PORT, "protocol": "TCP", "targetPort": METRICS_PORT}],
        },
    }


def service_monitor(part: Part) -> Document:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _metadata(part.job),
        "spec": {
            "namespaceSelector": {"matchNames": [OPERATOR_NAMESPACE]},
            "selector": {"matchLabels": dict(part.labels)},
            "endpoints": [
                {
                    "port": METRICS_PORT_NAME,
                    "path": "/metrics",
                    "interval": INTERVAL,
                    "relabelings": [{"targetLabel": "job", "replacement": part.job, "action": "replace"}],
                }
            ],
        },
    }


def _metadata(name: str, labels: Mapping[str, str] | None = None) -> Document:
    return {
        "name": name,
        "namespace": OPERATOR_NAMESPACE,
        "labels": dict(labels or {"app.kubernetes.io/part-of": "llmroute"}),
    }


def scrape_configs() -> list[Document]:
    """For a Prometheus without an operator: `scrape_configs` with the same targets and labels."""
    return [
        of_pod_monitor(pod_monitor()),
        of_service_monitor(service_monitor(CONTROLLER), CONTROLLER.job),
        of_service_monitor(service_monitor(INJECTOR), INJECTOR.job),
    ]


def of_pod_monitor(monitor: Document) -> Document:
    spec = monitor["spec"]
    [endpoint] = spec["podMetricsEndpoints"]
    keeps = [
        _keep("__meta_kubernetes_pod_phase", "Pending|Running"),
        *_selected("pod", spec["selector"]),
        _keep("__meta_kubernetes_pod_container_port_name", endpoint["port"]),
    ]
    names = [
        _copy("__meta_kubernetes_namespace", "namespace"),
        _copy("__meta_kubernetes_pod_name", "pod"),
        _copy("__meta_kubernetes_pod_container_name", "container"),
    ]
    return _config(GATEWAY_JOB, "pod", spec, endpoint, [*keeps, *names])


def of_service_monitor(monitor: Document, job: str) -> Document:
    spec = monitor["spec"]
    [endpoint] = spec["endpoints"]
    keeps = [
        *_selected("service", spec["selector"]),
        _keep("__meta_kubernetes_endpointslice_port_name", endpoint["port"]),
    ]
    names = [
        _copy("__meta_kubernetes_namespace", "namespace"),
        _copy("__meta_kubernetes_service_name", "service"),
        _copy("__meta_kubernetes_pod_name", "pod"),
    ]
    return _config(job, "endpointslice", spec, endpoint, [*keeps, *names])


def _config(job: str, role: str, spec: Document, endpoint: Document, relabel: Sequence[Document]) -> Document:
    namespaces = spec["namespaceSelector"].get("matchNames")
    discovery: Document = {"role": role, **({"namespaces": {"names": namespaces}} if namespaces else {})}
    return {
        "job_name": job,
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "kubernetes_sd_configs": [discovery],
        "relabel_configs": [*relabel, *(_relabeling(one) for one in endpoint["relabelings"])],
    }


def _relabeling(of_monitor: Document) -> Document:
    spelling = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {spelling.get(name, name): value for name, value in of_monitor.items()}


def _selected(what: str, selector: Document) -> list[Document]:
    present = [one["key"] for one in selector.get("matchExpressions", []) if one["operator"] == "Exists"]
    equal = selector.get("matchLabels", {})
    return [
        *(_keep(f"__meta_kubernetes_{what}_labelpresent_{label_of(name)}", "true") for name in present),
        *(_keep(f"__meta_kubernetes_{what}_label_{label_of(name)}", value) for name, value in equal.items()),
    ]


def _keep(label: str, regex: str) -> Document:
    return {"source_labels": [label], "regex": regex, "action": "keep"}


def _copy(source: str, target: str) -> Document:
    return {"source_labels": [source], "target_label": target, "action": "replace"}

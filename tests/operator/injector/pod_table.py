"""Pods of every kind, with what each comes to. The properties (test_properties.py) hold for all that are let in; the
API server is asked about them too (test_api_server.py)."""

from typing import Any, NamedTuple

from tests.operator.injector.pods import Document, container, pod

URL = "http://127.0.0.1:8790/v1"
GUARANTEED = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}


class Row(NamedTuple):
    document: Document
    expected: str
    """`injected`, `unchanged`, or a part of the refusal."""
    qos: str = "BestEffort"
    valid: bool = True
    """For the API server, without cluster features that the tests' one lacks."""


def annotated(**annotations: str) -> Document:
    return pod(annotations={f"llmroute.dev/{name.replace('_', '-')}": text for name, text in annotations.items()})


def with_app(**fields: Any) -> Document:
    return pod(container(**fields))


CONFIG = {"name": "settings", "configMap": {"name": "settings"}}

TABLE: dict[str, Row] = {
    # --- who asks
    "its own label": Row(pod(), "injected"),
    "its namespace's label": Row(pod(labels={}), "injected"),
    "no labels at all": Row({**pod(), "metadata": {"generateName": "x-"}}, "injected"),
    "declined": Row(pod(labels={"llmroute.dev/inject": "false"}), "unchanged"),
    "a label that is neither": Row(pod(labels={"llmroute.dev/inject": "yes"}), 'must be "true" or "false"'),
    "an empty label": Row(pod(labels={"llmroute.dev/inject": ""}), 'must be "true" or "false"'),
    "a mirror pod": Row(pod(annotations={"kubernetes.io/config.mirror": "x"}), "unchanged", valid=False),
    "hostNetwork, asked for": Row(pod(hostNetwork=True), "loopback is the node's"),
    "hostNetwork in such a namespace": Row(pod(labels={}, hostNetwork=True), "unchanged"),
    "Windows, asked for": Row(pod(os={"name": "windows"}), "no gateway for Windows"),
    "Windows in such a namespace": Row(pod(labels={}, os={"name": "windows"}), "unchanged"),
    "Windows by its node": Row(pod(labels={}, nodeSelector={"kubernetes.io/os": "windows"}), "unchanged"),
    "Linux by name": Row(pod(os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "linux"}), "injected"),
    # --- containers
    "two containers": Row(pod(container(), container("worker")), "injected"),
    "an init container": Row(pod(initContainers=[container("migrate")]), "injected"),
    "another sidecar": Row(pod(initContainers=[container("proxy", restartPolicy="Always")]), "injected"),
    "a sidecar and an init container": Row(
        pod(initContainers=[container("proxy", restartPolicy="Always"), container("migrate")]), "injected"
    ),
    "no init containers, as an empty list": Row(pod(initContainers=[]), "injected"),
    "a container of the gateway's name": Row(pod(container("llmroute-gateway")), "has the name of the gateway's"),
    "an app that runs once": Row(pod(restartPolicy="Never"), "injected"),
    "a debugger that was there": Row(
        pod(ephemeralContainers=[{"name": "debugger", "image": "busybox"}]), "injected", valid=False
    ),
    # --- variables
    "no env": Row(with_app(), "injected"),
    "an empty env": Row(with_app(env=[]), "injected"),
    "an env of its own": Row(with_app(env=[{"name": "MODE", "value": "fast"}]), "injected"),
    "a base URL of its own": Row(
        with_app(env=[{"name": "OPENAI_BASE_URL", "value": "https://api.openai.com/v1"}]), "injected"
    ),
    "an empty base URL": Row(with_app(env=[{"name": "OPENAI_BASE_URL", "value": ""}]), "injected"),
    "the gateway's base URL": Row(with_app(env=[{"name": "OPENAI_BASE_URL", "value": URL}]), "injected"),
    "a base URL from a ConfigMap": Row(
        with_app(
            env=[{"name": "OPENAI_BASE_URL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "url"}}}]
        ),
        "injected",
    ),
    "a key of its own": Row(with_app(env=[{"name": "OPENAI_API_KEY", "value": "sk-own"}]), "injected"),
    "envFrom": Row(with_app(envFrom=[{"configMapRef": {"name": "settings"}}]), "injected"),
    "an env that refers to ours": Row(with_app(env=[{"name": "BASE", "value": "$(OPENAI_BASE_URL)"}]), "injected"),
    # --- volumes
    "volumes of its own": Row(pod(volumes=[CONFIG]), "injected"),
    "an empty list of volumes": Row(pod(volumes=[]), "injected"),
    "a subPath mount": Row(
        pod(
            container(volumeMounts=[{"name": "settings", "mountPath": "/etc/app.conf", "subPath": "app.conf"}]),
            volumes=[CONFIG],
        ),
        "injected",
    ),
    "a volume of the gateway's name": Row(
        pod(volumes=[{"name": "llmroute-config", "emptyDir": {}}]), "kept for the gateway's"
    ),
    "a volume of a name like a Secret's": Row(
        pod(volumes=[{"name": "llmroute-secret-openai", "emptyDir": {}}]), "kept for the gateway's"
    ),
    # --- resources
    "no resources": Row(with_app(), "injected"),
    "empty resources": Row(with_app(resources={}), "injected"),
    "requests and limits alike": Row(with_app(resources=GUARANTEED), "injected", "Guaranteed"),
    "limits only": Row(with_app(resources={"limits": {"cpu": "1", "memory": "1Gi"}}), "injected", "Guaranteed"),
    "requests only": Row(with_app(resources={"requests": {"cpu": "100m"}}), "injected", "Burstable"),
    "a limit on memory alone": Row(with_app(resources={"limits": {"memory": "1Gi"}}), "injected", "Burstable"),
    "requests below limits": Row(
        with_app(resources={"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}}),
        "injected",
        "Burstable",
    ),
    "one of two with resources": Row(pod(container(resources=GUARANTEED), container("w")), "injected", "Burstable"),
    "an init container without": Row(
        pod(container(resources=GUARANTEED), initContainers=[container("migrate")]), "injected", "Burstable"
    ),
    "no more than a disk": Row(with_app(resources={"limits": {"ephemeral-storage": "1Gi"}}), "injected"),
    "zero": Row(with_app(resources={"requests": {"cpu": "0"}}), "injected"),
    "resources of the pod as a whole": Row(
        pod(resources={"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
        "injected",
        "Guaranteed",
    ),
    # --- security contexts
    "restricted": Row(
        pod(
            container(
                securityContext={
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                }
            )
        ),
        "injected",
    ),
    "as root": Row(pod(securityContext={"runAsUser": 0}), "injected"),
    "a user and groups": Row(
        pod(securityContext={"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000]}), "injected"
    ),
    "privileged": Row(with_app(securityContext={"privileged": True}), "injected"),
    "another seccomp profile": Row(pod(securityContext={"seccompProfile": {"type": "Unconfined"}}), "injected"),
    # --- ports
    "a port": Row(with_app(ports=[{"containerPort": 8080}]), "injected"),
    "the data port": Row(with_app(ports=[{"containerPort": 8790}]), "declares port 8790"),
    "the admin port": Row(with_app(ports=[{"containerPort": 8791, "protocol": "TCP"}]), "declares port 8791"),
    "the data port in an init container": Row(
        pod(initContainers=[container("p", ports=[{"containerPort": 8790}])]), "container 'p' declares port 8790"
    ),
    "the data port over UDP": Row(with_app(ports=[{"containerPort": 8790, "protocol": "UDP"}]), "injected"),
    "the admin port's number on the node": Row(with_app(ports=[{"containerPort": 80, "hostPort": 8791}]), "injected"),
    "the data port, the gateway's moved": Row(
        pod(container(ports=[{"containerPort": 8790}]), annotations={"llmroute.dev/data-port": "9790"}), "injected"
    ),
    # --- annotations
    "another gateway": Row(annotated(gateway="batch"), "injected"),
    "a gateway's name in capitals": Row(annotated(gateway="Batch"), "annotation llmroute.dev/gateway is 'Batch'"),
    "a gateway's name too long": Row(annotated(gateway="g" * 41), "at most 40"),
    "an empty gateway": Row(annotated(gateway=""), "annotation llmroute.dev/gateway is ''"),
    "resources by annotation": Row(annotated(cpu_request="100m", memory_limit="1Gi"), "injected", "Burstable"),
    "CPU that is none": Row(annotated(cpu_limit="much"), "annotation llmroute.dev/cpu-limit is 'much'"),
    "too little memory": Row(annotated(memory_limit="1Mi"), "from 32Mi to 64Gi"),
    "a negative CPU": Row(annotated(cpu_request="-1"), "from 1m to 64"),
    "a request above its limit": Row(
        annotated(cpu_request="2", cpu_limit="1"), "must not be more than llmroute.dev/cpu-limit, '1'"
    ),
    "a log level": Row(annotated(log_level="debug"), "injected"),
    "no log level": Row(annotated(log_level="loud"), "must be one of debug, info, warning, error"),
    "other ports": Row(annotated(data_port="9000", admin_port="9001"), "injected"),
    "twice the same port": Row(annotated(data_port="9000", admin_port="9000"), "are both 9000"),
    "a low port": Row(annotated(data_port="80"), "from 1024 to 65535"),
    "no port": Row(annotated(admin_port="http"), "from 1024 to 65535"),
    "variables for one container": Row(annotated(containers="app"), "injected"),
    "variables for none": Row(annotated(containers=""), "injected"),
    "variables for another": Row(annotated(containers="ap"), "names 'ap', which is no container of this pod: app"),
    "Anthropic's variables": Row(annotated(anthropic="true"), "injected"),
    "Anthropic's variables, perhaps": Row(annotated(anthropic="maybe"), 'must be "true" or "false"'),
    "a client of a Secret": Row(annotated(client="clients/web"), "injected"),
    "a client, and no route with keys": Row(annotated(client="web"), "apply the route first"),
    "a client that cannot be one": Row(annotated(client="web app"), "must be a client's name"),
    "a mistyped annotation": Row(annotated(log_levle="debug"), "injected"),
    "a label that belies the annotation": Row(
        pod(labels={"llmroute.dev/inject": "true", "llmroute.dev/gateway": "batch"}), "the injector writes the label"
    ),
    # --- the pod's end
    "no time to end": Row(pod(terminationGracePeriodSeconds=0), "injected"),
    "much time to end": Row(pod(terminationGracePeriodSeconds=3600), "injected"),
}
INJECTED = {name: row for name, row in TABLE.items() if row.expected == "injected"}

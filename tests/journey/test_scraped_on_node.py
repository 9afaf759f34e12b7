"""A real Prometheus scrapes the pods by what the chart's PodMonitor and ServiceMonitors say.

prometheus-operator reads them and the PrometheusRule, and writes the configuration; a Prometheus in a pod, with a
service account of the usual rights, is given that very configuration and finds its targets by the node's API server.
"""

import gzip
import json
import os
import ssl
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from llmroute_contract.pods import GATEWAY_CONTAINER
from monitoring.rules import groups
from monitoring.scrape import CONTROLLER, GATEWAY_JOB, INJECTOR, OPERATOR_NAMESPACE, Part
from tests.chart.rendering import MONITORING, render
from tests.children import with_us
from tests.cluster.control_plane import ControlPlane
from tests.cluster.go_build import Unavailable
from tests.cluster.helm import ensure_helm
from tests.cluster.node import RealNode
from tests.cluster.workloads import Document, asking_pod, deployment, labelled
from tests.journey.shop import SECONDS, Shop, open_shop
from tests.monitoring.operator_programs import OperatorPrograms, ensure_operator_programs
from tests.monitoring.prometheus import Prometheus
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = [pytest.mark.node, pytest.mark.timeout(400)]

NAMESPACE = "monitoring"
NAME = "main"
PORT = 9090
REPLICAS = 2
INTERVAL = "1m"
"""For rates: each target is read every 15 s."""
OPERATORS_KINDS = "deployment,service,endpointslice,configmap,secret,poddisruptionbudget,networkpolicy"


def system(*arguments: str) -> tuple[str, ...]:
    return ("-n", OPERATOR_NAMESPACE, *arguments)


@pytest.fixture(scope="module")
def programs() -> OperatorPrograms:
    try:
        return ensure_operator_programs()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no prometheus-operator: {reason}")
        pytest.skip(f"there is no prometheus-operator: {reason}")


@pytest.fixture(scope="module")
def installed(real_node: RealNode, programs: OperatorPrograms) -> Iterator[RealNode]:
    """The chart with its monitoring, as Helm renders it where prometheus-operator's kinds are known."""
    plane = real_node.control_plane
    for path in programs.crds:
        plane.kubectl("apply", "--server-side", "-f", str(path))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"-f={path}" for path in programs.crds))
    plane.kubectl("create", "namespace", OPERATOR_NAMESPACE, check=False)
    _remove(plane)  # what other modules have installed there is of the same names
    documents = render(
        ensure_helm("3"),
        *("--set", "crds.install=false,monitoring.enabled=true,image.registry=llmroute.test,image.pullPolicy=Never"),
        *("--set-string", "image.gateway.tag=1,image.operator.tag=1", "--no-hooks"),
        apis=MONITORING,
    )
    controller = documents["Deployment", "llmroute-controller"]["spec"]["template"]["spec"]["containers"][0]
    controller["args"].append("--certificate-publish-seconds=2")  # there is one API server, and it hears at once
    try:
        applied = yaml.safe_dump_all(documents.values())
        plane.kubectl(*system("apply", "--server-side", "--force-conflicts", "-f", "-"), input=applied)
        for name in ("llmroute-controller", "llmroute-injector"):
            plane.kubectl(*system("rollout", "status", f"deployment/{name}", f"--timeout={SECONDS:.0f}s"))
        yield real_node
    finally:
        _remove(plane)


def _remove(plane: ControlPlane) -> None:
    plane.kubectl("delete", "mutatingwebhookconfiguration", "llmroute-injector", "--ignore-not-found")
    plane.kubectl(*system("delete", OPERATORS_KINDS, "--all", "--ignore-not-found"))


@pytest.fixture(scope="module")
def shop(installed: RealNode) -> Shop:
    """With apps that call all the time, each through the gateway that it was given."""
    shop = open_shop(installed)
    shop.apply(labelled(deployment("web", asking_pod(installed.app), replicas=REPLICAS)))
    shop.kubectl("rollout", "status", "deployment/web", f"--timeout={SECONDS:.0f}s")
    return shop


@dataclass(frozen=True)
class Watched:
    shop: Shop
    prometheus: Prometheus

    def pods_of(self, namespace: str, selector: str) -> set[str]:
        found = self.shop.node.control_plane.get("-n", namespace, "pods", "-l", selector)["items"]
        return {pod["metadata"]["name"] for pod in found}

    @property
    def ours(self) -> str:
        """Matchers of the series of this module's pods: others may have left some on the node."""
        return f'{{job=~"llmroute-.*", namespace=~"{OPERATOR_NAMESPACE}|{self.shop.namespace}"}}'

    def up(self, job: str) -> list[dict[str, str]]:
        """The labels of those that are up."""
        namespaces = (OPERATOR_NAMESPACE, self.shop.namespace)
        found = [target["labels"] for target in self.prometheus.up()[job]]
        return [labels for labels in found if labels["namespace"] in namespaces]

    @property
    def gateways(self) -> set[str]:
        return self.pods_of(self.shop.namespace, "app=web")


@pytest.fixture(scope="module")
def watched(shop: Shop, programs: OperatorPrograms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """All targets are up, and have been read twice since: rates are there."""
    plane = shop.node.control_plane
    plane.kubectl("create", "namespace", NAMESPACE, check=False)
    plane.kubectl("apply", "-f", str(programs.rights))
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(_wishes()))
    with _running_operator(programs, plane, tmp_path_factory.mktemp("prometheus-operator")) as log:
        secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/prometheus-{NAME}"
        rules = f"/api/v1/namespaces/{NAMESPACE}/configmaps/prometheus-{NAME}-rulefiles-0"

        def written() -> str:
            found, ruled = plane.read(secret), plane.read(rules)
            text = gzip.decompress(b64decode(found["data"]["prometheus.yaml.gz"])).decode() if found and ruled else ""
            monitors = ("podMonitor/", f"serviceMonitor/{OPERATOR_NAMESPACE}/llmroute-con", "llmroute-injector/0")
            return text if all(one in text for one in monitors) and (ruled.get("data") or {}) else ""

        try:
            configuration = wait_until(written, "the operator to write the configuration", SECONDS, every=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-4000:]}") from None
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(_prometheus(shop.node, configuration, programs)))
    plane.kubectl("wait", "-n", NAMESPACE, "pod/prometheus", "--for=condition=Ready", f"--timeout={SECONDS:.0f}s")
    trusting = ssl.create_default_context(cafile=str(plane.ca_file))
    headers = {"authorization": f"Bearer {plane.admin_token}"}
    with httpx.Client(verify=trusting, headers=headers, timeout=HANGS_AFTER) as client:
        url = f"{plane.url}/api/v1/namespaces/{NAMESPACE}/pods/prometheus:{PORT}/proxy"
        watched = Watched(shop, Prometheus(url, client))
        enough = f"count(count_over_time(up{watched.ours}[{INTERVAL}]) >= 2)"
        expected = str(REPLICAS + 3)

        def read() -> bool:
            found = watched.prometheus.query(enough)
            return bool(found) and found[0]["value"][1] == expected

        wait_until(read, "every target to have been read twice", SECONDS, every=1)
        yield watched
    plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _wishes() -> list[Document]:
    """What a platform team writes: a Prometheus for all monitors and rules. No replica: there is no image of it."""
    account = {"name": "prometheus", "namespace": NAMESPACE}
    selectors = ("podMonitor", "serviceMonitor", "rule")
    everything: Document = {f"{one}{kind}Selector": {} for one in selectors for kind in ("", "Namespace")}
    spec = {"replicas": 0, "serviceAccountName": "prometheus", "serviceDiscoveryRole": "EndpointSlice", **everything}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "prometheus"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "prometheus"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "Prometheus",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": spec,
        },
    ]


@contextmanager
def _running_operator(programs: OperatorPrograms, plane: ControlPlane, folder: Path) -> Iterator[Path]:
    path = folder / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            with_us([programs.operator, "--web.listen-address=127.0.0.1:0"]),
            env={**os.environ, "KUBECONFIG": str(plane.admin_kubeconfig)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield path
    finally:
        process.kill()
        process.wait()


def _prometheus(node: RealNode, configuration: str, programs: OperatorPrograms) -> list[Document]:
    """The pod that the operator would have made, with what its reloader would fill in."""
    filled = configuration.replace("$(SHARD)", "0").replace("$(POD_NAME)", "prometheus")
    rules = f"prometheus-{NAME}-rulefiles-0"
    container = {
        "name": "prometheus",
        "image": node.app,
        "imagePullPolicy": "Never",
        "command": [
            "/programs/prometheus",
            "--config.file=/etc/prometheus/config/prometheus.yaml",
            "--storage.tsdb.path=/prometheus",
            f"--web.listen-address=:{PORT}",
        ],
        "ports": [{"name": "web", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "web"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "programs", "mountPath": "/programs", "readOnly": True},
            {"name": "config", "mountPath": "/etc/prometheus/config"},
            {"name": "rules", "mountPath": f"/etc/prometheus/rules/{rules}"},
            {"name": "data", "mountPath": "/prometheus"},
        ],
    }
    spec = {
        "serviceAccountName": "prometheus",
        "securityContext": {"runAsUser": 65534, "fsGroup": 65534},
        "containers": [container],
        "volumes": [
            {"name": "programs", "hostPath": {"path": str(programs.folder), "type": "Directory"}},
            {"name": "config", "secret": {"secretName": "config"}},
            {"name": "rules", "configMap": {"name": rules}},
            {"name": "data", "emptyDir": {}},
        ],
    }
    named = {"namespace": NAMESPACE}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "config", **named}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prometheus", **named}, "spec": spec}
    return [{**secret, "stringData": {"prometheus.yaml": filled}}, pod]


def test_every_gateway_is_up_under_the_labels_that_dashboards_use(watched: Watched) -> None:
    assert len(watched.gateways) == REPLICAS
    found = watched.up(GATEWAY_JOB)
    assert {labels["pod"] for labels in found} == watched.gateways
    assert {labels["namespace"] for labels in found} == {watched.shop.namespace}
    assert {labels["gateway"] for labels in found} == {"default"}
    assert {labels["container"] for labels in found} == {GATEWAY_CONTAINER}


@pytest.mark.parametrize(("part", "replicas"), [(CONTROLLER, 1), (INJECTOR, 2)], ids=["controller", "injector"])
def test_each_replica_of_the_operators_parts_is_up(watched: Watched, part: Part, replicas: int) -> None:
    labels = watched.up(part.job)
    selector = f"app.kubernetes.io/component={part.name}"
    assert {one["pod"] for one in labels} == watched.pods_of(OPERATOR_NAMESPACE, selector)
    assert [one["service"] for one in labels] == [part.service] * replicas


def test_nothing_else_is_taken_for_ours_and_no_target_is_down(watched: Watched) -> None:
    found = watched.prometheus.query(f"up{watched.ours}")
    assert [series["value"][1] for series in found] == ["1"] * (REPLICAS + 3)


def board(watched: Watched, name: str) -> dict[str, list[str]]:
    """The queries of a dashboard's panels, by title, as the chart's ConfigMap has them."""
    boards = watched.shop.node.control_plane.get("-n", OPERATOR_NAMESPACE, "configmap", f"{name}-dashboard")
    [text] = boards["data"].values()
    panels = [inner for panel in json.loads(text)["panels"] for inner in (panel, *(panel.get("panels") or ()))]
    chosen = {"$__rate_interval": INTERVAL, "$namespace": watched.shop.namespace, "$gateway": "default", "$pod": ".*"}
    queries = {panel["title"]: [target["expr"] for target in panel.get("targets", ())] for panel in panels}
    for variable, value in chosen.items():
        queries = {title: [one.replace(variable, value) for one in asked] for title, asked in queries.items()}
    return queries


def test_the_overview_shows_the_calls_of_the_pods(watched: Watched) -> None:
    overview = board(watched, "llmroute-overview")
    [calls] = watched.prometheus.query(overview["Calls"][0])
    assert float(calls["value"][1]) > 0
    [failing] = watched.prometheus.query(overview["Calls that fail"][0])
    assert float(failing["value"][1]) == 0


def test_an_apps_dashboard_shows_each_of_its_pods(watched: Watched) -> None:
    found = watched.prometheus.query(board(watched, "llmroute-gateway")["Calls by pod"][0])
    assert {one["metric"]["pod"] for one in found if float(one["value"][1]) > 0} == watched.gateways


def test_the_operators_dashboard_shows_routes_pods_and_admissions(watched: Watched) -> None:
    operator = board(watched, "llmroute-operator")
    states = watched.prometheus.query(operator["Pods by state"][0])
    assert {one["metric"]["state"]: one["value"][1] for one in states} == {
        "synced": str(REPLICAS),
        "behind": "0",
        "unreachable": "0",
    }
    admitted = watched.prometheus.query('sum(llmroute_injector_admissions_total{result="injected"})')
    assert float(admitted[0]["value"][1]) >= REPLICAS
    [ends] = watched.prometheus.query(operator["The certificate ends"][0])
    assert float(ends["value"][1]) > 0
    [read] = watched.prometheus.query(operator["Injectors that Prometheus reads"][0])
    assert read["value"][1] == "2"


def test_the_rules_of_the_chart_are_evaluated_and_nothing_fires(watched: Watched) -> None:
    def rules() -> list[Document]:
        found = [rule for rule in watched.prometheus.rules() if rule["name"].lower().startswith("llmroute")]
        return found if all(rule["health"] == "ok" for rule in found) else []

    found = wait_until(rules, "all rules to have been evaluated", SECONDS, every=1)
    assert len(found) == sum(len(group.rules) for group in groups())
    firing = [rule["name"] for rule in found if rule.get("state") == "firing"]
    assert firing == []

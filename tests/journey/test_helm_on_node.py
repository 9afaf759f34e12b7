"""The life of a release on a real node, by Helm: installed in an earlier version, upgraded, given other values, rolled
back, removed, installed again. Through all of it an app begins a call each ten milliseconds, and no call may be lost.

The tests are the chapters of one story, each going on from where the one before it ended.
"""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from llmroute_contract.llmroute import parse_spec
from tests.chart.cert_manager import CERT_MANAGER_CRDS, play_cert_manager
from tests.cluster.control_plane import CRD, ControlPlane
from tests.cluster.go_build import Unavailable, say
from tests.cluster.helm import ensure_helm
from tests.cluster.node import RealNode
from tests.cluster.release import CRD_NAME, RELEASE, Helm, Named, empty_of_llmroute, everything, images_of
from tests.cluster.workloads import Document, asking_pod, job, labelled, restricted_namespace
from tests.journey.shop import SECONDS, Shop, calls_of, lost, open_shop
from tests.journey.steady import Admissions, Pace, admissions, paced
from tests.waiting import wait_until
from tools.chart import CHART, NAMESPACE, REPOSITORY

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

EARLIER = REPOSITORY / "tests" / "chart" / "first_version"
FIRST_CALL, STORED = "first-call", "stored"
"""Namespaces of their own: the earlier version's quickstart, and a route with every field of the earlier CRD."""
OTHER_VALUES = (
    "--set=injector.replicas=3,injector.logLevel=debug,injector.resources.requests.cpu=30m",
    "--set=injector.settings.logLevel=debug,controller.touchPodsPerSecond=20",
)


def helm_for(node: RealNode, major: str) -> Helm:
    try:
        return Helm(ensure_helm(major), node.control_plane)
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no helm: {reason}")
        pytest.skip(f"there is no helm: {reason}")


@pytest.fixture(scope="module")
def helm(real_node: RealNode) -> Iterator[Helm]:
    """Helm 4, on a node that has nothing of llmroute's but namespaces; at the end as the other tests expect it."""
    helm = helm_for(real_node, "4")
    empty_of_llmroute(helm.plane)
    for name in (NAMESPACE, FIRST_CALL, STORED):
        helm.plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(restricted_namespace(name)))
    yield helm
    helm.uninstall("--ignore-not-found")
    helm.plane.kubectl("delete", "namespace", FIRST_CALL, STORED, "--wait=false")


@pytest.fixture(scope="module")
def before(helm: Helm) -> frozenset[Named]:
    for given in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):  # each namespace gets them, a moment later
        path = f"/api/v1/namespaces/{NAMESPACE}/{given}"
        wait_until(partial(helm.plane.read, path), given, SECONDS)
    return everything(helm.plane)


@pytest.fixture(scope="module")
def images(real_node: RealNode) -> list[str]:
    return list(images_of(real_node))


@pytest.fixture(scope="module")
def installed(helm: Helm, before: frozenset[Named], images: list[str]) -> Helm:
    """The earlier version."""
    helm.put("install", EARLIER, *images)
    return helm


@pytest.fixture(scope="module")
def shop(installed: Helm, real_node: RealNode) -> Shop:
    return open_shop(real_node)


@pytest.fixture(scope="module")
def pace(shop: Shop) -> Iterator[Pace]:
    with paced(shop) as pace:
        yield pace


@pytest.fixture(scope="module")
def made(shop: Shop, pace: Pace) -> Iterator[Admissions]:
    with admissions(shop) as made:
        yield made


def is_true(plane: ControlPlane, namespace: str, route: str, *conditions: str) -> None:
    for condition in conditions:
        wanted = f"--for=condition={condition}"
        plane.kubectl("-n", namespace, "wait", wanted, f"llmroute/{route}", f"--timeout={SECONDS:.0f}s")


def routes(plane: ControlPlane) -> dict[Named, Document]:
    """All that users made."""
    found = plane.get("llmroutes", "-A")["items"]
    return {Named(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]): one for one in found}


def specs(plane: ControlPlane) -> dict[Named, Document]:
    return {named: route["spec"] for named, route in routes(plane).items()}


def schema_in(plane: ControlPlane) -> Document:
    return dict(plane.get("crd", CRD_NAME)["spec"]["versions"][0]["schema"])


def schema_of(crd: Path) -> Document:
    return dict(yaml.safe_load(crd.read_text())["spec"]["versions"][0]["schema"])


def test_the_earlier_version_installs_under_pod_security_restricted(installed: Helm) -> None:
    """`helm install --wait` has come back, so that every pod was Ready; `helm test` asks the injector over TLS."""
    assert "Succeeded" in installed.test()
    pods = installed.plane.get("-n", NAMESPACE, "pods")["items"]
    assert sorted(pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods) == [
        "controller",
        "injector",
        "injector",
    ]


def test_the_quickstart_answers_the_sdk(installed: Helm, real_node: RealNode) -> None:
    """The operator is today's, since there is no image of an earlier one. Its status has fields that the earlier CRD
    does not know, so that the API server takes none; what is served does not wait for that."""
    plane = installed.plane
    plane.kubectl("-n", FIRST_CALL, "apply", "-f", str(EARLIER / "quickstart.yaml"))
    plane.kubectl("-n", STORED, "apply", "-f", str(EARLIER / "route.yaml"))
    for namespace in (FIRST_CALL, STORED):
        path = f"/api/v1/namespaces/{namespace}/configmaps/llmroute-gateway-default"
        wait_until(partial(plane.read, path), f"the configuration of {namespace}", SECONDS)
    asking = labelled(job("first", asking_pod(real_node.app, "2")), client="app")
    plane.kubectl("-n", FIRST_CALL, "apply", "-f", "-", input=yaml.safe_dump(asking))
    plane.kubectl("-n", FIRST_CALL, "wait", "--for=condition=Complete", "job/first", f"--timeout={SECONDS:.0f}s")
    calls = calls_of(plane.kubectl("-n", FIRST_CALL, "logs", "job/first", "-c", "app").stdout)
    assert (len(calls), lost(calls)) == (2, [])


def test_a_labelled_app_is_served(pace: Pace, made: Admissions) -> None:
    pace.goes_on("first")
    wait_until(lambda: made.made > 3, "labelled pods to be made", SECONDS)
    assert (made.refused, made.without_gateway) == ([], 0)


def test_an_upgrade_from_the_earlier_version_keeps_routes_and_serving(
    helm: Helm, pace: Pace, made: Admissions, images: list[str]
) -> None:
    stored = routes(helm.plane)
    assert schema_in(helm.plane) == schema_of(EARLIER / "files" / "crd" / "llmroutes.yaml") != schema_of(CRD)
    helm.put("upgrade", CHART, *images)
    assert helm.history()[-1] != helm.history()[0]
    assert schema_in(helm.plane) == schema_of(CRD)
    found = routes(helm.plane)
    assert found.keys() == stored.keys()
    for named, route in found.items():  # test_earlier_crd.py compares them field by field
        assert route["metadata"]["generation"] == stored[named]["metadata"]["generation"], "nobody has written it"
        assert parse_spec(route["spec"]) == parse_spec(stored[named]["spec"])
    is_true(helm.plane, FIRST_CALL, "quickstart", "Accepted", "Programmed")
    is_true(helm.plane, STORED, "chat", "Accepted", "Programmed")
    assert "Succeeded" in helm.test()
    pace.app.shop.route_to("second")  # the new controller is at work
    pace.goes_on("second")
    assert (made.refused, made.without_gateway) == ([], 0)


def test_an_upgrade_with_other_values_takes_effect_and_nobody_notices(
    helm: Helm, pace: Pace, made: Admissions, images: list[str]
) -> None:
    helm.put("upgrade", CHART, *images, *OTHER_VALUES)
    assert helm.plane.get("-n", NAMESPACE, "deployment", "llmroute-injector")["status"]["readyReplicas"] == 3
    wait_until(lambda: "--log-level=debug" in made.last["args"], "a new pod's gateway to log more", SECONDS)
    pace.app.shop.route_to("first")
    pace.goes_on("first")
    assert (made.refused, made.without_gateway) == ([], 0)


def test_a_rollback_brings_the_values_back_and_nobody_notices(helm: Helm, pace: Pace, made: Admissions) -> None:
    helm.rollback(2)
    wait_until(lambda: "--log-level=info" in made.last["args"], "a new pod's gateway to log less", SECONDS)
    pace.app.shop.route_to("second")
    pace.goes_on("second")
    assert (made.refused, made.without_gateway) == ([], 0)


def test_after_removal_nothing_is_left_but_the_crd_with_its_routes_and_what_pods_mount(
    helm: Helm, shop: Shop, pace: Pace, made: Admissions, before: frozenset[Named]
) -> None:
    stored = specs(helm.plane)
    assert len(stored) == 3
    theirs = {shop.namespace, FIRST_CALL, STORED}
    helm.uninstall()
    pace.goes_on("second")
    assert made.refused == []
    assert specs(helm.plane) == stored

    crd = {Named("CustomResourceDefinition", "<none>", CRD_NAME)}

    def left() -> set[Named]:
        found = everything(helm.plane) - before
        return {one for one in found if one.namespace not in theirs and one.name not in theirs}

    with contextlib.suppress(AssertionError):  # pods end, and what they own goes after them
        wait_until(lambda: left() == crd, "all but the CRD to be gone", SECONDS, every=0.5)
    assert left() == crd
    ours = {one for one in everything(helm.plane) if one.namespace in theirs and one.name.startswith("llmroute")}
    assert ours == {Named("ConfigMap", one, "llmroute-gateway-default") for one in theirs}
    wait_until(lambda: made.without_gateway > 0, "a labelled pod to be made without an injector", SECONDS)


def test_another_installation_takes_up_what_was_left(
    helm: Helm, real_node: RealNode, pace: Pace, images: list[str], tmp_path: Path
) -> None:
    """By the other version of Helm, and with certificates of cert-manager's, whose part is played."""
    other = helm_for(real_node, "3")
    stored = specs(helm.plane)
    CERT_MANAGER_CRDS.install(helm.plane)
    other.run("install", RELEASE, str(CHART), *images, "--set", "certificates.source=cert-manager")
    play_cert_manager(helm.plane, tmp_path)
    for name in ("llmroute-controller", "llmroute-injector"):
        rollout = ["-n", NAMESPACE, "rollout", "status", f"deployment/{name}", f"--timeout={SECONDS:.0f}s"]
        helm.plane.kubectl(*rollout)
    assert "Succeeded" in other.test()
    assert specs(helm.plane) == stored
    pace.app.shop.route_to("first")
    pace.goes_on("first")
    with admissions(pace.app.shop) as made:
        wait_until(lambda: made.made > 3, "labelled pods to be made", SECONDS)
        other.put("upgrade", CHART, *images)  # the controller makes the certificate from now on
        wait_until(lambda: made.made > 6, "labelled pods to be made", SECONDS)
    assert (made.refused, made.without_gateway) == ([], 0)


def test_a_call_began_each_ten_milliseconds_and_none_was_lost_in_all_that_time(pace: Pace) -> None:
    sums = pace.in_step()
    say(
        f"{sums['started']} calls in {sums['seconds']:.0f} s through the life of a release:"
        f" {sums['answered']} answered, {sums['failed']} lost; at most {sums['most']} at once,"
        f" {sums['waited']} waited for a place, the latest began {sums['latest']} s after its time;"
        f" {sums['cpu']} s of CPU"
    )
    assert (sums["failed"], sums["lost"]) == (0, [])
    assert sums["started"] >= sums["seconds"] * 100 - 1
    assert sums["started"] - sums["answered"] <= sums["most"], "those that are under way"
    assert sums["answered"] > 1000
    assert set(pace.app.restarts().values()) == {0}

"""The chart's templates, rendered by the real helm: what comes of which value, and what is refused."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmroute_contract.secrets import secret_directory
from llmroute_operator.certificates.objects import OFFERED
from llmroute_operator.injector.settings import parse_settings
from llmroute_sidecar.command import POD_NAME
from monitoring.rules import INJECTOR_GROUP, groups
from tests.chart.rendering import MONITORING, VALUES, render, template
from tools.chart import CHART, NAMESPACE, OPERATOR, REPOSITORY, rendered

PINNED = "sha256:" + "0" * 64


def arguments_of(deployment: dict[str, Any]) -> list[str]:
    found: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def test_helm_lints_it(helm: Path) -> None:
    for values in VALUES:
        command = [str(helm), "lint", "--strict", str(CHART), "--kube-version", "1.37.2", "-f", str(values)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_defaults_are_the_whole_cluster_with_certificates_of_our_own(helm: Path) -> None:
    found = render(helm)
    assert ("ClusterRole", "llmroute-controller") in found
    assert ("Role", "llmroute-controller") not in found
    assert (
        found["CustomResourceDefinition", "llmroutes.llmroute.dev"]["metadata"]["annotations"][
            "helm.sh/resource-policy"
        ]
        == "keep"
    )
    controller = found["Deployment", "llmroute-controller"]
    assert controller["spec"]["replicas"] == 1
    assert controller["spec"]["strategy"] == {"type": "Recreate"}
    assert "--certificates=self" in arguments_of(controller)
    assert found["Deployment", "llmroute-injector"]["spec"]["replicas"] == 2
    secret = found["Secret", "llmroute-injector-tls"]
    assert "data" not in secret, "Helm would put it back at each upgrade"
    webhooks = found["MutatingWebhookConfiguration", "llmroute-injector"]["webhooks"]
    assert all("caBundle" not in webhook["clientConfig"] for webhook in webhooks)
    assert not any(one["apiVersion"].startswith("monitoring") for one in found.values())


def test_another_namespace_is_named_everywhere(helm: Path) -> None:
    text = template(helm, "-n", "elsewhere").stdout
    assert "llmroute-system" not in text


def test_listed_namespaces_get_a_role_each_and_the_webhook_asks_of_no_other(helm: Path) -> None:
    found = render(helm, "--set", "namespaces={shop,pay}")
    assert ("ClusterRole", "llmroute-controller") not in found
    for namespace in ("shop", "pay"):
        assert ("Role", f"{namespace}/llmroute-controller") in found
        binding = found["RoleBinding", f"{namespace}/llmroute-controller"]
        assert binding["subjects"][0]["namespace"] == NAMESPACE
        assert f"--namespace={namespace}" in arguments_of(found["Deployment", "llmroute-controller"])
    for webhook in found["MutatingWebhookConfiguration", "llmroute-injector"]["webhooks"]:
        only = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "pay"]}
        assert only in webhook["namespaceSelector"]["matchExpressions"]


def test_who_makes_the_certificate_changes_nothing_of_what_injectors_serve(helm: Path) -> None:
    """The controller brings it to where it is served, so that a change of that replaces no injector."""
    ours, theirs = render(helm), render(helm, "--set", "certificates.source=cert-manager")
    assert "--certificates=cert-manager" in arguments_of(theirs["Deployment", "llmroute-controller"])
    for same in (
        ("Deployment", "llmroute-injector"),
        ("Secret", "llmroute-injector-tls"),
        ("Role", "llmroute-controller-certificates"),
        ("MutatingWebhookConfiguration", "llmroute-injector"),
    ):
        assert theirs[same] == ours[same]
    assert theirs["Certificate", "llmroute-injector"]["spec"]["secretName"] == OFFERED
    without = render(helm, "--set", "injector.enabled=false,certificates.source=cert-manager")
    assert not any("certificates" in one for one in arguments_of(without["Deployment", "llmroute-controller"]))


def test_without_an_issuer_of_yours_an_authority_outlives_the_certificates_that_it_signs(helm: Path) -> None:
    """What the API server trusts changes seldom."""
    found = render(helm, "--set", "certificates.source=cert-manager")
    issuer = found["Certificate", "llmroute-injector"]["spec"]["issuerRef"]
    authority = found["Certificate", "llmroute-authority"]["spec"]
    assert found[issuer["kind"], issuer["name"]]["spec"] == {"ca": {"secretName": authority["secretName"]}}
    assert authority["isCA"]
    assert authority["privateKey"]["rotationPolicy"] == "Never"
    assert ("Issuer", authority["issuerRef"]["name"]) in found
    yours = render(helm, "--set", "certificates.source=cert-manager,certificates.issuerRef.name=corporate")
    assert yours["Certificate", "llmroute-injector"]["spec"]["issuerRef"] == {"name": "corporate"}
    assert {kind for kind, _ in yours if kind in ("Issuer", "Certificate")} == {"Certificate"}


def test_a_long_namespace_makes_no_common_name_that_is_too_long(helm: Path) -> None:
    text = template(helm, "-n", "n" * 63, "--set", "certificates.source=cert-manager").stdout
    names = [one["spec"].get("commonName") for one in yaml.safe_load_all(text) if one and one["kind"] == "Certificate"]
    assert names == [None, "llmroute-authority"]


def test_what_is_kept_at_removal_is_said_on_the_crd(helm: Path) -> None:
    name = "CustomResourceDefinition", "llmroutes.llmroute.dev"
    assert render(helm)[name]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    gone = render(helm, "--set", "crds.keep=false")[name]["metadata"].get("annotations") or {}
    assert "helm.sh/resource-policy" not in gone
    assert name not in render(helm, "--set", "crds.install=false")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--set", f"image.gateway.digest={PINNED}"],
        ["--set", "injector.settings.logLevel=debug,injector.settings.anthropic=true,injector.settings.dataPort=9000"],
        ["--set", "sharedState.url=redis://valkey:6379,sharedState.secret=valkey"],
    ],
)
def test_the_injector_can_read_its_settings(helm: Path, arguments: list[str]) -> None:
    text = render(helm, *arguments)["ConfigMap", "llmroute-injector"]["data"]["settings.yaml"]
    settings = parse_settings(text)
    assert settings.allow_unpinned_image == (PINNED not in settings.image)
    assert settings.shared_state_secret == ("valkey" if "shared" in str(arguments) else None)


def test_monitoring_is_rendered_where_its_kinds_are_known(helm: Path) -> None:
    without = render(helm, "--set", "monitoring.enabled=true")
    assert not any(kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule") for kind, _ in without)
    assert ("ConfigMap", "llmroute-overview-dashboard") in without
    found = render(helm, "--set", "monitoring.enabled=true,monitoring.labels.release=prometheus", apis=MONITORING)
    for kind, name in (
        ("PodMonitor", "llmroute-gateways"),
        ("ServiceMonitor", "llmroute-controller"),
        ("PrometheusRule", "llmroute"),
    ):
        assert found[kind, name]["metadata"]["labels"]["release"] == "prometheus"
    rules = yaml.safe_load((REPOSITORY / "manifests/monitoring/prometheusrule.yaml").read_text())
    assert found["PrometheusRule", "llmroute"]["spec"] == rules["spec"]


def test_the_injector_is_monitored_where_it_is_installed(helm: Path) -> None:
    found = render(helm, "--set", "monitoring.enabled=true", apis=MONITORING)
    monitor, service = found["ServiceMonitor", "llmroute-injector"], found["Service", "llmroute-injector-metrics"]
    pod = found["Deployment", "llmroute-injector"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint], [port] = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    [container] = pod["spec"]["containers"]
    assert {"name": "metrics", "containerPort": port["targetPort"]} in container["ports"]
    allowed = found["NetworkPolicy", "llmroute-injector"]["spec"]["ingress"][0]["ports"]
    assert {"protocol": "TCP", "port": port["targetPort"]} in allowed

    without = render(helm, "--set", "monitoring.enabled=true,injector.enabled=false", apis=MONITORING)
    assert not [name for kind, name in without if kind in ("Service", "ServiceMonitor") and "injector" in name]
    names = {group["name"] for group in without["PrometheusRule", "llmroute"]["spec"]["groups"]}
    assert names == {group.name for group in groups()} - {INJECTOR_GROUP}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://docs.example/runbooks/{name}.html", "https://docs.example/runbooks/LLMRouteGatewayDown.html"),
        ("https://git.example/{name}/{name}.md", "https://git.example/LLMRouteGatewayDown/LLMRouteGatewayDown.md"),
        ("", ""),
    ],
)
def test_alerts_name_their_pages_where_the_values_say_they_are(
    helm: Path, tmp_path: Path, value: str, expected: str
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"monitoring": {"enabled": True, "runbookUrl": value}}))
    spec = render(helm, "-f", str(values), apis=MONITORING)["PrometheusRule", "llmroute"]["spec"]
    rules = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
    page = rules["LLMRouteGatewayDown"]["annotations"].get("runbook_url", "")
    assert page == expected
    assert all(rule["annotations"]["summary"] for rule in rules.values())


def test_a_shared_gateway_is_found_by_its_controller_and_monitor(helm: Path) -> None:
    found = render(helm, "--set", "sharedGateway.enabled=true,sharedGateway.autoscaling.enabled=true")
    template_ = found["Deployment", "llmroute-gateway"]["spec"]["template"]
    assert template_["metadata"]["labels"]["llmroute.dev/gateway"] == "default"
    container = template_["spec"]["containers"][0]
    assert container["name"] == "llmroute-gateway"
    assert {port["name"] for port in container["ports"]} == {"http", "llmroute-admin"}
    assert "replicas" not in found["Deployment", "llmroute-gateway"]["spec"], "the autoscaler's"


def test_a_shared_state_reaches_each_kind_of_gateway(helm: Path) -> None:
    """Its address through the controller, who writes it into each gateway's ConfigMap; its Secret as a mount."""
    values = "sharedState.url=rediss://valkey:6379/0,sharedState.secret=valkey,sharedGateway.enabled=true"
    found = render(helm, "--set", values, "--set", "sharedGateway.secrets={openai}")
    options = arguments_of(found["Deployment", "llmroute-controller"])
    assert "--shared-state-url=rediss://valkey:6379/0" in options
    assert "--shared-state-secret=valkey" in options
    settings = parse_settings(found["ConfigMap", "llmroute-injector"]["data"]["settings.yaml"])
    assert settings.shared_state_secret == "valkey"
    pod = found["Deployment", "llmroute-gateway"]["spec"]["template"]["spec"]
    mounted = {one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    assert mounted == {"openai", "valkey"}
    paths = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert {secret_directory("openai"), secret_directory("valkey")} <= paths


def test_a_shared_gateway_knows_its_pods_name_by_which_limits_are_shared_out(helm: Path) -> None:
    found = render(helm, "--set", "sharedGateway.enabled=true")
    container = found["Deployment", "llmroute-gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("injector.replicas=none", "injector/replicas|injector.replicas"),
        ("injector.replica=3", "replica"),
        ("certificates.source=vault", "certificates/source|certificates.source"),
        ("controller.logLevel=loud", "controller/logLevel|controller.logLevel"),
        ("image.gateway.digest=latest", "image/gateway/digest|image.gateway.digest"),
        ("sharedState.url=http://valkey", "sharedState/url|sharedState.url"),
        ("sharedState.secret=valkey", "sharedState/url|sharedState.url"),
        ("namespaces={Shop}", "namespaces"),
        ("monitoring.runbookUrl=https://docs.example/runbooks", "monitoring/runbookUrl|monitoring.runbookUrl"),
        ("injector.settings.logLvel=debug", "logLvel"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(helm: Path, value: str, said: str) -> None:
    done = template(helm, "--set", value, check=False)
    assert done.returncode != 0
    assert any(word in done.stderr for word in said.split("|")), done.stderr


def test_the_manifests_for_kustomize_are_the_charts(helm: Path) -> None:
    assert rendered(helm) == OPERATOR.read_text(), "manifests/operator.yaml is stale: run python -m tools.chart"

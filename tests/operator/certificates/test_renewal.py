"""Renewal on the real API server, by the real controller under exactly its rights."""

import base64
import json
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from llmroute_operator.certificates.objects import OFFERED, service_names
from tests.cluster.control_plane import ControlPlane
from tests.operator.certificates.webhook_server import (
    NAME,
    NAMESPACE,
    bundles,
    handshake,
    machine_address,
    running_webhook,
    secret,
    wait_until_served,
)
from tests.operator.controller_process import CERTIFICATES_RBAC, SERVICE_ACCOUNT, grant_rights, start
from tests.sidecar.certificates import Authority
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

SHORT = (
    *("--certificates", "self", "--injector-namespace", NAMESPACE),
    *(
        "--certificate-lifetime-seconds",
        "30",  # renewed when ten are left: a controller that is started anew has to make it in time
        "--certificate-publish-seconds",
        "1",
        "--certificate-retire-seconds",
        "2",
    ),
)
LONG = (*SHORT, "--certificate-lifetime-seconds", "86400")


@dataclass
class Callers:
    """Admissions through the API server, and handshakes by the published bundle, one after another without a pause."""

    admissions: int = 0
    handshakes: int = 0
    certificates: set[bytes] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def have_seen(self, certificates: int) -> bool:
        return len(self.certificates) >= certificates


@dataclass
class Webhook:
    control_plane: ControlPlane
    address: str
    port: int
    namespace: str

    def admit(self) -> None:
        """A ConfigMap that the webhook is asked about, as a dry run: it is not stored. Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.control_plane.ca_file))
        request = urllib.request.Request(
            f"{self.control_plane.url}/api/v1/namespaces/{self.namespace}/configmaps?dryRun=All",
            json.dumps({"metadata": {"name": "asked"}}).encode(),
            {"authorization": f"Bearer {self.control_plane.admin_token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30, context=context):
            pass

    def wait_until_served(self) -> bytes:
        return wait_until_served(self.control_plane, self.address, self.port)

    @contextmanager
    def called(self) -> Iterator[Callers]:
        callers, stop = Callers(), threading.Event()

        def admissions() -> None:
            while not stop.is_set():
                try:
                    self.admit()
                    callers.admissions += 1
                except OSError as error:
                    text = error.read().decode() if isinstance(error, urllib.request.HTTPError) else str(error)
                    callers.failures.append(f"admission: {text}")

        def handshakes() -> None:
            while not stop.is_set():
                for trusted in bundles(self.control_plane):
                    try:
                        callers.certificates.add(handshake(self.address, self.port, trusted))
                        callers.handshakes += 1
                    except OSError as error:
                        callers.failures.append(f"handshake: {error}")

        threads = [threading.Thread(target=target, daemon=True) for target in (admissions, handshakes)]
        for thread in threads:
            thread.start()
        try:
            yield callers
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)


@pytest.fixture
def webhook(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Webhook]:
    address = machine_address()
    if address is None or not control_plane.is_ours:
        pytest.skip("the API server cannot call a webhook of this machine")
    grant_rights(control_plane, [])
    control_plane.kubectl("apply", "-f", str(CERTIFICATES_RBAC))
    namespace = control_plane.new_namespace()
    try:
        with running_webhook(control_plane, tmp_path, address, namespace) as port:
            yield Webhook(control_plane, address, port, namespace)
    finally:  # other tests look at what the service account may do without
        control_plane.kubectl("delete", "-f", str(CERTIFICATES_RBAC), "--ignore-not-found")


@pytest.mark.timeout(240)
def test_renewals_lose_no_admission_and_no_handshake(control_plane: ControlPlane, webhook: Webhook) -> None:
    """Three certificates, the controller killed and started anew on the way, two of them at once at the end."""
    controllers = [start(control_plane, *SHORT)]
    try:
        webhook.wait_until_served()
        webhook.admit()
        with webhook.called() as callers:
            wait_until(partial(callers.have_seen, 2), "two certificates")
            controllers[-1].close()  # as kill -9
            controllers.append(start(control_plane, *SHORT))
            controllers.append(start(control_plane, *SHORT))
            wait_until(partial(callers.have_seen, 3), "three certificates")
        assert callers.failures == []
        assert callers.admissions > 50
        assert callers.handshakes > 50
    finally:
        for controller in controllers:
            controller.close()


@pytest.mark.timeout(240)
def test_a_change_of_who_makes_them_loses_no_admission_and_no_handshake(
    control_plane: ControlPlane, webhook: Webhook, tmp_path: Path
) -> None:
    """From the controller to cert-manager, whose part is played: its certificate comes late, it is renewed by another
    authority; and back to the controller."""
    controllers = [start(control_plane, *LONG)]

    def changes_to(source: str) -> None:
        controllers[-1].close()
        controllers.append(start(control_plane, *LONG, "--certificates", source))

    def is_trusted_alone(authority: Authority) -> bool:
        return {one.strip() for one in bundles(control_plane)} == {authority.pem.strip().encode()}

    try:
        first = webhook.wait_until_served()
        with webhook.called() as callers:
            changes_to("cert-manager")
            wait_until(
                lambda: f"there is no Secret {OFFERED}" in controllers[-1].log_path.read_text(), "it to tell", 60
            )
            assert callers.certificates == {first}
            for seen, name in enumerate(("issuer", "another-issuer"), 2):
                authority = Authority(tmp_path / name)
                offer(control_plane, authority)
                wait_until(partial(callers.have_seen, seen), f"{seen} certificates", 60)
                wait_until(partial(is_trusted_alone, authority), "its authority to be trusted alone", 60)
            changes_to("self")
            looked = partial(controllers[-1].metric, "injector_certificate_looks_total", result="success")
            wait_until(lambda: looked() > 3, "it to look", 60)
        assert callers.failures == []
        assert len(callers.certificates) == 3, "what is served is good until it is due"
        assert webhook.wait_until_served() in callers.certificates - {first}
        assert "PRIVATE" not in "".join(one.log_path.read_text() for one in controllers)
    finally:
        for controller in controllers:
            controller.close()
        control_plane.kubectl("delete", "secret", OFFERED, "-n", NAMESPACE, "--ignore-not-found")


def offer(control_plane: ControlPlane, authority: Authority) -> None:
    """What cert-manager does for a Certificate that is due."""
    certificate, key = authority.certificate(",".join(f"DNS:{one}" for one in sorted(service_names(NAMESPACE))))
    values = {"tls.crt": certificate.read_text(), "tls.key": key.read_text(), "ca.crt": authority.pem}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": OFFERED, "namespace": NAMESPACE},
        "stringData": values,
    }
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(secret))


def test_hand_edits_are_mended_and_then_nothing_is_written(control_plane: ControlPlane, webhook: Webhook) -> None:
    controller = start(control_plane, *LONG)
    try:
        first = webhook.wait_until_served()

        path = "/webhooks/1/clientConfig/caBundle"
        edit = json.dumps([{"op": "remove", "path": path}])
        control_plane.kubectl("patch", "mutatingwebhookconfiguration", NAME, "--type=json", "-p", edit)
        wait_until(lambda: len(set(bundles(control_plane))) == 1 and bundles(control_plane)[0], "both to trust it")
        assert webhook.wait_until_served() == first

        garbage = base64.b64encode(b"no certificate").decode()
        edit = json.dumps({"data": {"tls.crt": garbage}})
        control_plane.kubectl("patch", "secret", f"{NAME}-tls", "-n", NAMESPACE, "--type=merge", "-p", edit)
        wait_until(lambda: secret(control_plane)["tls.crt"] != garbage, "another certificate")
        second = webhook.wait_until_served()
        assert second != first
        assert controller.said("certificate: something is amiss")

        control_plane.kubectl("delete", "secret", f"{NAME}-tls", "-n", NAMESPACE)
        wait_until(
            lambda: any("kubectl create secret" in line.get("problem", "") for line in controller.lines),
            "it to tell",
        )
        control_plane.kubectl("create", "secret", "generic", f"{NAME}-tls", "-n", NAMESPACE)
        wait_until(lambda: "tls.crt" in secret(control_plane), "a certificate in it")
        assert webhook.wait_until_served() != second

        wait_until(lambda: all(one.count(b"BEGIN") == 1 for one in bundles(control_plane)), "old ones to be dropped")
        assert set(secret(control_plane)) == {"tls.crt", "tls.key", "ca.crt"}
        versions = _versions(control_plane)
        looks = controller.metric("injector_certificate_looks_total", result="success")
        wait_until(
            lambda: controller.metric("injector_certificate_looks_total", result="success") > looks + 10, "10 looks"
        )
        assert _versions(control_plane) == versions
        text = controller.log_path.read_text()
        assert "PRIVATE" not in text
        assert controller.end() == 0
    finally:
        controller.close()


RIGHTS = [("get", "secrets"), ("patch", "secrets"), ("get", "mutatingwebhookconfigurations")]
RIGHTS += [("patch", "mutatingwebhookconfigurations")]


def test_its_rights_are_of_three_objects_by_name(control_plane: ControlPlane, webhook: Webhook) -> None:
    def may(verb: str, kind: str, *more: str) -> bool:
        asked = ["auth", "can-i", verb, kind, f"--as={SERVICE_ACCOUNT}", *more]
        return control_plane.kubectl(*asked, check=False).stdout.strip() == "yes"

    configurations = "mutatingwebhookconfigurations"
    for verb in ("get", "patch"):
        assert may(verb, f"secrets/{NAME}-tls", "-n", NAMESPACE)
        assert may(verb, f"{configurations}/{NAME}")
        assert may(verb, f"secrets/{OFFERED}", "-n", NAMESPACE) == (verb == "get")
        assert not may(verb, "secrets/another", "-n", NAMESPACE)
        assert not may(verb, f"secrets/{NAME}-tls", "-n", "default")
        assert not may(verb, f"{configurations}/another")
    for verb in ("create", "delete", "list", "watch", "update"):
        assert not may(verb, "secrets", "-n", NAMESPACE)
        assert not may(verb, configurations)


@pytest.mark.parametrize(("verb", "kind"), RIGHTS, ids=["-".join(right) for right in RIGHTS])
def test_each_of_its_rights_is_needed(control_plane: ControlPlane, webhook: Webhook, verb: str, kind: str) -> None:
    role = ["role", "-n", NAMESPACE] if kind == "secrets" else ["clusterrole"]
    kept = "get" if verb == "patch" else "patch"
    edit = json.dumps([{"op": "replace", "path": "/rules/0/verbs", "value": [kept]}])
    control_plane.kubectl("patch", *role, "llmroute-controller-certificates", "--type=json", "-p", edit)
    controller = start(control_plane, *LONG)
    try:
        refusal = f'cannot {verb} resource "{kind}"'
        wait_until(lambda: refusal in controller.log_path.read_text().replace("\\", ""), f"the log to say {refusal}")
    finally:
        controller.close()
        control_plane.kubectl("apply", "-f", str(CERTIFICATES_RBAC))


def _versions(control_plane: ControlPlane) -> list[str]:
    paths = (
        f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{NAME}",
        f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}-tls",
    )
    return [control_plane.read(path)["metadata"]["resourceVersion"] for path in paths]

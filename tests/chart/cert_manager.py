"""cert-manager as the chart meets it: its CRDs, as its Go module ships them, and its part played on a node.

cert-manager itself does not run here. What it would do for the chart's objects is done as those objects say it:
a Certificate's Secret is made, and `inject-ca-from` puts that Secret's authority into the webhook.
"""

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.crds import ForeignCrds
from tests.cluster.go_build import GoBuild, Unavailable, go_environment
from tests.sidecar.certificates import Authority

CERT_MANAGER = "1.21.2"
_MODULE = "github.com/cert-manager/cert-manager"
_WEBHOOK = "mutatingwebhookconfiguration/llmroute-injector"


def _fetch(build: GoBuild, wanted: Sequence[Path]) -> None:
    command = [build.go, "mod", "download", "-json", f"{_MODULE}@v{CERT_MANAGER}"]
    done = subprocess.run(command, capture_output=True, text=True, env=go_environment(), timeout=300)
    if done.returncode != 0:
        raise Unavailable(f"{_MODULE} cannot be had: {done.stdout}{done.stderr}")
    module = Path(json.loads(done.stdout)["Dir"])
    for path in wanted:
        build.keep(module / "deploy" / "crds" / path.name)


CERT_MANAGER_CRDS = ForeignCrds("cert-manager", CERT_MANAGER, "cert-manager.io", ("certificates", "issuers"), _fetch)


def play_cert_manager(plane: ControlPlane, folder: Path) -> None:
    """For the Certificate that the webhook's annotation names, as the object itself asks."""
    webhook = plane.get(_WEBHOOK)
    namespace, _, name = webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"].partition("/")
    spec = plane.get("-n", namespace, "certificates.cert-manager.io", name)["spec"]
    authority = Authority(folder)
    certificate, key = authority.certificate(",".join(f"DNS:{one}" for one in spec["dnsNames"]))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": spec["secretName"], "namespace": namespace},
        "stringData": {"tls.crt": certificate.read_text(), "tls.key": key.read_text(), "ca.crt": authority.pem},
    }
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(secret))
    bundle = base64.b64encode(authority.pem.encode()).decode()
    places = range(len(webhook["webhooks"]))
    patch = [{"op": "add", "path": f"/webhooks/{one}/clientConfig/caBundle", "value": bundle} for one in places]
    plane.kubectl("patch", _WEBHOOK, "--type=json", "-p", json.dumps(patch))

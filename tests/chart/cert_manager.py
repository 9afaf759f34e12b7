"""cert-manager as the chart meets it: its CRDs, as its Go module ships them, and its part played on a node.

cert-manager itself does not run here. What it would do for the chart's objects is done as those objects say it:
a Certificate's Secret is made, and `inject-ca-from` puts that Secret's authority into the webhook.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.go_build import Unavailable, cache_root, go_build, go_environment, locked
from tests.sidecar.certificates import Authority

CERT_MANAGER = "1.21.2"
KINDS = ("certificates", "issuers")
_MODULE = "github.com/cert-manager/cert-manager"
_HOW_TO = "install Go 1.26 or newer"
_WEBHOOK = "mutatingwebhookconfiguration/llmroute-injector"


def ensure_cert_manager_crds() -> Sequence[Path]:
    """Those of KINDS, kept in the cache. Raises Unavailable."""
    folder = cache_root() / f"cert-manager-{CERT_MANAGER}"
    found = [folder / f"cert-manager.io_{kind}.yaml" for kind in KINDS]
    with locked(folder, "cert-manager's CRDs"):
        if not all(path.exists() for path in found):
            _fetch(folder, found)
    return found


def _fetch(folder: Path, wanted: Sequence[Path]) -> None:
    with go_build(folder, _HOW_TO) as build:
        command = [build.go, "mod", "download", "-json", f"{_MODULE}@v{CERT_MANAGER}"]
        done = subprocess.run(command, capture_output=True, text=True, env=go_environment(), timeout=300)
        if done.returncode != 0:
            raise Unavailable(f"{_MODULE} cannot be had: {done.stdout}{done.stderr}")
        module = Path(json.loads(done.stdout)["Dir"])
        for path in wanted:
            shutil.copyfile(module / "deploy" / "crds" / path.name, path)


def install_crds(plane: ControlPlane) -> None:
    """Raises Unavailable."""
    for path in ensure_cert_manager_crds():
        plane.kubectl("apply", "--server-side", "-f", str(path))
    names = [f"crd/{kind}.cert-manager.io" for kind in KINDS]
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)


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

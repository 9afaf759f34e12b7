"""cert-manager as the chart meets it: its CRDs, as its Go module ships them, and its part played on a node.

cert-manager itself does not run here. What it would do for the chart's objects is done as those objects say it: a
Certificate's Secret is made.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.crds import ForeignCrds
from tests.cluster.go_build import GoBuild, Unavailable, go_environment
from tests.sidecar.certificates import Authority
from tools.chart import NAMESPACE

CERT_MANAGER = "1.21.2"
_MODULE = "github.com/cert-manager/cert-manager"


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
    """For the chart's Certificate, as the object itself asks."""
    spec = plane.get("-n", NAMESPACE, "certificates.cert-manager.io", "llmroute-injector")["spec"]
    authority = Authority(folder)
    certificate, key = authority.certificate(",".join(f"DNS:{one}" for one in spec["dnsNames"]))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": spec["secretName"], "namespace": NAMESPACE},
        "stringData": {"tls.crt": certificate.read_text(), "tls.key": key.read_text(), "ca.crt": authority.pem},
    }
    plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(secret))

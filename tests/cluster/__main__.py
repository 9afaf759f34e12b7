"""`python -m tests.cluster`: makes what the tests of a control plane, of a real node and of monitoring run on, first.

Tests have a time limit and their output is kept back; what takes minutes is made here, and told.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.chart.cert_manager import CERT_MANAGER_CRDS
from tests.cluster.binaries import ensure
from tests.cluster.go_build import Unavailable, say
from tests.cluster.helm import HELM, ensure_helm
from tests.cluster.images import made_images, more_images
from tests.cluster.node import check_machine
from tests.cluster.node_binaries import ensure_node
from tests.compose.compose_go import ensure_loader
from tests.monitoring.operator_crds import PROMETHEUS_OPERATOR_CRDS
from tests.monitoring.operator_programs import ensure_operator_programs


def main() -> int:
    control_plane = True if os.environ.get("LLMROUTE_TEST_KUBECONFIG") else _made("a control plane", ensure)
    node = control_plane and _made("a real node", check_machine, ensure_node, made_images, more_images)
    helm = [partial(ensure_helm, major) for major in HELM]
    crds = [PROMETHEUS_OPERATOR_CRDS.ensure, CERT_MANAGER_CRDS.ensure]
    checks = _made("what other tools make of our files", *crds, ensure_loader, *helm)
    scrape = node and _made("a Prometheus that Kubernetes tells its targets", ensure_operator_programs)
    return 1 if os.environ.get("CI") and not (control_plane and node and checks and scrape) else 0


def _made(what: str, *steps: Callable[[], object]) -> bool:
    began = time.monotonic()
    try:
        for step in steps:
            step()
    except Unavailable as reason:
        print(f"SKIPPING ALL TESTS THAT NEED {what.upper()}: {reason}", file=sys.stderr)
        return False
    say(f"for {what}: all there after {time.monotonic() - began:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())

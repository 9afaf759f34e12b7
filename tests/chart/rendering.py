"""What the chart renders to, by the real helm."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.chart import CHART, KUBERNETES, NAMESPACE

Document = dict[str, Any]
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
MONITORING = [f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule")]


def template(helm: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(helm), "template", "llmroute", str(CHART), "-n", NAMESPACE, "--kube-version", KUBERNETES, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done


def render(helm: Path, *arguments: str, apis: Sequence[str] = ()) -> Mapping[tuple[str, str], Document]:
    """Objects by kind and name (with the namespace, where it is not the release's). Two of one name are a bug."""
    known = [word for api in apis for word in ("--api-versions", api)]
    found: dict[tuple[str, str], Document] = {}
    for one in yaml.safe_load_all(template(helm, *arguments, *known).stdout):
        if one:
            metadata = one["metadata"]
            elsewhere = metadata.get("namespace", NAMESPACE) != NAMESPACE
            key = (one["kind"], f"{metadata['namespace']}/{metadata['name']}" if elsewhere else metadata["name"])
            assert key not in found, key
            found[key] = one
    return found

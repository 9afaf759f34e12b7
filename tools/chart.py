"""What of the chart has a source elsewhere: rights, webhook, CRD and monitoring are manifests/', README's table is
values.yaml's comments, and manifests/operator.yaml is the chart as Helm renders it.

The first two are written by `make generate`; the last needs helm: `python -m tools.chart`.
"""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

KUBERNETES = "1.37.2"
REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "charts" / "llmroute"
OPERATOR = REPOSITORY / "manifests" / "operator.yaml"
NAMESPACE = "llmroute-system"
_COPIED = ("crd/", "rbac/", "webhook/", "monitoring/")
_HELMS_OWN = ("helm.sh/chart", "app.kubernetes.io/managed-by")
_HEADER = "# Generated from charts/llmroute by `python -m tools.chart`. Do not edit.\n"


def copies(manifests: Mapping[Path, str]) -> Mapping[Path, str]:
    """The chart's copies of files below manifests/: of those being generated, and of those written by hand."""
    folder = REPOSITORY / "manifests"
    by_hand = {
        path: path.read_text() for name in ("rbac", "webhook") for path in sorted((folder / name).glob("*.yaml"))
    }
    return {
        CHART / "files" / path.relative_to(folder): text
        for path, text in {**by_hand, **manifests}.items()
        if path.is_relative_to(folder)
        and str(path.relative_to(folder)).startswith(_COPIED)
        and "without-operator" not in path.parts
        and path.name != "kustomization.yaml"
    }


def readme() -> str:
    """charts/llmroute/README.md: every value with its comment and its default."""
    rows = "".join(f"| `{name}` | `{default}` | {text} |\n" for name, default, text in _values())
    return f"""<!-- Generated from values.yaml by `make generate`. Do not edit. -->
# The chart llmroute

```
helm install llmroute charts/llmroute --namespace {NAMESPACE} --create-namespace
```

docs/install.md tells of the ways to install, upgrade and remove it. One release a cluster. Helm 3 and 4.

| value | default | |
|---|---|---|
{rows}"""


def _values() -> Iterator[tuple[str, str, str]]:
    """Walks values.yaml by its indentation, which is two spaces a level."""
    path: list[str] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.removeprefix("#").strip())
        elif not text:
            comment = []
        else:
            key, _, value = text.partition(":")
            del path[(len(line) - len(line.lstrip())) // 2 :]
            path.append(key)
            if value.strip():
                yield ".".join(path), value.strip(), " ".join(comment)
            comment = []


def rendered(helm: Path) -> str:
    """manifests/operator.yaml: what kustomization.yaml takes from no other file."""
    command = [str(helm), "template", "llmroute", str(CHART), "--namespace", NAMESPACE, "--no-hooks"]
    command += ["--set", "crds.install=false", "--kube-version", KUBERNETES]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    elsewhere = {
        (one["kind"], one["metadata"]["name"])
        for name in ("rbac", "webhook")
        for path in (REPOSITORY / "manifests" / name).glob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
    }
    ours = [one for one in yaml.safe_load_all(text) if one and (one["kind"], one["metadata"]["name"]) not in elsewhere]
    for one in ours:
        for metadata in (one["metadata"], one.get("spec", {}).get("template", {}).get("metadata", {})):
            for label in _HELMS_OWN:
                metadata.get("labels", {}).pop(label, None)
    return _HEADER + yaml.safe_dump_all(ours, sort_keys=False, width=120)


if __name__ == "__main__":
    from tests.cluster.helm import ensure_helm

    OPERATOR.write_text(rendered(ensure_helm("3")))

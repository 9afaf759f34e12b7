"""Finds or makes helm, version 3 and 4, from the Go module proxy, beside the other programs of the cache."""

from pathlib import Path

from tests.cluster.go_build import cache_root, go_build, holds_all, locked, say

HELM = {"3": "3.22.0", "4": "4.3.1"}
HOW_TO_GET_ONE = "install Go 1.26 or newer; helm is then built and cached"


def ensure_helm(major: str) -> Path:
    """The program, made first where it has to be. Raises Unavailable."""
    version = HELM[major]
    folder = cache_root() / f"helm-{version}"
    with locked(folder, f"helm {version}"):
        if not holds_all(folder, ["helm"]):
            say(f"building helm {version} from the Go module proxy, once")
            with go_build(folder, HOW_TO_GET_ONE) as build:
                module = f"helm.sh/helm/v{major}"
                work = build.work("helm-module")
                (work / "go.mod").write_text("module llmroute-test-helm\n")
                build.get("get", f"{module}/cmd/helm@v{version}", work=work, name="helm: modules")
                flags = f"-s -w -X {module}/internal/version.version=v{version}"
                build.build("helm", f"{module}/cmd/helm", work, flags)
    return folder / "helm"

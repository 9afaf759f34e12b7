"""Blocks of the documentation that no test runs or checks as they stand, each with the reason.

`console` and `bash` blocks are run and `yaml` is validated (test_blocks.py, test_cluster_blocks.py) unless they are
listed here; every other block is listed here. By page and first line.
"""

from collections.abc import Mapping

DRAWING = "a drawing"
BUILT = "there is no docker here: buildah builds the same files (tests/cluster/test_images.py)"
NODE = "needs pods that run: a real node does it with Helm (tests/journey)"
SHOWN = "needs pods of a cluster; what is printed is tested in"

NOT_RUN: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        "kubectl apply LLMRoute ─► controller ─► ConfigMap ─► kubelet volume ─► gateway swaps a snapshot"
        " ─► localhost calls": DRAWING,
        "$ make test": "it is the run of all tests, this one included",
    },
    "CONTRIBUTING.md": {
        "make check     lint, types, import rules, unit tests: under a minute, run it often": "a list of targets",
        ".venv/bin/python -m tests.cluster           what it runs on: programs and images, told as it goes": (
            "a list of commands that are parts of make test"
        ),
    },
    "charts/llmroute/README.md": {
        "helm install llmroute charts/llmroute --namespace llmroute-system --create-namespace": NODE,
    },
    "docs/apps.md": {
        "kubectl logs POD -c llmroute-gateway | grep REQUEST_ID": (
            "needs a pod that runs; tests/sidecar/test_telling.py"
        ),
    },
    "docs/admin-page.md": {
        "$ make run                                        # on a laptop: http://127.0.0.1:8791/": (
            "both are run elsewhere: README.md, and a forwarded port in tests/journey/test_injected_pods.py"
        ),
    },
    "docs/concepts.md": {
        "kubectl apply LLMRoute ─► controller ─► ConfigMap ─► kubelet volume ─► gateway swaps a snapshot"
        " ─► localhost calls": DRAWING,
    },
    "docs/images.md": {
        "docker build -f images/gateway/Dockerfile  -t llmroute/gateway  .": BUILT,
        "docker build --build-arg BASE=docker.io/library/python:3.13-slim-bookworm@sha256:DIGEST"
        " -f images/gateway/Dockerfile .": BUILT,
        "docker run --rm --entrypoint cat llmroute/gateway /opt/llmroute/sbom.cdx.json": BUILT,
        "buildah bud --timestamp $(git log -1 --format=%ct) --build-arg BASE=… -f images/gateway/Dockerfile .": BUILT,
    },
    "docs/injection.md": {
        'Error from server: admission webhook "pod-label.skip-with-inject-false.llmroute.dev" denied the request:': (
            f"{SHOWN} tests/operator/injector/test_api_server.py"
        ),
    },
    "docs/certificates.md": {
        "helm upgrade llmroute charts/llmroute --namespace llmroute-system --reset-then-reuse-values"
        " --set certificates.source=cert-manager": f"{NODE}, tests/operator/certificates/test_renewal.py the change",
    },
    "docs/install.md": {
        "helm install llmroute charts/llmroute --namespace llmroute-system --create-namespace --wait": NODE,
        "docker build -f images/gateway/Dockerfile  -t REGISTRY/gateway:0.1.0  .": BUILT,
        "kubectl label namespace llmroute-system pod-security.kubernetes.io/enforce=restricted": (
            "tests/chart/test_admitted.py sets it"
        ),
        "helm upgrade llmroute charts/llmroute --namespace llmroute-system --values yours.yaml": NODE,
        "kubectl apply --server-side -k manifests/": "tests/chart/test_admitted.py applies it",
        "helm uninstall llmroute --namespace llmroute-system": NODE,
        "kubectl delete crd llmroutes.llmroute.dev": "would take the CRD from all tests of this control plane",
    },
    "docs/limits.md": {
        "$ kubectl get llmr chat -o jsonpath='{.status.limits}'": f"{SHOWN} tests/operator/fleet/test_share_out.py",
    },
    "docs/litellm.md": {
        "$ make litellm": "a part of make test; tests/sidecar/litellm starts gateways with its interpreter",
        "$ curl -s localhost:8791/status | jq -c '.litellm_workers[]'": (
            "needs accounts of three providers; tests/sidecar/litellm/test_worker_life.py reads the same"
        ),
    },
    "docs/shared-state.md": {
        "$ llmroute-operator controller --shared-state-url rediss://state.infra:6379/0"
        " --shared-state-secret llmroute-state": "there is no such server; tests/operator/test_shared_state.py",
        "$ curl -s localhost:8791/status | jq .shared_state": (
            "needs a server with another password; tests/sidecar/test_shared_outages.py"
        ),
    },
    "docs/status.md": {
        "$ kubectl get llmr": f"{SHOWN} tests/operator/fleet/test_sidecars.py",
        "$ kubectl llmroute status": f"{SHOWN} tests/operator/fleet/test_llmroute_status.py",
    },
    "docs/telemetry.md": {
        'llmroute_attempts_total{upstream="broken",reason="mock_failure"} 1.0': (
            "metrics of one call; tests/sidecar/test_telling.py"
        ),
        '{"timestamp":"2026-11-25T14:57:13.697Z","level":"info","message":"request","logger":"llmroute.request",': (
            "a line of the log; tests/sidecar/test_telling.py"
        ),
        "POST /v1/chat/completions   server   llmroute.route=chat llmroute.client=pod gen_ai.request.model=gpt": (
            DRAWING
        ),
    },
    "examples/chat-app/README.md": {
        "$ llmroute run -f examples/chat-app/llmroute.yaml": "tests/sidecar/test_chat_app.py starts the same",
        "docker build -t llmroute/chat-app:0.1.0 examples/chat-app": (
            "there is no docker here: tests/journey/test_injected_pods.py does it with buildah's image"
        ),
    },
    "examples/compose/README.md": {
        "docker compose -f examples/compose/compose.yaml up --build": (
            "there is no docker here: tests/compose runs its services as it wires them"
        ),
    },
}

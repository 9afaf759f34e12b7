"""Route documents as the API server gives them, for tests without one."""

from typing import Any

from tests.contract.routes import Document, model, spec_document

API_VERSION = "llmroute.dev/v1alpha1"


def route_document(
    name: str = "chat",
    *models: str,
    namespace: str = "shop",
    uid: str | None = None,
    version: int = 1,
    generation: int = 1,
    created: str = "2026-01-01T00:00:00Z",
    status: Document | None = None,
    deleted: bool = False,
    **spec: Any,
) -> Document:
    """A route with `models` (or one) at one upstream; `spec` is changed as said."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": created,
    }
    if deleted:
        metadata["deletionTimestamp"] = created
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMRoute",
        "metadata": metadata,
        "spec": spec_document([model(one) for one in models or (name,)], **spec),
        **({"status": status} if status is not None else {}),
    }

"""What is asked of the API server for the injector's certificate: its Secret and its webhooks, read and patched."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmroute_operator.controller.api_server import (
    JSON_PATCH,
    MERGE,
    ApiServer,
    Body,
    Document,
    Refused,
    segment,
    within,
)
from llmroute_operator.controller.configmap import FIELD_MANAGER


class CertificateRequests:
    """Raises ClusterError."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def read_secret(self, namespace: str, name: str) -> tuple[Document | None, datetime]:
        """The Secret, and the API server's clock."""
        return await self._read(_secret(namespace, name))

    async def read_webhooks(self, name: str) -> tuple[Document | None, datetime]:
        """The MutatingWebhookConfiguration, and the API server's clock."""
        return await self._read(_webhooks(name))

    async def patch_secret(self, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        await self._patch(_secret(namespace, name), patch, MERGE)

    async def patch_webhooks(self, name: str, patch: Sequence[Mapping[str, Any]]) -> None:
        await self._patch(_webhooks(name), patch, JSON_PATCH)

    async def _read(self, path: str) -> tuple[Document | None, datetime]:
        try:
            return await self._api.ask_dated("GET", path)
        except Refused as error:
            if error.is_missing:
                return None, datetime.min.replace(tzinfo=UTC)
            raise

    async def _patch(self, path: str, patch: Body, kind: str) -> None:
        await self._api.ask("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, kind)


def _secret(namespace: str, name: str) -> str:
    return f"/api/v1{within(namespace)}/secrets/{segment(name)}"


def _webhooks(name: str) -> str:
    return f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{segment(name)}"

"""What the controller asks the API server of pods: list and watch those with a gateway, touch, find those without."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from llmroute_contract.pods import GATEWAY_LABEL, REVISION_ANNOTATION
from llmroute_operator.controller.api_server import MERGE, METADATA_LIST, ApiServer, Document, Refused, segment, within
from llmroute_operator.controller.fleet.pod import GatewayPod
from llmroute_operator.controller.fleet.without import (
    FIELDS,
    NAMESPACES_SELECTOR,
    PODS_OF_NAMESPACE_SELECTOR,
    PODS_SELECTOR,
)

PAGE = 250
"""Whole pods of a list in one answer: some 10 KB each, held until they are read."""


class PodRequests:
    """Raises ClusterError."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    def gateway_pods(self, namespace: str | None) -> AsyncIterator[tuple[list[Document], str]]:
        """All pods with a gateway, page by page, each with the resourceVersion to watch from."""
        return self._api.pages(_pods(namespace), {"labelSelector": GATEWAY_LABEL}, PAGE)

    def watch_gateway_pods(self, namespace: str | None, since: str) -> AsyncIterator[Document]:
        """Events, as `ApiServer.watch` has them."""
        return self._api.watch(_pods(namespace), GATEWAY_LABEL, since)

    async def touch(self, pod: GatewayPod, revision: str) -> Document | None:
        """Notes `revision` at the pod, by which kubelet syncs its volumes at once; the pod as it is then, or None where
        it is gone. Its uid keeps it from another one of its name."""
        path = f"{_pods(pod.id.namespace)}/{segment(pod.id.name)}/status"
        patch: Document = {"metadata": {"uid": pod.id.uid, "annotations": {REVISION_ANNOTATION: revision}}}
        try:
            return await self._api.ask("PATCH", path, {}, patch, MERGE)
        except Refused as error:
            if error.is_missing or error.is_conflict:
                return None
            raise

    async def pods_without(self, scope: str | None) -> list[Mapping[str, Any]]:
        """Metadata of pods that ask for a gateway, by their own label or their namespace's, and are not marked as
        having one."""
        found = {}
        for metadata in await self._metadata(_pods(scope), PODS_SELECTOR):
            found[metadata["uid"]] = metadata
        for namespace in await self._labelled_namespaces(scope):
            for metadata in await self._metadata(_pods(namespace), PODS_OF_NAMESPACE_SELECTOR):
                found[metadata["uid"]] = metadata
        return list(found.values())

    async def _labelled_namespaces(self, scope: str | None) -> list[str]:
        if scope is None:
            pages = self._api.pages("/api/v1/namespaces", {"labelSelector": NAMESPACES_SELECTOR}, PAGE, METADATA_LIST)
            return [item["metadata"]["name"] async for items, _ in pages for item in items]
        # A Role reaches one namespace, and there alone `get` of that one.
        namespace = await self._api.ask("GET", f"/api/v1{within(scope)}")
        label, _, value = NAMESPACES_SELECTOR.partition("=")
        return [scope] if (namespace["metadata"].get("labels") or {}).get(label) == value else []

    async def _metadata(self, path: str, selector: str) -> list[Mapping[str, Any]]:
        query = {"labelSelector": selector, "fieldSelector": FIELDS, "resourceVersion": "0"}  # from the server's cache
        pages = self._api.pages(path, query, PAGE, METADATA_LIST)
        return [_metadata_of(item) async for items, _ in pages for item in items]


def _metadata_of(item: Document) -> Mapping[str, Any]:
    """Without what is bulky."""
    metadata: Document = item["metadata"]
    metadata.pop("managedFields", None)
    return metadata


def _pods(namespace: str | None) -> str:
    return f"/api/v1{within(namespace)}/pods"

"""What the controller asks the API server of pods: list and watch those with a gateway, touch, find those without."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from llmroute_contract.pods import GATEWAY_LABEL, REVISION_ANNOTATION
from llmroute_operator.controller.cluster import MERGE, METADATA_LIST, Cluster, Refused, within
from llmroute_operator.controller.fleet.pod import GatewayPod
from llmroute_operator.controller.fleet.without import (
    FIELDS,
    NAMESPACES_SELECTOR,
    PODS_OF_NAMESPACE_SELECTOR,
    PODS_SELECTOR,
)

Document = dict[str, Any]

PAGE = 250
"""Whole pods of a list in one answer: some 10 KB each, held until they are read."""
_NOT_FOUND = 404


class PodRequests:
    """Raises ClusterError."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def gateway_pods(self, namespace: str | None) -> AsyncIterator[tuple[list[Document], str]]:
        """All pods with a gateway, page by page, each with the resourceVersion to watch from."""
        async for items, version in self._pages(_pods(namespace), {"labelSelector": GATEWAY_LABEL}):
            yield items, version

    async def watch_gateway_pods(self, namespace: str | None, since: str) -> AsyncIterator[Document]:
        async for line in self._cluster.watch(_pods(namespace), GATEWAY_LABEL, since):
            yield json.loads(line)

    async def touch(self, pod: GatewayPod, revision: str) -> Document | None:
        """Notes `revision` at the pod, by which kubelet syncs its volumes at once; the pod as it is then, or None where
        it is gone. Its uid keeps it from another one of its name."""
        path = f"{_pods(pod.id.namespace)}/{quote(pod.id.name)}/status"
        patch: Document = {"metadata": {"uid": pod.id.uid, "annotations": {REVISION_ANNOTATION: revision}}}
        try:
            answer: Document = json.loads(await self._cluster.ask("PATCH", path, {}, patch, MERGE))
        except Refused as error:
            if error.status == _NOT_FOUND or error.is_conflict:
                return None
            raise
        return answer

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
            pages = self._pages("/api/v1/namespaces", {"labelSelector": NAMESPACES_SELECTOR}, METADATA_LIST)
            return [item["metadata"]["name"] async for items, _ in pages for item in items]
        # A Role reaches one namespace, and there alone `get` of that one.
        namespace = json.loads(await self._cluster.ask("GET", f"/api/v1{within(scope)}", {}))
        label, _, value = NAMESPACES_SELECTOR.partition("=")
        return [scope] if (namespace["metadata"].get("labels") or {}).get(label) == value else []

    async def _metadata(self, path: str, selector: str) -> list[Mapping[str, Any]]:
        query = {"labelSelector": selector, "fieldSelector": FIELDS, "resourceVersion": "0"}  # from the server's cache
        return [_metadata_of(item) async for items, _ in self._pages(path, query, METADATA_LIST) for item in items]

    async def _pages(
        self, path: str, query: Mapping[str, str], accept: str = "application/json"
    ) -> AsyncIterator[tuple[list[Document], str]]:
        more = ""
        while True:
            page = {**query, "limit": str(PAGE), **({"continue": more} if more else {})}
            answer = json.loads(await self._cluster.ask("GET", path, page, accept=accept))
            yield answer.get("items") or [], answer["metadata"]["resourceVersion"]
            more = answer["metadata"].get("continue") or ""
            if not more:
                return


def _metadata_of(item: Document) -> Mapping[str, Any]:
    """Without what is bulky."""
    metadata: Document = item["metadata"]
    metadata.pop("managedFields", None)
    return metadata


def _pods(namespace: str | None) -> str:
    return f"/api/v1{within(namespace)}/pods"

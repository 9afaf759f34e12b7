"""What the controller asks the API server of LLMRoutes and of the gateways' ConfigMaps."""

from collections.abc import AsyncIterator, Mapping

from llmroute_contract.compiled import configmap_name
from llmroute_contract.llmroute import GROUP, PLURAL, VERSION
from llmroute_operator.controller.api_server import (
    APPLY,
    JSON,
    MERGE,
    METADATA,
    METADATA_LIST,
    ApiServer,
    Document,
    Refused,
    segment,
    within,
)
from llmroute_operator.controller.configmap import FIELD_MANAGER, LABEL_SELECTOR
from llmroute_operator.controller.route import GatewayKey, RouteName

PAGE = 500  # objects of a list in one answer
_APPLYING = {"fieldManager": FIELD_MANAGER, "force": "true"}


class Cluster:
    """Raises ClusterError."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    # --- routes

    async def list_routes(self, namespace: str | None) -> list[Document]:
        """All LLMRoutes of a namespace, or of the cluster."""
        items, _ = await self._list(_routes_path(namespace), {}, JSON)
        return items

    async def look_for_routes(self, namespace: str | None) -> None:
        """Raises where LLMRoutes cannot be listed."""
        await self._api.ask("GET", _routes_path(namespace), {"limit": "1"})

    async def apply_status(self, name: RouteName, document: Document) -> Document | None:
        """The route as it is now, or None where it is gone. Another one of its name is a conflict, by its uid."""
        path = f"{_routes_path(name.namespace)}/{segment(name.name)}/status"
        try:
            return await self._api.ask("PATCH", path, _APPLYING, document, APPLY)
        except Refused as error:
            if error.is_missing:
                return None
            raise

    # --- ConfigMaps

    async def list_configmaps(self, namespace: str | None) -> tuple[list[Document], str]:
        """Metadata of all that are ours, and the resourceVersion to watch from."""
        return await self._list(_configmaps_path(namespace), {"labelSelector": LABEL_SELECTOR}, METADATA_LIST)

    def watch_configmaps(self, namespace: str | None, since: str) -> AsyncIterator[Document]:
        """Events of metadata, as `ApiServer.watch` has them."""
        return self._api.watch(_configmaps_path(namespace), LABEL_SELECTOR, since, METADATA)

    async def read_configmap(self, key: GatewayKey) -> Document | None:
        try:
            return await self._api.ask("GET", _configmap_path(key))
        except Refused as error:
            if error.is_missing:
                return None
            raise

    async def apply_configmap(self, key: GatewayKey, document: Document) -> Document:
        return await self._api.ask("PATCH", _configmap_path(key), _APPLYING, document, APPLY)

    async def patch_configmap(self, key: GatewayKey, patch: Document) -> Document:
        return await self._api.ask("PATCH", _configmap_path(key), {"fieldManager": FIELD_MANAGER}, patch, MERGE)

    async def delete_configmap(self, key: GatewayKey, uid: str, resource_version: str) -> None:
        """Deletes it as it was read: one that has changed since is a conflict."""
        body = {"preconditions": {"uid": uid, "resourceVersion": resource_version}}
        try:
            await self._api.ask("DELETE", _configmap_path(key), {}, body)
        except Refused as error:
            if not error.is_missing:
                raise

    async def _list(self, path: str, query: Mapping[str, str], accept: str) -> tuple[list[Document], str]:
        items: list[Document] = []
        since = ""
        async for page, version in self._api.pages(path, query, PAGE, accept):
            items += page
            since = version
        return items, since


def _routes_path(namespace: str | None) -> str:
    return f"/apis/{GROUP}/{VERSION}{within(namespace)}/{PLURAL}"


def _configmaps_path(namespace: str | None) -> str:
    return f"/api/v1{within(namespace)}/configmaps"


def _configmap_path(key: GatewayKey) -> str:
    return f"{_configmaps_path(key.namespace)}/{segment(configmap_name(key.gateway))}"

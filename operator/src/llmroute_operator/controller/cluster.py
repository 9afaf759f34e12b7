"""The edge to the API server: the few requests that the controller makes, and their failures as two kinds of error.

On the `kubernetes` package's asyncio client, below its generated methods: those build an object for every field of an
answer, which 1,000 routes would pay for with seconds, and know no list of metadata alone. Documents are plain dicts.
"""

import json
import logging
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client, config

from llmroute_contract.compiled import configmap_name
from llmroute_contract.llmroute import GROUP, PLURAL, VERSION
from llmroute_operator.controller import settings
from llmroute_operator.controller.configmap import FIELD_MANAGER, LABEL_SELECTOR
from llmroute_operator.controller.route import GatewayKey, RouteName

_logger = logging.getLogger(__name__)

Document = dict[str, Any]
Body = Mapping[str, Any] | Sequence[Mapping[str, Any]]

PAGE = 500  # objects of a list in one answer
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_CLIENT_ERROR, _UNAUTHORIZED, _NOT_FOUND, _CONFLICT, _TOO_OLD = 400, 401, 404, 409, 410
_TRANSIENT = frozenset({408, _CONFLICT, 429})


class ClusterError(Exception):
    """The API server did not do what was asked."""

    is_transient = True
    """Whether the same request may well succeed later."""


class Unreachable(ClusterError):
    """No answer: not connected, timed out, cut off."""


class Refused(ClusterError):
    """An answer that says no. `reason` is Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({status} {reason})")
        self.status = status
        self.reason = reason

    @property
    def is_transient(self) -> bool:  # type: ignore[override]
        return self.status in _TRANSIENT or self.status >= 500

    @property
    def is_conflict(self) -> bool:
        """Somebody was quicker: what was read is not what is there."""
        return self.status == _CONFLICT

    @property
    def is_too_old(self) -> bool:
        """A watch from a resourceVersion that the API server has forgotten."""
        return self.status == _TOO_OLD


async def load_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Address and credentials, from the file or from the pod's service account (whose token is re-read as it rotates).
    Raises ConfigException or OSError where there are none."""
    configuration = client.Configuration()
    if kubeconfig is None:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
        )
    return configuration


class Cluster:
    """Raises ClusterError alone, whatever goes wrong on the way."""

    def __init__(self, kubeconfig: Path | None, configuration: client.Configuration) -> None:
        self._kubeconfig = kubeconfig
        self._api = client.ApiClient(configuration)
        self._api.user_agent = "llmroute-controller"

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    # --- routes

    async def list_routes(self, namespace: str | None, limit: int | None = None) -> list[Document]:
        """All LLMRoutes of a namespace, or of the cluster; with `limit` the first ones alone."""
        items, _ = await self._list(_routes_path(namespace), _JSON, {}, limit)
        return items

    async def apply_status(self, name: RouteName, document: Document) -> Document | None:
        """The route as it is now, or None where it is gone. Another one of its name is a conflict, by its uid."""
        path = f"{_routes_path(name.namespace)}/{quote(name.name)}/status"
        try:
            return await self._request("PATCH", path, _APPLYING, document, _APPLY)
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    # --- ConfigMaps

    async def list_configmaps(self, namespace: str | None) -> tuple[list[Document], str]:
        """Metadata of all that are ours, and the resourceVersion to watch from."""
        return await self._list(_configmaps_path(namespace), METADATA_LIST, {"labelSelector": LABEL_SELECTOR})

    async def watch_configmaps(self, namespace: str | None, since: str) -> AsyncIterator[Document]:
        """Events of metadata, bookmarks included, until the API server ends the watch. An error event is raised."""
        async for line in self.watch(_configmaps_path(namespace), LABEL_SELECTOR, since, _METADATA):
            yield json.loads(line)

    async def read_configmap(self, key: GatewayKey) -> Document | None:
        try:
            return await self._request("GET", _configmap_path(key), {})
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def apply_configmap(self, key: GatewayKey, document: Document) -> Document:
        return await self._request("PATCH", _configmap_path(key), _APPLYING, document, _APPLY)

    async def patch_configmap(self, key: GatewayKey, patch: Document) -> Document:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", _configmap_path(key), query, patch, MERGE)

    async def delete_configmap(self, key: GatewayKey, uid: str, resource_version: str) -> None:
        """Deletes it as it was read: one that has changed since is a conflict."""
        body = {"preconditions": {"uid": uid, "resourceVersion": resource_version}}
        try:
            await self._request("DELETE", _configmap_path(key), {}, body)
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise

    # --- the injector's certificate

    async def read_secret(self, namespace: str, name: str) -> tuple[Document | None, datetime]:
        """The Secret, and the API server's clock."""
        return await self._read_dated(_secret_path(namespace, name))

    async def read_webhooks(self, name: str) -> tuple[Document | None, datetime]:
        """The MutatingWebhookConfiguration, and the API server's clock."""
        return await self._read_dated(_webhooks_path(name))

    async def patch_secret(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Document:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", _secret_path(namespace, name), query, patch, MERGE)

    async def patch_webhooks(self, name: str, patch: Sequence[Mapping[str, Any]]) -> Document:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", _webhooks_path(name), query, patch, _JSON_PATCH)

    async def _read_dated(self, path: str) -> tuple[Document | None, datetime]:
        timeout = aiohttp.ClientTimeout(total=settings.REQUEST_SECONDS, sock_connect=settings.CONNECT_SECONDS)
        try:
            response = await self._send("GET", path, {}, None, _JSON, None, timeout)
            async with response:
                return json.loads(await response.read()), parsedate_to_datetime(response.headers["Date"])
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None, datetime.min.replace(tzinfo=UTC)
            raise
        except (*_NO_ANSWER, KeyError, ValueError) as error:
            raise Unreachable(f"GET {path}: {_text(error)}") from None

    # --- requests, for those that have kinds of their own to ask for

    async def watch(self, path: str, selector: str, since: str, accept: str = _JSON) -> AsyncIterator[bytes]:
        """Events as they come, each a line of JSON, bookmarks included, until the API server ends the watch. An error
        event is raised."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": selector,
            "resourceVersion": since,
            "timeoutSeconds": str(settings.WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=settings.WATCH_CLIENT_SECONDS, sock_connect=settings.CONNECT_SECONDS)
        try:
            response = await self._send("GET", path, query, None, accept, None, timeout)
            async with response:
                async for line in _lines(response.content.iter_any()):
                    if line.startswith(_ERROR_EVENT):
                        status = json.loads(line)["object"]
                        raise _refused(status.get("code", 500), status)
                    yield line
        except _NO_ANSWER as error:
            raise Unreachable(f"watching {path}: {_text(error)}") from None

    async def _list(
        self, path: str, accept: str, query: Mapping[str, str], limit: int | None = None
    ) -> tuple[list[Document], str]:
        items: list[Document] = []
        more = ""
        while True:
            page = {**query, "limit": str(limit or PAGE), **({"continue": more} if more else {})}
            answer = await self._request("GET", path, page, accept=accept)
            items += answer.get("items") or ()
            more = answer["metadata"].get("continue") or ""
            if not more or limit is not None:
                return items, answer["metadata"]["resourceVersion"]

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body | None = None,
        content_type: str = _JSON,
        *,
        accept: str = _JSON,
    ) -> Document:
        try:
            document: Document = json.loads(await self.ask(method, path, query, body, content_type, accept=accept))
            return document
        except json.JSONDecodeError as error:
            raise Unreachable(f"{method} {path}: {_text(error)}") from None

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body | None = None,
        content_type: str = _JSON,
        *,
        accept: str = _JSON,
    ) -> bytes:
        """The answer's body."""
        timeout = aiohttp.ClientTimeout(total=settings.REQUEST_SECONDS, sock_connect=settings.CONNECT_SECONDS)
        try:
            response = await self._send(method, path, query, body, accept, content_type, timeout)
            async with response:
                return await response.read()
        except _NO_ANSWER as error:
            raise Unreachable(f"{method} {path}: {_text(error)}") from None

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body | None,
        accept: str,
        content_type: str | None,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The response, its body unread. Raises Refused for one that says no."""
        headers = {"Accept": accept, "Content-Type": content_type or _JSON}
        request = await self._api.param_serialize(
            method, path, query_params=dict(query), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = await self._api.call_api(*request, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        if response.status < _CLIENT_ERROR:
            return response
        async with response:
            text = await response.read()
        if response.status == _UNAUTHORIZED:
            await self._reload_credentials()
        raise _refused(response.status, _document(text) or {"message": text[:200].decode(errors="replace").strip()})

    async def _reload_credentials(self) -> None:
        """For the next try: a token in a file may have been renewed."""
        try:
            fresh = await load_configuration(self._kubeconfig)
        except (config.ConfigException, OSError) as error:
            _logger.warning("credentials cannot be read anew", extra={"fields": {"error": _text(error)}})
        else:
            self._api.configuration.api_key = fresh.api_key


_ERROR_EVENT = b'{"type":"ERROR"'
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError)
_APPLYING = {"fieldManager": FIELD_MANAGER, "force": "true"}


def _routes_path(namespace: str | None) -> str:
    return f"/apis/{GROUP}/{VERSION}{within(namespace)}/{PLURAL}"


def _configmaps_path(namespace: str | None) -> str:
    return f"/api/v1{within(namespace)}/configmaps"


def _configmap_path(key: GatewayKey) -> str:
    return f"{_configmaps_path(key.namespace)}/{quote(configmap_name(key.gateway))}"


def _secret_path(namespace: str, name: str) -> str:
    return f"/api/v1{within(namespace)}/secrets/{quote(name)}"


def _webhooks_path(name: str) -> str:
    return f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{quote(name)}"


def within(namespace: str | None) -> str:
    return f"/namespaces/{quote(namespace)}" if namespace is not None else ""


def _document(text: bytes) -> Document:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _refused(status: int, document: Document) -> Refused:
    return Refused(status, document.get("reason") or "Unknown", document.get("message") or "no message")


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Whole lines of any length: aiohttp's own reading by lines refuses those above its buffer's size."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line

"""The edge to the API server: a request and its answer, a list page by page, a watch; failures as two kinds of error.

On the `kubernetes` package's asyncio client, below its generated methods: those build an object for every field of an
answer, which 1,000 routes would pay for with seconds, and know no list of metadata alone. Documents are plain dicts.
What is asked for is left to those that have kinds: `cluster.py`, `fleet/requests.py`, `certificates/requests.py`.
"""

import json
import logging
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client, config

from llmroute_operator.controller import settings

_logger = logging.getLogger(__name__)

Document = dict[str, Any]
Body = Mapping[str, Any] | Sequence[Mapping[str, Any]]

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_CLIENT_ERROR, _UNAUTHORIZED, _NOT_FOUND, _CONFLICT, _TOO_OLD, _TOO_MANY = 400, 401, 404, 409, 410, 429
_NAMESPACE_GOING = "NamespaceTerminating"
_TRANSIENT = frozenset({408, _CONFLICT, _TOO_MANY})


class ClusterError(Exception):
    """The API server did not do what was asked."""

    is_transient = True
    """Whether the same request may well succeed later."""


class Unreachable(ClusterError):
    """No answer: not connected, timed out, cut off."""


class Refused(ClusterError):
    """An answer that says no. `reason` is Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str, causes: Collection[str] = ()) -> None:
        super().__init__(f"{message} ({status} {reason})")
        self.status = status
        self.reason = reason
        self._causes = causes

    @property
    def is_transient(self) -> bool:  # type: ignore[override]
        return self.status in _TRANSIENT or self.status >= 500

    @property
    def is_missing(self) -> bool:
        """What was asked for is not there."""
        return self.status == _NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        """Somebody was quicker: what was read is not what is there."""
        return self.status == _CONFLICT

    @property
    def namespace_is_going(self) -> bool:
        """Nothing can be made in it any more, and soon nothing will be there."""
        return _NAMESPACE_GOING in self._causes

    @property
    def is_overload(self) -> bool:
        """The API server has too much to do (priority and fairness): it says nothing of what was asked."""
        return self.status == _TOO_MANY

    @property
    def is_too_old(self) -> bool:
        """A watch from a resourceVersion that the API server has forgotten."""
        return self.status == _TOO_OLD


async def load_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Address and credentials, from the file or from the pod's service account (whose token is re-read as it rotates).
    Raises ConfigException or OSError where there are none."""
    configuration = client.Configuration()
    if kubeconfig is None:
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise config.ConfigException(f"{error} Outside a pod, give --kubeconfig FILE.") from None
        return configuration
    if not kubeconfig.is_file():  # noqa: ASYNC240 - once, before anything runs
        raise config.ConfigException(f"there is no file {kubeconfig}")
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, OSError):
        raise
    except Exception:  # noqa: BLE001 - any file may be there, and what it holds is nobody's to see
        raise config.ConfigException(f"{kubeconfig} is not a kubeconfig") from None
    return configuration


class ApiServer:
    """Raises ClusterError alone, whatever goes wrong on the way."""

    def __init__(self, kubeconfig: Path | None, configuration: client.Configuration) -> None:
        self._kubeconfig = kubeconfig
        self._client = client.ApiClient(configuration)
        self._client.user_agent = "llmroute-controller"

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = JSON,
        *,
        accept: str = JSON,
    ) -> Document:
        """The answer."""
        document, _ = await self._ask(method, path, query or {}, body, content_type, accept)
        return document

    async def ask_dated(self, method: str, path: str) -> tuple[Document, datetime]:
        """The answer, and the API server's clock."""
        document, headers = await self._ask(method, path, {}, None, JSON, JSON)
        try:
            return document, parsedate_to_datetime(headers.get("Date", ""))
        except ValueError:
            raise Unreachable(f"{method} {path}: the answer tells no time") from None

    async def pages(
        self, path: str, query: Mapping[str, str], size: int, accept: str = JSON
    ) -> AsyncIterator[tuple[list[Document], str]]:
        """A list's items, so many at a time, each time with the resourceVersion to watch from."""
        more = ""
        while True:
            page = {**query, "limit": str(size), **({"continue": more} if more else {})}
            answer = await self.ask("GET", path, page, accept=accept)
            yield answer.get("items") or [], answer["metadata"]["resourceVersion"]
            more = answer["metadata"].get("continue") or ""
            if not more:
                return

    async def watch(self, path: str, selector: str, since: str, accept: str = JSON) -> AsyncIterator[Document]:
        """Events as they come, bookmarks included, until the API server ends the watch. An error event is raised."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": selector,
            "resourceVersion": since,
            "timeoutSeconds": str(settings.WATCH_SECONDS),
        }
        async with self._answer("GET", path, query, None, JSON, accept, settings.WATCH_CLIENT_SECONDS) as response:
            async for line in _lines(response.content.iter_any()):
                event: Document = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refused(event["object"].get("code", 500), event["object"])
                yield event

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: Body | None, content_type: str, accept: str
    ) -> tuple[Document, Mapping[str, str]]:
        async with self._answer(method, path, query, body, content_type, accept, settings.REQUEST_SECONDS) as response:
            return json.loads(await response.read()), response.headers

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body | None,
        content_type: str,
        accept: str,
        seconds: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One that does not say no, to be read within these seconds; what fails while it is read is told as well."""
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=settings.CONNECT_SECONDS)
        headers = {"Accept": accept, "Content-Type": content_type}
        try:
            request = await self._client.param_serialize(
                method, path, query_params=dict(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = await self._client.call_api(*request, _request_timeout=limits)
            response: aiohttp.ClientResponse = answer.response
            async with response:
                if response.status >= _CLIENT_ERROR:
                    raise await self._refusal(response)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: no JSON, no UTF-8
            raise Unreachable(f"{method} {path}: {_text(error)}") from None

    async def _refusal(self, response: aiohttp.ClientResponse) -> Refused:
        text = await response.read()
        if response.status == _UNAUTHORIZED:
            await self._reload_credentials()
        return _refused(response.status, _document(text) or {"message": text[:200].decode(errors="replace").strip()})

    async def _reload_credentials(self) -> None:
        """For the next try: a token in a file may have been renewed."""
        try:
            fresh = await load_configuration(self._kubeconfig)
        except (config.ConfigException, OSError) as error:
            _logger.warning("credentials cannot be read anew", extra={"fields": {"error": _text(error)}})
        else:
            self._client.configuration.api_key = fresh.api_key


def segment(name: str) -> str:
    """A name as one part of a path, whatever is in it."""
    return quote(name, safe="")


def within(namespace: str | None) -> str:
    """A path's part; None: the whole cluster."""
    return f"/namespaces/{segment(namespace)}" if namespace is not None else ""


def _document(text: bytes) -> Document:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _refused(status: int, document: Document) -> Refused:
    causes = (document.get("details") or {}).get("causes") or ()
    return Refused(
        status,
        document.get("reason") or "Unknown",
        document.get("message") or "no message",
        [cause.get("reason", "") for cause in causes],
    )


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

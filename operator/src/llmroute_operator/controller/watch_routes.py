"""Watches LLMRoutes with kopf, and hands each event on. What kopf may and may not do stands in this module.

kopf runs in a thread with an event loop of its own, because it takes a loop for its own: it ends every task that was
begun since its own start when it ends, handles signals, and a watch that meets an error it does not know ends it as a
whole. Here, that costs a new start of the thread. Events cross over as plain documents; nothing else is shared.

kopf is told to write nothing anywhere: `on.event` handlers keep no state in annotations and need no finalizer; no
events are posted, no peers sought, no CRDs or namespaces watched.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import kopf

from llmroute_contract.llmroute import GROUP, PLURAL, VERSION
from llmroute_operator.controller import settings
from llmroute_operator.controller.api_server import ClusterError, Document, load_configuration
from llmroute_operator.controller.backoff import backoff
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.life import SignsOfLife

_logger = logging.getLogger(__name__)

WATCH = "llmroutes"
RETRY_MOST_SECONDS = 10.0
STOP_SECONDS = 5.0

OnEvent = Callable[[str | None, Document], None]
"""An event's type (None: found in a list) and the route."""


class RouteWatch:
    """`on_event` and `on_listed` are called in the loop of `run`. Once kopf has listed a scope, all routes that there
    were then will be found and all later changes told: what went before that, it does not tell."""

    def __init__(
        self,
        kubeconfig: Path | None,
        scopes: Sequence[str | None],
        cluster: Cluster,
        life: SignsOfLife,
        on_event: OnEvent,
        on_listed: Callable[[str | None], None],
    ) -> None:
        self._kubeconfig = kubeconfig
        self._scopes = scopes
        self._cluster = cluster
        self._life = life
        self._on_event = on_event
        self._on_listed = on_listed
        self.began = 0.0
        """When the API server last took up a watch, in seconds since 1970; it is asked anew every WATCH_SECONDS."""

    async def run(self) -> None:
        failures = 0
        while True:
            await self._until_routes_can_be_listed()
            self._life.heard(WATCH)

            def note_list(path: str) -> None:
                nonlocal failures
                failures = 0
                self._on_listed(_scope_of(path))

            thread = _KopfThread(
                self._kubeconfig, self._scopes, self._life, self._on_event, note_list, self._note_watch
            )
            thread.start()
            try:
                why = await self._until_it_ends(thread.ended)
            finally:
                await thread.stop()
            failures += 1
            rest = backoff(failures, random.random(), RETRY_MOST_SECONDS)  # noqa: S311 - jitter
            _logger.warning(
                "watch of LLMRoutes starts anew", extra={"fields": {"why": why, "in_seconds": round(rest, 1)}}
            )
            await asyncio.sleep(rest)

    def _note_watch(self) -> None:
        self.began = time.time()

    async def _until_routes_can_be_listed(self) -> None:
        """In any scope: kopf looks only once, at its start, which resources exist."""
        failures = 0
        while True:
            try:
                await self._cluster.look_for_routes(self._scopes[failures % len(self._scopes)])
                return
            except ClusterError as error:
                self._life.moved(WATCH)
                failures += 1
                rest = backoff(failures, random.random(), RETRY_MOST_SECONDS)  # noqa: S311 - jitter
                _logger.warning(
                    "LLMRoutes cannot be listed",
                    extra={"fields": {"error": str(error), "retry_in_seconds": round(rest, 1)}},
                )
                await asyncio.sleep(rest)

    async def _until_it_ends(self, ended: "concurrent.futures.Future[None]") -> str:
        """Why: it has ended of itself, or hung for longer than it can."""
        waiter = asyncio.wrap_future(ended)
        while (remaining := self._life.remaining(WATCH)) > 0:
            done, _ = await asyncio.wait([waiter], timeout=remaining)
            if done:
                error = waiter.exception()
                return f"kopf ended: {error}" if error is not None else "kopf ended"
        return "it hung"


class _KopfThread:
    """One run of kopf, from start to end."""

    def __init__(
        self,
        kubeconfig: Path | None,
        scopes: Sequence[str | None],
        life: SignsOfLife,
        on_event: OnEvent,
        on_list: Callable[[str], None],
        on_watch: Callable[[], None],
    ) -> None:
        self._kubeconfig = kubeconfig
        self._namespaces = [scope for scope in scopes if scope is not None]
        self._life = life
        self._on_event = on_event
        self._on_list = on_list
        self._on_watch = on_watch
        self._outside = asyncio.get_running_loop()
        self._inside: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._logins = 0
        self._is_wanted = True
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    def start(self) -> None:
        # A daemon: should kopf hang, the process can end all the same.
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    async def stop(self) -> None:
        """Asks it to end, and waits for that a while."""
        if self.ended.done():
            return
        self._is_wanted = False
        if self._inside is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has just been closed
                self._inside.call_soon_threadsafe(self._stop.set)
        await asyncio.wait([asyncio.wrap_future(self.ended)], timeout=STOP_SECONDS)

    # --- from here on in the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
            self.ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told to who waits
            self.ended.set_exception(error)

    async def _operate(self) -> None:
        self._stop = asyncio.Event()
        self._inside = asyncio.get_running_loop()
        if not self._is_wanted:  # told to end before it began
            return
        await kopf.operator(
            registry=self._registry(),
            settings=_kopf_settings(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return await self._login()

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def route_changed(event: Any, **_: Any) -> None:
            self._life.heard(WATCH)
            self._tell(self._on_event, event["type"], event["object"])

        return registry

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._outside.is_closed():
            self._outside.call_soon_threadsafe(function, *arguments)

    async def _login(self) -> kopf.AiohttpSession:
        """A session with the credentials as they are now; kopf asks anew when they are refused."""
        self._logins += 1
        if self._logins > 1:
            await asyncio.sleep(backoff(self._logins - 1, random.random(), RETRY_MOST_SECONDS))  # noqa: S311 - jitter
        configuration = await load_configuration(self._kubeconfig)
        token = await configuration.get_api_key_with_prefix("BearerToken")
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls(configuration)),
            headers={"Authorization": token} if token else {},
            proxy=configuration.proxy,
            trust_env=True,
            trace_configs=[self._trace()],
        )
        return kopf.AiohttpSession(server=configuration.host, aiohttp_session=session)

    def _trace(self) -> aiohttp.TraceConfig:
        """Sees what kopf keeps to itself: that a request ended, that a list succeeded, that a watch was taken up."""

        async def ended(_session: object, _context: object, request: aiohttp.TraceRequestEndParams) -> None:
            self._life.moved(WATCH)
            succeeded = request.response.status == 200
            if succeeded and request.url.path.endswith(f"/{PLURAL}"):
                self._life.heard(WATCH)
                if "watch" in request.url.query:
                    self._tell(self._on_watch)
                else:
                    self._tell(self._on_list, request.url.path)
            if succeeded:
                self._logins = min(self._logins, 1)

        async def failed(_session: object, _context: object, _request: object) -> None:
            self._life.moved(WATCH)

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(ended)
        trace.on_request_exception.append(failed)
        return trace


def _scope_of(path: str) -> str | None:
    """Of a list's path: a namespace, or None for the cluster."""
    parts = path.split("/")
    return parts[-2] if parts[-3:-2] == ["namespaces"] else None


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Endless:
    """Backoffs without an end: kopf's own run out after a minute of an absent API server, and then kopf ends."""

    def __iter__(self) -> Iterator[float]:
        failures = 0
        while True:
            failures += 1
            yield backoff(failures, random.random(), RETRY_MOST_SECONDS / 2)  # noqa: S311 - jitter


def _kopf_settings() -> kopf.OperatorSettings:
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.peering.standalone = True
    made.scanning.disabled = True
    made.process.ultimate_exiting_timeout = None  # it would kill the process
    made.watching.server_timeout = settings.WATCH_SECONDS
    made.watching.client_timeout = settings.WATCH_CLIENT_SECONDS
    made.watching.connect_timeout = settings.CONNECT_SECONDS
    made.networking.request_timeout = settings.REQUEST_SECONDS
    made.networking.connect_timeout = settings.CONNECT_SECONDS
    made.networking.error_backoffs = _Endless()
    return made

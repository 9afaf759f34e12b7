"""Thousands of pods without nodes, and one process that answers for all their gateways.

Pod objects are made through the API server and given addresses as kubelet would (127.x.y.z: all of them this machine).
The stand-in answers `/status` at each of these addresses. Once a pod is touched it serves the revision that it was
touched for: after 0.35 s (a kubelet's, measured) and up to a second more (a gateway looks once a second).
"""

import asyncio
import contextlib
import json
import random
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web

from llmroute_contract.pods import GATEWAY_LABEL, REVISION_ANNOTATION
from tests.cluster.control_plane import ControlPlane
from tests.operator.pods import pod

AT_ONCE = 32
KUBELET_SECONDS = 0.35


def address_of(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


class StandIn:
    """All gateways. `revisions` are what each address serves; it follows touches by watching the pods."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self.revisions: dict[str, str] = {}
        self._touched: dict[str, str] = {}
        self._gateways: dict[str, str] = {}
        """The namespace of each address."""
        self.port = 0
        self.questions = 0
        self._loop = asyncio.new_event_loop()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        self.questions += 1
        revision = self.revisions.get(address)
        return web.json_response(
            {"namespace": self._gateways.get(address), "gateway": "default", "revision": revision, "routes": []}
        )

    def see(self, document: dict[str, Any]) -> None:
        address = document.get("status", {}).get("podIP")
        if address is None:
            return
        self._gateways[address] = document["metadata"]["namespace"]
        touched = (document["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION)
        if touched is not None and self._touched.get(address) != touched:
            self._touched[address] = touched
            self._loop.call_later(KUBELET_SECONDS + random.random(), self._sync, address)

    def _sync(self, address: str) -> None:
        """As kubelet, it takes what is there by then."""
        self.revisions[address] = self._touched[address]

    async def serve(self) -> None:
        application = web.Application()
        application.add_routes([web.get("/status", self.answer)])
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "0.0.0.0", 0, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]

    async def follow(self) -> None:
        plane = self._control_plane
        async with _session(plane) as session:
            while True:
                query = {"watch": "true", "labelSelector": GATEWAY_LABEL, "timeoutSeconds": "300"}
                async with session.get(f"{plane.url}/api/v1/pods", params=query) as answer:
                    rest = b""
                    async for chunk in answer.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            self.see(json.loads(line)["object"])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._following.cancel)

    def run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.serve())
        ready.set()
        self._following = self._loop.create_task(self.follow())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._following)


@contextmanager
def stand_in(control_plane: ControlPlane) -> Iterator[StandIn]:
    one, ready = StandIn(control_plane), threading.Event()
    threading.Thread(target=one.run, args=(ready,), daemon=True).start()
    ready.wait(30)
    yield one
    one.stop()


def make_pods(control_plane: ControlPlane, namespaces: int, each: int, port: int) -> None:
    asyncio.run(_make_pods(control_plane, namespaces, each, port))


async def _make_pods(control_plane: ControlPlane, namespaces: int, each: int, port: int) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    async with _session(control_plane) as session:

        async def send(method: str, path: str, body: dict[str, Any], kind: str = "application/json") -> None:
            async with gate:
                url = control_plane.url + path
                async with session.request(method, url, data=json.dumps(body), headers={"content-type": kind}) as done:
                    if done.status >= 300:
                        raise RuntimeError(f"{method} {path}: {done.status} {await done.text()}")

        async def make(number: int) -> None:
            space = f"bench-{number % namespaces}"
            name = f"web-{number // namespaces:03}"
            document = {"apiVersion": "v1", "kind": "Pod", **pod(name, port=port)}
            await send("POST", f"/api/v1/namespaces/{space}/pods", document)
            status = {
                "status": {"phase": "Running", "podIP": address_of(number), "podIPs": [{"ip": address_of(number)}]}
            }
            path = f"/api/v1/namespaces/{space}/pods/{name}/status"
            await send("PATCH", path, status, "application/merge-patch+json")

        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        accounts = (f"/api/v1/namespaces/bench-{space}/serviceaccounts" for space in range(namespaces))
        await asyncio.gather(*(send("POST", path, account) for path in accounts))
        await asyncio.gather(*(make(number) for number in range(namespaces * each)))


def edit_often(control_plane: ControlPlane, namespace: str, route: str, retries: list[dict[str, Any]]) -> None:
    """One edit after the other, as fast as the API server takes them."""

    async def edit() -> None:
        url = f"{control_plane.url}/apis/llmroute.dev/v1alpha1/namespaces/{namespace}/llmroutes/{route}"
        async with _session(control_plane) as session:
            for retry in retries:
                body = json.dumps([{"op": "add", "path": "/spec/models/0/retry", "value": retry}])
                async with session.patch(
                    url, data=body, headers={"content-type": "application/json-patch+json"}
                ) as done:
                    done.raise_for_status()

    asyncio.run(edit())


def _session(control_plane: ControlPlane) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=AT_ONCE + 4),
        headers={"authorization": f"Bearer {control_plane.admin_token}"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )

"""Thousands of pods without nodes, and one process that answers for all their gateways.

Pod objects are made through the API server and given addresses as kubelet would (127.x.y.z: all of them this machine).
The stand-in answers `/status` at each of these addresses. Once a pod is touched it serves the revision that it was
touched for: after 0.35 s (a kubelet's, measured) and up to a tenth more (a gateway looks at its volume so often).
"""

import asyncio
import contextlib
import json
import random
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web

from llmroute_contract.pods import GATEWAY_LABEL, REVISION_ANNOTATION
from tests.cluster.control_plane import ControlPlane
from tests.operator.pods import pod

Document = dict[str, Any]

AT_ONCE = 32
KUBELET_SECONDS = 0.35
GATEWAY_SECONDS = 0.1


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
            self._loop.call_later(KUBELET_SECONDS + GATEWAY_SECONDS * random.random(), self._sync, address)

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
        async with session(plane) as asking:
            while True:
                query = {"watch": "true", "labelSelector": GATEWAY_LABEL, "timeoutSeconds": "300"}
                async with asking.get(f"{plane.url}/api/v1/pods", params=query) as answer:
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


def make(control_plane: ControlPlane, *groups: Sequence[tuple[str, Document]]) -> None:
    """Each group's documents at these paths, many at once, one group after the other."""
    asyncio.run(_make(control_plane, groups))


async def _make(control_plane: ControlPlane, groups: Sequence[Sequence[tuple[str, Document]]]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    async with session(control_plane) as asking:

        async def send(path: str, body: Document) -> None:
            is_status = path.endswith("/status")
            kind = "application/merge-patch+json" if is_status else "application/json"
            method, url = "PATCH" if is_status else "POST", control_plane.url + path
            text, headers = json.dumps(body), {"content-type": kind}
            async with gate, asking.request(method, url, data=text, headers=headers) as done:
                if done.status >= 300:
                    raise RuntimeError(f"{method} {path}: {done.status} {await done.text()}")

        for group in groups:
            await asyncio.gather(*(send(path, document) for path, document in group))


def make_pods(control_plane: ControlPlane, namespaces: int, each: int, port: int) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    accounts = [(f"/api/v1/namespaces/bench-{space}/serviceaccounts", account) for space in range(namespaces)]
    pods, statuses = [], []
    for number in range(namespaces * each):
        path, name = f"/api/v1/namespaces/bench-{number % namespaces}/pods", f"web-{number // namespaces:03}"
        pods.append((path, {"apiVersion": "v1", "kind": "Pod", **pod(name, port=port)}))
        address = address_of(number)
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        statuses.append((f"{path}/{name}/status", {"status": status}))
    make(control_plane, accounts, pods, statuses)


def edit_often(control_plane: ControlPlane, namespace: str, route: str, retries: list[dict[str, Any]]) -> None:
    """One edit after the other, as fast as the API server takes them."""

    async def edit() -> None:
        url = f"{control_plane.url}/apis/llmroute.dev/v1alpha1/namespaces/{namespace}/llmroutes/{route}"
        async with session(control_plane) as asking:
            for retry in retries:
                body = json.dumps([{"op": "add", "path": "/spec/models/0/retry", "value": retry}])
                async with asking.patch(
                    url, data=body, headers={"content-type": "application/json-patch+json"}
                ) as done:
                    done.raise_for_status()

    asyncio.run(edit())


def session(control_plane: ControlPlane) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=AT_ONCE + 4),
        headers={"authorization": f"Bearer {control_plane.admin_token}"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )

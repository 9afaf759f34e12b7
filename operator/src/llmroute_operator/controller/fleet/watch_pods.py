"""Watches the pods that have a gateway: those with the injector's label, in one namespace or in the cluster."""

from collections.abc import AsyncIterator, Callable

from llmroute_operator.controller.fleet.pod import GatewayPod, PodId, pod_id, read_pod
from llmroute_operator.controller.fleet.requests import PodRequests
from llmroute_operator.controller.follow import follow
from llmroute_operator.controller.life import SignsOfLife


class PodWatch:
    """`name` is what its signs of life go by."""

    def __init__(
        self,
        requests: PodRequests,
        namespace: str | None,
        name: str,
        life: SignsOfLife,
        there: Callable[[GatewayPod], None],
        gone: Callable[[PodId], None],
        listed: Callable[[str | None, list[PodId]], None],
    ) -> None:
        self._requests = requests
        self._namespace = namespace
        self._name = name
        self._life = life
        self._there = there
        self._gone = gone
        self._listed = listed

    async def run(self) -> None:
        await follow(self, self._name, self._life)

    async def read_all(self) -> str:
        found: list[PodId] = []
        since = ""
        async for items, version in self._requests.gateway_pods(self._namespace):
            since = version
            self._life.heard(self._name)
            for item in items:
                pod = read_pod(item)
                if pod is not None:
                    found.append(pod.id)
                    self._there(pod)
        self._listed(self._namespace, found)
        return since

    async def watch(self, since: str) -> AsyncIterator[str]:
        async for event in self._requests.watch_gateway_pods(self._namespace, since):
            document = event["object"]
            if event["type"] != "BOOKMARK":
                pod = read_pod(document) if event["type"] != "DELETED" else None
                if pod is not None:
                    self._there(pod)
                else:
                    self._gone(pod_id(document))
            yield document["metadata"]["resourceVersion"]

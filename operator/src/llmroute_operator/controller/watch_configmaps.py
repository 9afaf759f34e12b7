"""Watches the ConfigMaps that are ours, so that a person's edit is put back at once.

With a label selector on the server's side, for the ConfigMaps of a whole cluster are none of our business, and of
metadata alone, for all that is asked is which one has changed. A label taken away arrives as a deletion, since the
object leaves the selection. What then to do is the reconcile's.
"""

from collections.abc import AsyncIterator, Callable

from llmroute_operator.controller.api_server import Document
from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.configmap import gateway_of
from llmroute_operator.controller.follow import follow
from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.route import GatewayKey

Changed = Callable[[GatewayKey, str], None]
"""A gateway's ConfigMap is another than before: its key, and its resourceVersion now."""


class ConfigMapWatch:
    """Of one namespace, or of the cluster. `name` is what its signs of life go by."""

    def __init__(self, cluster: Cluster, namespace: str | None, name: str, life: SignsOfLife, changed: Changed) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._life = life
        self._changed = changed
        self._known: set[GatewayKey] = set()

    async def run(self) -> None:
        await follow(self, self._name, self._life)

    async def read_all(self) -> str:
        """Tells of all that are there, and of those that went while nobody watched."""
        items, since = await self._cluster.list_configmaps(self._namespace)
        before = self._known.copy()
        for item in items:
            self._tell(item, gone=False)
            before.discard(_key(item) or GatewayKey("", ""))
        for key in before:
            self._known.discard(key)
            self._changed(key, "")
        return since

    async def watch(self, since: str) -> AsyncIterator[str]:
        async for event in self._cluster.watch_configmaps(self._namespace, since):
            if event["type"] != "BOOKMARK":
                self._tell(event["object"], gone=event["type"] == "DELETED")
            yield event["object"]["metadata"]["resourceVersion"]

    def _tell(self, item: Document, *, gone: bool) -> None:
        key = _key(item)
        if key is None:
            return
        if gone:
            self._known.discard(key)
        else:
            self._known.add(key)
        self._changed(key, "" if gone else item["metadata"]["resourceVersion"])


def _key(item: Document) -> GatewayKey | None:
    gateway = gateway_of(item["metadata"]["name"])
    return GatewayKey(item["metadata"]["namespace"], gateway) if gateway is not None else None

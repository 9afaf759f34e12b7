"""The full relist: what it finds anew is looked at at once, the rest without a rush."""

import asyncio
from collections.abc import Iterable
from typing import Any

from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.relist import Relister
from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.controller.store import RouteStore
from tests.operator.documents import route_document

GATEWAYS = 10


class Cluster:
    def __init__(self) -> None:
        self.routes = {place: route_document(namespace=f"shop-{place}") for place in range(GATEWAYS)}

    async def list_routes(self, namespace: str | None) -> list[Any]:
        return list(self.routes.values())

    async def list_configmaps(self, namespace: str | None) -> tuple[list[Any], str]:
        return [{"metadata": {"namespace": "left-behind", "name": "llmroute-gateway-default"}}], "1"


async def _relist_twice() -> tuple[dict[GatewayKey, float], dict[GatewayKey, float]]:
    """When each gateway is looked at after the first relist, and after a second one that finds one route changed."""
    looks: dict[GatewayKey, float] = {}
    all_looked_at = asyncio.Event()

    def look_at(keys: Iterable[GatewayKey], after: float) -> None:
        looks.update(dict.fromkeys(keys, after))
        if len(looks) == GATEWAYS + 1:
            all_looked_at.set()

    cluster, metrics = Cluster(), Metrics("test")
    relister = Relister(RouteStore(), cluster, metrics, [None], 300, look_at)  # type: ignore[arg-type]
    running = asyncio.create_task(relister.run())
    try:
        relister.want(None)
        await asyncio.wait_for(all_looked_at.wait(), 20)
        first = looks.copy()
        looks.clear()
        all_looked_at.clear()
        cluster.routes[3] = route_document(namespace="shop-3", version=2, generation=2)
        relister.want(None)
        await asyncio.wait_for(all_looked_at.wait(), 20)
        return first, looks
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_after_the_first_relist_only_what_changed_is_looked_at_at_once() -> None:
    first, second = asyncio.run(_relist_twice())
    every = {GatewayKey("left-behind", "default"), *(GatewayKey(f"shop-{place}", "default") for place in range(10))}
    assert first == dict.fromkeys(every, 0.0)
    assert second.keys() == every
    assert second[GatewayKey("shop-3", "default")] == 0.0
    others = sorted(second[key] for key in every - {GatewayKey("shop-3", "default")})
    assert others == [6.0 * place for place in range(GATEWAYS)]

"""Pods that come before the first route of their gateway: they wait for it a moment, and only so many of them."""

import asyncio

from llmroute_operator.controller.cluster import Cluster
from llmroute_operator.controller.route import GatewayKey
from llmroute_operator.injector.metrics import Metrics
from llmroute_operator.injector.options import WAITING_MAX
from llmroute_operator.injector.routes import Routes
from tests.operator.documents import route_document

SHOP = GatewayKey("shop", "default")


async def _come_before_the_route(more: int) -> None:
    routes = Routes(None, Cluster(None), 300, Metrics("test"))  # type: ignore[arg-type]
    asking = [asyncio.create_task(routes.needs(SHOP, 600)) for _ in range(WAITING_MAX + more)]
    beyond = await asyncio.wait_for(asyncio.gather(*asking[WAITING_MAX:]), 20)
    assert all(needs.is_open for needs in beyond)
    assert not any(one.done() for one in asking[:WAITING_MAX])
    routes._on_event("ADDED", route_document(auth={"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}}))
    for needs in await asyncio.wait_for(asyncio.gather(*asking[:WAITING_MAX]), 20):
        assert needs.key_secrets == {"clients"}
    late = await asyncio.wait_for(routes.needs(SHOP, 600), 20)
    assert late.key_secrets == {"clients"}


def test_pods_that_wait_for_their_first_route_leave_room_for_others() -> None:
    """One namespace's hundreds of pods, of a gateway that has no route yet, turn away nobody else's."""
    asyncio.run(_come_before_the_route(5))

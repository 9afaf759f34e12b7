"""What becomes of many edits while a third of all that the controller asks goes wrong."""

from random import Random

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import SERVICE_ACCOUNT, grant_rights, start
from tests.operator.namespace import Namespace, route
from tests.operator.unreliable import Asked, Fault, between

pytestmark = pytest.mark.cluster

FAULTS = (
    Fault(409, "Conflict"),
    Fault(429, "TooManyRequests"),
    Fault(500, "InternalError"),
    Fault(503, "ServiceUnavailable"),
    Fault(500, after=True),
)
GATEWAYS = ("one", "two", "three")
ROUTES = ("a", "b", "c", "d")


def test_it_ends_with_the_last_edits_whatever_the_api_server_refused_or_left_unanswered(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    """Routes move between gateways, one is deleted, ConfigMaps too, watches are cut; answers to writes get lost."""
    grant_rights(control_plane, [])
    dice = Random(5)

    def fails(_: Asked) -> Fault | None:
        return dice.choice(FAULTS) if dice.random() < 0.3 else None

    with between(control_plane, SERVICE_ACCOUNT) as (way, kubeconfig):
        controller = start(control_plane, "--relist-seconds", "3", kubeconfig=kubeconfig)
        try:
            way.fails = fails
            for step in range(8):
                namespace.apply(*(route(name, f"{name}-{step}", gateway=dice.choice(GATEWAYS)) for name in ROUTES))
                if step % 4 == 2:
                    way.cut()
                    namespace.kubectl("delete", "configmap", "llmroute-gateway-one", "--ignore-not-found")
            namespace.delete("d")
            way.fails = lambda _: None
            for name in ROUTES[:-1]:
                namespace.programmed(name)
            wanted: dict[str, set[tuple[str, int]]] = {gateway: set() for gateway in GATEWAYS}
            for name in ROUTES[:-1]:
                found = namespace.route(name)
                wanted[found["spec"]["gateway"]].add((name, found["metadata"]["generation"]))

            def served() -> dict[str, set[tuple[str, int]]]:
                there = [gateway for gateway in GATEWAYS if namespace.configmap(gateway) is not None]
                entries = {
                    gateway: {(one.name, one.generation) for one in namespace.index(gateway).routes}
                    for gateway in there
                }
                return {gateway: entries.get(gateway, set()) for gateway in GATEWAYS}

            namespace.wait(lambda: served() == wanted, f"the gateways to hold {wanted}")
            assert not [
                line for line in controller.lines if line["logger"].startswith("llmroute") and line["level"] == "error"
            ]
            assert controller.end() == 0
        finally:
            controller.close()

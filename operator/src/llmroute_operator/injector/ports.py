"""The gateway's two ports, and who else in the pod has them: containers of a pod share their ports."""

from dataclasses import dataclass

from llmroute_contract.pods import GATEWAY_CONTAINER
from llmroute_operator.injector.annotations import ADMIN_PORT_ANNOTATION, DATA_PORT_ANNOTATION, Wishes
from llmroute_operator.injector.pod import Pod
from llmroute_operator.injector.settings import InjectorSettings


@dataclass(frozen=True, slots=True)
class Ports:
    data: int
    admin: int


def ports_of(wishes: Wishes, settings: InjectorSettings) -> Ports:
    return Ports(wishes.data_port or settings.data_port, wishes.admin_port or settings.admin_port)


def collisions(pod: Pod, ports: Ports) -> list[str]:
    """What a person has to change. A hostPort is the node's and takes none in the pod."""
    if ports.data == ports.admin:
        return [
            f"the gateway's data and admin port are both {ports.data}: set annotation {DATA_PORT_ANNOTATION} or "
            f"{ADMIN_PORT_ANNOTATION} to another one"
        ]
    return [
        f"container {container.name!r} declares port {port.container_port}, which is the gateway's {kind} port: set "
        f"annotation {annotation} to one that is free"
        for container in pod.every_container
        if container.name != GATEWAY_CONTAINER
        for port in container.ports or ()
        if port.protocol in (None, "TCP")
        for kind, number, annotation in (
            ("data", ports.data, DATA_PORT_ANNOTATION),
            ("admin", ports.admin, ADMIN_PORT_ANNOTATION),
        )
        if port.container_port == number
    ]

"""The gateway's requests and limits, chosen so that the pod's quality of service stays what it is.

Kubernetes' classes: Guaranteed, where each container has limits on CPU and memory and requests as much; BestEffort,
where none has any; Burstable else. A Guaranteed pod's gateway therefore requests its limits, and a BestEffort pod's has
neither, unless an annotation asks for some. Where the pod as a whole has resources, they decide, and hold the gateway
too: it gets none of its own, for its requests must fit in.
"""

from collections.abc import Iterable

from llmroute_contract.pods import GATEWAY_CONTAINER
from llmroute_operator.injector.annotations import Wishes
from llmroute_operator.injector.pod import Container, Document, Pod, Quantity, Resources
from llmroute_operator.injector.quantity import amount, parse_quantity
from llmroute_operator.injector.settings import InjectorSettings

_COUNTED = ("cpu", "memory")
_LEAST = {"cpu": "50m", "memory": "256Mi"}
"""In a Guaranteed pod, which has to have both, where the settings name none."""


def resources_of(pod: Pod, wishes: Wishes, settings: InjectorSettings) -> Document:
    """As a container has them; empty where it has none."""
    wished = {
        "cpu": (wishes.cpu_request, wishes.cpu_limit),
        "memory": (wishes.memory_request, wishes.memory_limit),
    }
    others = [container for container in pod.every_container if container.name != GATEWAY_CONTAINER]
    as_a_whole = _has_any(pod.spec.resources)
    has_defaults = not as_a_whole and any(_has_any(container.resources) for container in others)
    is_guaranteed = not as_a_whole and _guaranteed(others)
    requests, limits = {}, {}
    for name in _COUNTED:
        request, limit = wished[name]
        defaults = getattr(settings.resources.requests, name), getattr(settings.resources.limits, name)
        if is_guaranteed:
            request = limit = limit or request or defaults[1] or defaults[0] or _LEAST[name]
        elif has_defaults:
            request, limit = _filled(request, limit, *defaults)
        if request is not None:
            requests[name] = request
        elif limit is not None:
            requests[name] = limit  # as the API server would fill it in
        if limit is not None:
            limits[name] = limit
    return {key: value for key, value in (("limits", limits), ("requests", requests)) if value}


def _filled(
    request: str | None, limit: str | None, default_request: str | None, default_limit: str | None
) -> tuple[str | None, str | None]:
    """What is wished, the defaults for the rest; a default gives way where a wish is beyond it."""
    wished_request, wished_limit = request is not None, limit is not None
    request = request if wished_request else default_request
    limit = limit if wished_limit else default_limit
    if request is not None and limit is not None and parse_quantity(request) > parse_quantity(limit):
        return (limit, limit) if wished_limit else (request, request)
    return request, limit


def _guaranteed(containers: Iterable[Container]) -> bool:
    return all(_guarantees(container.resources) for container in containers)


def _guarantees(resources: Resources | None) -> bool:
    if resources is None:
        return False
    for name in _COUNTED:
        limit = amount((resources.limits or {}).get(name))
        request = _first((resources.requests or {}).get(name), (resources.limits or {}).get(name))
        if not limit or amount(request) != limit:
            return False
    return True


def _has_any(resources: Resources | None) -> bool:
    """Of what counts for the class; zero is none."""
    return resources is not None and any(
        amount((amounts or {}).get(name)) for amounts in (resources.requests, resources.limits) for name in _COUNTED
    )


def _first(one: Quantity | None, other: Quantity | None) -> Quantity | None:
    return one if one is not None else other

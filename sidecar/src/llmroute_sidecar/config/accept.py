"""What makes compiled files acceptable to this gateway: pure checks over bytes, each refusal a sentence without
content.

Owns the judgement of `gateway.json` and of one route's file against its entry. Keeping what was good before is
`reload.py`'s.
"""

from collections.abc import Mapping

from llmroute_contract import compiled as c
from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.upstream.mock import MockBehaviour


class Refused(ValueError):
    """A compiled file that this gateway does not take; the message says why."""


def accept_index(files: Mapping[str, bytes], unreadable: Mapping[str, str]) -> c.CompiledGateway:
    """`gateway.json`, decoded. Raises Refused."""
    data = files.get(c.GATEWAY_FILE)
    if data is None:
        raise Refused(f"{c.GATEWAY_FILE} {unreadable.get(c.GATEWAY_FILE, 'is not there')}")
    try:
        index = c.decode(data, c.CompiledGateway)
    except c.Unreadable as error:
        raise Refused(f"{c.GATEWAY_FILE} cannot be used: {error}") from None
    if len({entry.name for entry in index.routes}) != len(index.routes):
        raise Refused(f"{c.GATEWAY_FILE} lists a route twice")
    if c.revision_of(index.routes) != index.revision:
        raise Refused(f"the revision in {c.GATEWAY_FILE} is not that of its routes; it has been changed or cut short")
    return index


def accept_route(
    index: c.CompiledGateway, entry: c.RouteEntry, files: Mapping[str, bytes], unreadable: Mapping[str, str]
) -> c.CompiledRoute:
    """The route of one entry, if its file is the very one that the entry means and can be served. Raises Refused."""
    data = files.get(entry.file)
    if data is None:
        raise Refused(f"{entry.file} {unreadable.get(entry.file, 'is not there')}")
    if c.digest(data) != entry.digest:
        raise Refused(f"{entry.file} is not the file that {c.GATEWAY_FILE} lists; it is half-written or was changed")
    try:
        route = c.decode(data, c.CompiledRoute)
    except c.Unreadable as error:
        raise Refused(f"{entry.file} cannot be used: {error}") from None
    whose = (route.namespace, route.gateway, route.name, route.generation)
    if whose != (index.namespace, index.gateway, entry.name, entry.generation):
        raise Refused(f"{entry.file} is of another route, gateway or generation than {c.GATEWAY_FILE} says")
    _check_upstreams(route)
    return route


def _check_upstreams(route: c.CompiledRoute) -> None:
    """What would only show when the upstream is called, or made."""
    names = {upstream.name for upstream in route.upstreams}
    for upstream in route.upstreams:
        try:
            url = parse_upstream_url(upstream.url)
            if url.scheme == "mock":
                MockBehaviour.of(url)
        except ValueError as error:
            raise Refused(f"the url of upstream {upstream.name!r} {error}") from None
    aims = {target.upstream for model in route.models for target in model.targets}
    if route.default_upstream is not None:
        aims.add(route.default_upstream)
    if not aims <= names:
        raise Refused(f"no upstream is named {min(aims - names)!r}")

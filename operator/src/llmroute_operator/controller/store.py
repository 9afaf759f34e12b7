"""All routes, as last heard of. Fed by the watch, by the full relist, and by what our own writes answered.

Says which gateways have to be looked at after each change; when that happens is the queue's. Sans-IO.

Three sources may tell the same thing in any order, so: what is older than what is known is passed over; an end is
believed only of the very object (its uid) that is known; and a relist, which takes a while, does not overrule what was
heard of a route since it began. Of all else it is the truth, older or not: a restored backup counts versions anew.

What is listed apart (a scope: one namespace, or None for the cluster) is relisted apart.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from llmroute_operator.controller.conditions import without_pods
from llmroute_operator.controller.route import GatewayKey, Route, RouteName, is_going, is_older, name_of, read_route

Document = Mapping[str, Any]


class RouteStore:
    def __init__(self) -> None:
        self._routes: dict[RouteName, Route] = {}
        self._by_gateway: dict[GatewayKey, dict[RouteName, Route]] = {}
        self._heard: set[RouteName] = set()
        """Routes heard of since the relist of their scope began."""

    def __len__(self) -> int:
        return len(self._routes)

    def all(self) -> tuple[Route, ...]:
        return tuple(self._routes.values())

    def get(self, name: RouteName) -> Route | None:
        return self._routes.get(name)

    def routes_of(self, key: GatewayKey) -> tuple[Route, ...]:
        return tuple(self._by_gateway.get(key, {}).values())

    def keys(self) -> frozenset[GatewayKey]:
        return frozenset(self._by_gateway)

    def put(self, document: Document) -> frozenset[GatewayKey]:
        """A route is there, or has changed."""
        self._heard.add(name_of(document))
        return self._put(document)

    def remove(self, document: Document) -> frozenset[GatewayKey]:
        """A route is gone."""
        name = name_of(document)
        self._heard.add(name)
        known = self._routes.get(name)
        if known is None or known.uid != document["metadata"]["uid"]:
            return frozenset()
        return self._forget(name)

    def wrote(self, document: Document) -> frozenset[GatewayKey]:
        """The API server's answer to our own write of a status. The status alone is no reason to look again."""
        name = name_of(document)
        known = self._routes.get(name)
        if known is None or known.uid != document["metadata"]["uid"]:
            return frozenset()
        self.put(document)
        now = self._routes.get(name)
        if now is not None and now.generation == known.generation:
            return frozenset()
        return self._put_keys(known, now or known)

    def begin_relist(self, scope: str | None) -> None:
        self._heard = {name for name in self._heard if scope not in (None, name.namespace)}

    def relisted(self, scope: str | None, documents: Iterable[Document]) -> frozenset[GatewayKey]:
        """All routes that there are in the scope. The keys are those of what changed by it."""
        changed: set[GatewayKey] = set()
        listed = set()
        for document in documents:
            name = name_of(document)
            listed.add(name)
            if name not in self._heard:
                changed |= self._put(document, as_listed=True)
        there = [name for name in self._routes if scope in (None, name.namespace)]
        for name in [name for name in there if name not in listed and name not in self._heard]:
            changed |= self._forget(name)
        return frozenset(changed)

    def _put(self, document: Document, *, as_listed: bool = False) -> frozenset[GatewayKey]:
        name = name_of(document)
        known = self._routes.get(name)
        version = document["metadata"]["resourceVersion"]
        if known is not None and version == known.resource_version:
            return frozenset()
        if known is not None and not as_listed and is_older(version, known.resource_version):
            return frozenset()
        if is_going(document):
            return self._forget(name)
        route = read_route(document, known)
        if known is not None and known.key != route.key:
            self._forget(name)
        self._routes[name] = route
        self._by_gateway.setdefault(route.key, {})[name] = route
        if known is not None and _matters(known) == _matters(route):
            return frozenset()
        return self._put_keys(known, route)

    @staticmethod
    def _put_keys(known: Route | None, route: Route) -> frozenset[GatewayKey]:
        return frozenset({route.key} if known is None else {known.key, route.key})

    def _forget(self, name: RouteName) -> frozenset[GatewayKey]:
        known = self._routes.pop(name, None)
        if known is None:
            return frozenset()
        routes = self._by_gateway[known.key]
        del routes[name]
        if not routes:
            del self._by_gateway[known.key]
        return frozenset({known.key})


def _matters(route: Route) -> object:
    """What a reconcile depends on: not labels and annotations, not who manages which field."""
    return route.uid, route.generation, route.created, without_pods(route.status)

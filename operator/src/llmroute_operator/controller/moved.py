"""Routes that have moved to another gateway, which does not serve them yet: the gateway they come from keeps them.

A route that moves and is broken in the same edit would else be served by neither; and a good one is served where it was
until it is served where it goes. Nothing is stored: the old gateway's ConfigMap has the form, the route's spec says
where it belongs, and that it is served there is known once that gateway has been written. Sans-IO.
"""

from collections.abc import Iterable, Mapping, Sequence

from llmroute_contract.compile import RouteSource
from llmroute_contract.problem import Problem
from llmroute_operator.controller.configmap import Served
from llmroute_operator.controller.route import GatewayKey, Route, RouteName
from llmroute_operator.controller.store import RouteStore

_ELSEWHERE = (Problem("spec.gateway", "Invalid", "belongs to another gateway"),)


class Moved:
    def __init__(self, store: RouteStore) -> None:
        self._store = store
        self._kept_by: dict[RouteName, GatewayKey] = {}
        self._served: dict[GatewayKey, Mapping[str, str]] = {}
        """By gateway, as it was last written: its routes that it serves any generation of, and their uids."""

    def kept(self, key: GatewayKey, served: Served, uids: Mapping[str, str]) -> list[RouteSource]:
        """Those that `key` is to go on with, of what it has `served`, as sources that have no new generation here."""
        sources = []
        for name, form in served.routes.items():
            route = self._store.get(RouteName(key.namespace, name))
            if (
                route is not None
                and route.key != key
                and uids.get(name, route.uid) == route.uid
                and form.generation < route.generation
                and not self._is_served(route)
            ):
                sources.append(RouteSource(name, _ELSEWHERE, route.generation, route.created, form))
        return sources

    def wrote(
        self, key: GatewayKey, routes: Iterable[Route], serving: Mapping[str, int | None], kept: Sequence[RouteSource]
    ) -> frozenset[GatewayKey]:
        """The gateway's ConfigMap holds what `serving` says of its `routes`, and what it has `kept` beside. The answer:
        gateways that have to be looked at for that."""
        again = set()
        now = {RouteName(key.namespace, source.name) for source in kept}
        for name in [name for name, keeper in self._kept_by.items() if keeper == key and name not in now]:
            del self._kept_by[name]
        for name in now:
            route = self._store.get(name)
            if self._kept_by.get(name) != key and route is not None:
                self._kept_by[name] = key
                again.add(route.key)  # it has to be told
        self._served[key] = {route.name.name: route.uid for route in routes if serving[route.name.name] is not None}
        if not self._served[key]:
            del self._served[key]
        return frozenset(again | self._let_go(key))

    def _let_go(self, key: GatewayKey) -> frozenset[GatewayKey]:
        """Keepers of routes that are served by `key` now, or are no more."""
        found = set()
        for name, keeper in self._kept_by.items():
            route = self._store.get(name)
            if keeper != key and (route is None or (route.key == key and self._is_served(route))):
                found.add(keeper)
        return frozenset(found)

    def retire(self, key: GatewayKey) -> frozenset[GatewayKey]:
        """The gateway has no routes and keeps none."""
        return self.wrote(key, (), {}, ())

    def keepers(self, routes: Iterable[Route]) -> Mapping[str, str]:
        """Of those that another gateway keeps: which."""
        return {
            route.name.name: keeper.gateway
            for route in routes
            if (keeper := self._kept_by.get(route.name)) is not None and keeper != route.key
        }

    def _is_served(self, route: Route) -> bool:
        """Where it belongs: be it a generation that was accepted there before."""
        return self._served.get(route.key, {}).get(route.name.name) == route.uid

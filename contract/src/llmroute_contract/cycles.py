"""Cycles in a graph of names: which there are, and a way along one. Knows nothing of routes.

A graph is a mapping from each name to the names one step on, all of which are keys. Everything here is iterative (a
chain may be 1,000 long), takes time linear in the steps, and answers in the graph's own order.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

Graph = Mapping[str, Sequence[str]]


def knots(graph: Graph) -> list[frozenset[str]]:
    """The groups of names that lead to one another, and so lie on cycles; a name that steps to itself is one too.

    Kosaraju's strongly connected components: names by when a walk is done with them, then walks against the arrows.
    """
    backwards: dict[str, list[str]] = {name: [] for name in graph}
    for name, following in graph.items():
        for follower in following:
            backwards[follower].append(name)
    found = []
    grouped: set[str] = set()
    for name in reversed(list(_finished(graph))):
        if name in grouped:
            continue
        group = {name}
        pending = [name]
        while pending:
            fresh = [other for other in backwards[pending.pop()] if other not in grouped and other not in group]
            group.update(fresh)
            pending += fresh
        grouped |= group
        if len(group) > 1 or name in graph[name]:
            found.append(frozenset(group))
    return found


def _finished(graph: Graph) -> Iterator[str]:
    """Names in the order in which a depth-first walk leaves them."""
    seen: set[str] = set()
    for start in graph:
        if start in seen:
            continue
        seen.add(start)
        walk = [(start, iter(graph[start]))]
        while walk:
            name, following = walk[-1]
            unseen = next((follower for follower in following if follower not in seen), None)
            if unseen is None:
                yield name
                walk.pop()
            else:
                seen.add(unseen)
                walk.append((unseen, iter(graph[unseen])))


def reachable(graph: Graph, starts: Iterable[str]) -> set[str]:
    """The names that can be come to from `starts`, these included."""
    seen = set(starts)
    pending = list(seen)
    while pending:
        fresh = [follower for follower in graph[pending.pop()] if follower not in seen]
        seen.update(fresh)
        pending += fresh
    return seen


def leads_to(graph: Graph, backwards: Graph, starts: Iterable[str], ends: Iterable[str]) -> bool:
    """Whether a way leads from one of `starts` to one of `ends`; `backwards` is `graph` against its arrows.

    Walks from both sides by turns, so that it costs no more than twice the smaller side: adding one step after the
    other to a long chain, most often that is a single name.
    """
    from_start, from_end = set(starts), set(ends)
    sides = (
        (graph, from_start, from_end, list(from_start)),
        (backwards, from_end, from_start, list(from_end)),
    )
    if from_start & from_end:
        return True
    while True:
        for steps, seen, other, pending in sides:
            if not pending:
                return False
            for name in steps[pending.pop()]:
                if name in other:
                    return True
                if name not in seen:
                    seen.add(name)
                    pending.append(name)


def shortest_way(graph: Graph, start: str, end: str) -> list[str]:
    """The names from `start` to `end`, both included; [] where no way leads there."""
    came_from = {start: start}
    pending = deque([start])
    while pending and end not in came_from:
        name = pending.popleft()
        for follower in graph[name]:
            if follower not in came_from:
                came_from[follower] = name
                pending.append(follower)
    if end not in came_from:
        return []
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]

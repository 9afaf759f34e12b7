"""Knots and ways on every graph of up to four names, against the plainest way to find them."""

from collections.abc import Iterator, Mapping
from itertools import chain, combinations, pairwise, product

from llmroute_contract.cycles import knots, leads_to, reachable, shortest_way

Graph = Mapping[str, list[str]]


def _graphs_of(steps: list[tuple[str, str]], names: str) -> Iterator[Graph]:
    for chosen in chain.from_iterable(combinations(steps, count) for count in range(len(steps) + 1)):
        yield {name: [end for start, end in chosen if start == name] for name in names}


def every_graph() -> Iterator[Graph]:
    """All of three names, and all of four where no name leads to itself: 4,608."""
    yield from _graphs_of([(start, end) for start, end in product("abc", repeat=2)], "abc")
    yield from _graphs_of([(start, end) for start, end in product("abcd", repeat=2) if start != end], "abcd")


def after(graph: Graph, start: str) -> set[str]:
    """What one step or more leads to: brute force."""
    found = set(graph[start])
    for _ in graph:
        found |= {end for name in found for end in graph[name]}
    return found


def backwards(graph: Graph) -> Graph:
    return {name: [start for start in graph if name in graph[start]] for name in graph}


def test_knots_are_the_names_that_lead_back_to_themselves_grouped_by_each_other() -> None:
    for graph in every_graph():
        ahead = {name: after(graph, name) for name in graph}
        expected = {
            frozenset(other for other in graph if other in ahead[name] and name in ahead[other])
            for name in graph
            if name in ahead[name]
        }
        found = knots(graph)
        assert set(found) == expected, graph
        assert len(found) == len(expected), graph


def test_reachable_and_leads_to_follow_every_step() -> None:
    for graph in every_graph():
        against = backwards(graph)
        for start in graph:
            ahead = after(graph, start) | {start}
            assert reachable(graph, [start]) == ahead, graph
            assert [leads_to(graph, against, [start], [end]) for end in graph] == [end in ahead for end in graph], graph
        assert reachable(graph, ["a", "b"]) == reachable(graph, ["a"]) | reachable(graph, ["b"])
        assert leads_to(graph, against, ["a", "b"], ["c"]) == ("c" in reachable(graph, ["a", "b"]))


def test_the_shortest_way_is_a_way_and_none_is_shorter() -> None:
    for graph in every_graph():
        for end in graph:
            way = shortest_way(graph, "a", end)
            if not way:
                assert end != "a", graph
                assert end not in after(graph, "a"), graph
                continue
            assert (way[0], way[-1]) == ("a", end)
            assert all(following in graph[name] for name, following in pairwise(way)), graph
            layer = {"a"}
            for _ in way[1:]:
                assert end not in layer, graph
                layer = {following for name in layer for following in graph[name]}
            assert end in layer, graph


def test_a_chain_of_a_thousand_needs_no_recursion() -> None:
    names = [f"m{number}" for number in range(1000)]
    ring = {name: [following] for name, following in zip(names, [*names[1:], names[0]], strict=True)}
    assert knots(ring) == [frozenset(names)]
    assert shortest_way(ring, names[0], names[-1]) == names

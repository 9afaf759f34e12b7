"""Refuses new generations whose fallbacks lead nowhere or round in a circle. The rules stand in `compile.py`.

Both parts touch each step of a fallback a bounded number of times: a namespace may hold thousands of routes, and one
tenant's wrong ones must not keep the controller from the others'.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from llmroute_contract import compiled as c
from llmroute_contract.cycles import knots, leads_to, reachable
from llmroute_contract.draft import Draft, Owners, owners_of
from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.references import ModelFinder, cyclic_fallback, fallback_graph, unknown_fallbacks

CIRCLES_TOLD = 3
"""Of one route. Its first circle is most often its only one; each costs a search for its shortest form."""


def refuse_bad_fallbacks(drafts: Sequence[Draft]) -> None:
    """Until nothing more is refused: there are no more rounds than drafts, for each refuses one that was not yet."""
    while _refuse_unknown_fallbacks(drafts) or _refuse_circles(drafts):
        pass


def look_again(drafts: Sequence[Draft]) -> bool:
    """Takes back refusals for a fallback that is served after all, once for each draft. Whether there were any.

    Another route's refusal does that: it puts back its last accepted form, whose models were not looked for before.
    """
    find = ModelFinder(_names(draft.route for draft in drafts))
    found = [draft for draft in drafts if _may_look_again(draft) and _all_known_to(draft, find)]
    for draft in found:
        draft.looked_at_again = True
        draft.refusals.clear()
    return bool(found)


def _may_look_again(draft: Draft) -> bool:
    return (
        not draft.looked_at_again
        and bool(draft.refusals)
        and all(problem.reason == "UnknownFallback" for problem in draft.refusals)
    )


def _all_known_to(draft: Draft, find: ModelFinder) -> bool:
    """Whether no fallback would be unknown if the new generation stood in the place of the last accepted one."""
    assert draft.fresh is not None
    old, new = list(_names([draft.source.last_accepted])), list(_names([draft.fresh]))
    _exchange(find, old, new)
    known = not unknown_fallbacks(draft.fresh, find, {})
    _exchange(find, new, old)
    return known


def _exchange(find: ModelFinder, out: Iterable[str], into: Iterable[str]) -> None:
    for name in into:
        find.add(name)
    for name in out:
        find.remove(name)


# --- unknown


def _refuse_unknown_fallbacks(drafts: Sequence[Draft]) -> bool:
    """Whether any was refused. A refusal takes models away: only the drafts that fall back on those are judged anew."""
    find = ModelFinder(_names(draft.route for draft in drafts))
    refused_models = {name: draft.name for draft in drafts if draft.refusals for name in _wanted(draft)}
    falling_back_on: dict[str, list[Draft]] = {}
    pending = deque(drafts)
    refused = False
    while pending:
        draft = pending.popleft()
        if draft.refusals or draft.fresh is None:
            continue
        draft.refusals += unknown_fallbacks(draft.fresh, find, refused_models)
        if not draft.refusals:
            for fallback in draft.fallbacks:
                falling_back_on.setdefault(find(fallback) or "", []).append(draft)
            continue
        refused = True
        refused_models.update(dict.fromkeys(_wanted(draft), draft.name))
        for name in _names([draft.source.last_accepted]):
            find.add(name)
        for name in _names([draft.fresh]):
            if find.remove(name):
                pending += falling_back_on.pop(name, ())
    return refused


def _names(routes: Iterable[c.CompiledRoute | None]) -> Iterator[str]:
    return (model.name for route in routes if route is not None for model in route.models)


def _wanted(draft: Draft) -> list[str]:
    """The models that the new generation names, where it can be read."""
    spec = draft.source.spec
    return [model.name for model in spec.models or ()] if isinstance(spec, LLMRouteSpec) else []


# --- circles


@dataclass(frozen=True, slots=True)
class _Step:
    """A fallback of `entry` that leads to `following`, both entries of one knot."""

    draft: Draft
    field: str
    entry: str
    following: str
    is_served: bool
    """The draft was refused before: this is a step of its last accepted form."""
    was_accepted_before: bool


def _refuse_circles(drafts: Sequence[Draft]) -> bool:
    """Whether any was refused."""
    owners = owners_of(drafts)
    find = ModelFinder(owners)
    graph = fallback_graph({name: owned.model.fallbacks for name, owned in owners.items()}, find)
    # There is mostly no knot: then a single walk over all routes was enough. Two knots may have a draft in common.
    all_steps = [
        [step for entry in graph if entry in knot for step in _steps_within(knot, entry, owners, find)]
        for knot in knots(graph)
    ]
    refused = [_refuse_in_knot(steps) for steps in all_steps]
    return any(refused)


def _steps_within(knot: Collection[str], entry: str, owners: Owners, find: ModelFinder) -> list[_Step]:
    draft, place, model = owners[entry]
    accepted = draft.fallbacks_before.get(entry, ())
    return [
        _Step(
            draft=draft,
            field=f"spec.models[{place}].fallbacks[{index}]",
            entry=entry,
            following=following,
            is_served=bool(draft.refusals),
            was_accepted_before=fallback in accepted,
        )
        for index, fallback in enumerate(model.fallbacks)
        if (following := find(fallback)) is not None and following in knot
    ]


def _refuse_in_knot(steps: Sequence[_Step]) -> bool:
    """Lays the steps one route after the other and refuses those that close a circle. Whether any was refused.

    What is served anyway is laid first (circles of last accepted forms alone have nobody to refuse: a name of theirs
    may be served by another entry since; gateways plan each model once). Then come steps that were accepted before,
    then new ones, each from the oldest route on.
    """
    laid = _Laid(steps)
    for step in steps:
        if step.is_served:
            laid.add(step)
    open_steps = [step for step in steps if not step.is_served]
    refused = False
    for draft, theirs in _by_draft(step for step in open_steps if step.was_accepted_before):
        # They stay laid when the draft is refused, for its last accepted form has them too.
        refused |= _lay(draft, theirs, laid)
    for draft, theirs in _by_draft(step for step in open_steps if not step.was_accepted_before):
        if not draft.refusals and _lay(draft, theirs, laid):
            refused = True
            for step in reversed(theirs):
                laid.remove_last(step)
    return refused


def _lay(draft: Draft, steps: Sequence[_Step], laid: "_Laid") -> bool:
    """Lays `steps`. Whether the draft was refused for that: it was not yet, and a step closes a circle."""
    for step in steps:
        laid.add(step)
    circling = [] if draft.refusals else laid.on_a_circle(steps)
    draft.refusals += [
        cyclic_fallback(step.field, step.entry, step.following, laid.forwards) for step in circling[:CIRCLES_TOLD]
    ]
    return bool(circling)


def _by_draft(steps: Iterable[_Step]) -> list[tuple[Draft, list[_Step]]]:
    """The oldest draft first."""
    found: dict[str, tuple[Draft, list[_Step]]] = {}
    for step in steps:
        found.setdefault(step.draft.name, (step.draft, []))[1].append(step)
    return sorted(found.values(), key=lambda one: one[0].rank)


class _Laid:
    """The steps laid so far, to be walked both ways."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self.forwards: dict[str, list[str]] = {step.entry: [] for step in steps}
        self._backwards: dict[str, list[str]] = {step.entry: [] for step in steps}

    def add(self, step: _Step) -> None:
        self.forwards[step.entry].append(step.following)
        self._backwards[step.following].append(step.entry)

    def remove_last(self, step: _Step) -> None:
        """`step` is the one that was added last of those that are laid."""
        self.forwards[step.entry].pop()
        self._backwards[step.following].pop()

    def on_a_circle(self, steps: Sequence[_Step]) -> list[_Step]:
        """Those of `steps`, which are laid, from which a way leads back."""
        followings = {step.following for step in steps}
        if not leads_to(self.forwards, self._backwards, followings, {step.entry for step in steps}):
            return []
        reached = reachable(self.forwards, followings)
        groups = knots({name: following for name, following in self.forwards.items() if name in reached})
        group_of = {name: index for index, group in enumerate(groups) for name in group}
        return [
            step for step in steps if step.entry in group_of and group_of[step.entry] == group_of.get(step.following)
        ]

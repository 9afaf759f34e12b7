"""Refuses new generations whose fallbacks lead nowhere or round in a circle. The rules stand in `compile.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from llmroute_contract.cycles import knots
from llmroute_contract.draft import Draft, Owners, age_of, owners_of
from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.problem import TOLD_MAX
from llmroute_contract.references import ModelFinder, cyclic_fallback, fallback_graph, unknown_fallbacks


def refuse_bad_fallbacks(drafts: Sequence[Draft]) -> None:
    """Until nothing more is refused: there are no more rounds than drafts, for each refuses one that was not yet."""
    refused = True
    while refused:
        owners = owners_of(drafts)
        find = ModelFinder(owners)
        refused = _refuse_unknown_fallbacks(drafts, find) or _refuse_cycles(owners, find)


def _refuse_unknown_fallbacks(drafts: Sequence[Draft], find: ModelFinder) -> bool:
    """Whether any was refused. All are judged by the same models, none by what another's refusal leaves."""
    refused_models = {
        model.name: draft.name
        for draft in drafts
        if draft.refusals and isinstance(draft.source.spec, LLMRouteSpec)
        for model in draft.source.spec.models or ()
    }
    found = [
        (draft, problems)
        for draft in drafts
        if not draft.refusals and isinstance(draft.source.spec, LLMRouteSpec)
        if (problems := unknown_fallbacks(draft.source.spec, find, refused_models))
    ]
    for draft, problems in found:
        draft.refusals += problems
    return bool(found)


def _refuse_cycles(owners: Owners, find: ModelFinder) -> bool:
    """Whether any was refused: of each knot one route, after which the next round looks what is left of it.

    A knot of last accepted forms alone has nobody to refuse (a name of theirs may be served by another entry since);
    it stays, and gateways plan each model once.
    """
    graph = fallback_graph({name: owned.model.fallbacks for name, owned in owners.items()}, find)
    refused: set[str] = set()
    for knot in knots(graph):
        steps = [step for entry in graph if entry in knot for step in _steps_within(knot, entry, owners, find)]
        if any(step.draft.name in refused for step in steps):
            continue  # this knot may be gone already
        able = [step for step in steps if not step.draft.refusals]
        if able:
            new = [step for step in able if not step.was_accepted_before]
            culprit = max((step.draft for step in new or able), key=lambda draft: age_of(draft.source))
            culprit.refusals += [
                cyclic_fallback(step.field, step.entry, step.following, graph)
                for step in islice((step for step in able if step.draft is culprit), TOLD_MAX)
            ]
            refused.add(culprit.name)
    return bool(refused)


@dataclass(frozen=True, slots=True)
class _Step:
    """A fallback of `entry` that leads to `following`, an entry of the same knot."""

    draft: Draft
    field: str
    entry: str
    following: str
    was_accepted_before: bool


def _steps_within(knot: frozenset[str], entry: str, owners: Owners, find: ModelFinder) -> list[_Step]:
    owned = owners[entry]
    accepted = owned.draft.fallbacks_before.get(entry, ())
    return [
        _Step(owned.draft, f"spec.models[{owned.place}].fallbacks[{index}]", entry, following, fallback in accepted)
        for index, fallback in enumerate(owned.model.fallbacks)
        if (following := find(fallback)) is not None and following in knot
    ]

"""A route while `compile.py` decides on it: its two forms, its rank, and which models are whose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from llmroute_contract import compiled as c
from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.problem import Problem


@dataclass(frozen=True, slots=True)
class RouteSource:
    """One route as it stands: its typed spec, or why it has none. Its name is its own within the gateway."""

    name: str
    spec: LLMRouteSpec | tuple[Problem, ...]
    generation: int = 0
    created: datetime | None = None  # None: younger than all that have one
    last_accepted: c.CompiledRoute | None = None


@dataclass(slots=True)
class Draft:
    """A route on its way. `refusals` are the problems that keep its new generation out."""

    source: RouteSource
    fresh: c.CompiledRoute | None
    refusals: list[Problem]
    looked_at_again: bool = False
    """Whether refusals were taken back once."""
    fallbacks_before: Mapping[str, Sequence[str]] = field(init=False)
    """By model, as they were last accepted."""

    def __post_init__(self) -> None:
        before = self.source.last_accepted
        self.fallbacks_before = {model.name: model.fallbacks for model in before.models} if before is not None else {}

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def rank(self) -> tuple[datetime, str]:
        """Sorts the older first, and never two alike."""
        return (self.source.created or datetime.max.replace(tzinfo=UTC), self.source.name)

    @property
    def fallbacks(self) -> set[str]:
        """Of the new generation."""
        return {name for model in (self.fresh.models if self.fresh else ()) for name in model.fallbacks}

    @property
    def route(self) -> c.CompiledRoute | None:
        """What is to be served of it."""
        return self.source.last_accepted if self.refusals else self.fresh


class Owned(NamedTuple):
    """A model, in whose route it is, and where in it."""

    draft: Draft
    place: int
    model: c.CompiledModel


Owners = Mapping[str, Owned]


def owners_of(drafts: Sequence[Draft]) -> Owners:
    """Every model that is to be served: the oldest route's, where several name the same."""
    owners: dict[str, Owned] = {}
    for draft in drafts:
        for index, model in enumerate(draft.route.models if draft.route else ()):
            owners.setdefault(model.name, Owned(draft, index, model))
    return owners

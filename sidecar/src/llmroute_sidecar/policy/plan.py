"""Where a model goes: the ordered candidates of a request.

Theory of operation. A model's entry is found by its exact name, else by the longest prefix, else there is the default
upstream. The plan is the entry's targets, then those of its fallbacks, depth first: a fallback's own fallbacks come
before the next one of the list. Each model stands in a plan once, which ends cycles; a fallback that names nothing is
passed over (the route that had it may be gone); a plan holds at most MAX_CANDIDATES. Targets are tried in the order
they are listed, those of weight 0 last; sharing traffic by weight comes with a later version and will choose the
first target here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llmroute_contract.references import ModelFinder

MAX_CANDIDATES = 16
_CACHED_PLANS = 4096


@dataclass(frozen=True, slots=True)
class Target:
    upstream: str
    """The upstream's id: `<route>/<name>`."""
    model: str | None
    """The upstream's name for the model; None: as the client said."""
    weight: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    name: str
    """Exact, or with a trailing `*` a prefix."""
    route: str
    targets: tuple[Target, ...]
    fallbacks: tuple[str, ...]
    retry_attempts: int
    retry_backoff: float


@dataclass(frozen=True, slots=True)
class Candidate:
    model: str
    """As the client asked, or the fallback's name."""
    entry: ModelEntry
    upstream: str
    upstream_model: str
    is_fallback: bool


class ModelTable:
    """All models of a snapshot; immutable but for its cache of plans, which is bounded."""

    def __init__(self, entries: Sequence[ModelEntry], default: tuple[str, str] | None) -> None:
        """`default` is (route, upstream id) of the default upstream."""
        self._entries = {entry.name: entry for entry in entries}
        self._finder = ModelFinder(self._entries)
        self._default: ModelEntry | None = None
        if default is not None:
            route, upstream = default
            self._default = ModelEntry("*", route, (Target(upstream, None, 1),), (), 1, 0.0)
        self._plans: dict[str, tuple[Candidate, ...]] = {}

    def find(self, model: str) -> ModelEntry | None:
        """The entry that serves `model`."""
        entry = self._entries.get(model)
        if entry is not None and not model.endswith("*"):
            return entry
        pattern = self._finder(model)
        return self._default if pattern is None else self._entries[pattern]

    def plan(self, model: str) -> tuple[Candidate, ...]:
        """The candidates for `model`, best first; () where nothing serves it."""
        plan = self._plans.get(model)
        if plan is None:
            plan = self._make(model)
            if len(self._plans) < _CACHED_PLANS:
                self._plans[model] = plan
        return plan

    def _make(self, model: str) -> tuple[Candidate, ...]:
        candidates: list[Candidate] = []
        planned: set[str] = set()
        pending = [model]
        while pending and len(candidates) < MAX_CANDIDATES:
            name = pending.pop()
            entry = self.find(name)
            if entry is None or name in planned:
                continue
            planned.add(name)
            targets = sorted(entry.targets, key=lambda target: target.weight == 0)
            candidates += [
                Candidate(name, entry, target.upstream, target.model or name, name != model) for target in targets
            ]
            pending += reversed(entry.fallbacks)
        return tuple(candidates[:MAX_CANDIDATES])

    def models(self) -> tuple[str, ...]:
        """The exact names, sorted."""
        return tuple(sorted(name for name in self._entries if not name.endswith("*")))

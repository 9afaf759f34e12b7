"""Where a model goes: the ordered candidates of a request.

Theory of operation
===================

*Finding.* A model is served by the entry of its exact name, else by the entry with the longest prefix that fits, else
by the default upstream: `llmroute_contract.references.ModelFinder`'s rule, made fast here for every request. An entry
`gpt-4*` fits `gpt-4` and `gpt-4o`; `*` fits all.

*Planning.* Take the model's targets, then for each of its fallbacks in turn the same, depth first:

    chat -> [a, b]      a -> [c]        chat's targets, a's, c's, b's

- Each model stands in a plan once, at its first place. That ends every cycle.
- A fallback that no entry names is passed over: the route that had it may be gone. It does not go to the default
  upstream, which knows nothing of the name and would answer for the client's mistake (404).
- Targets are tried in the order they are listed, those of weight 0 after the others. Sharing traffic by weight comes
  with a later version and will choose which target stands first.
- A plan holds at most MAX_CANDIDATES.

A plan depends on the model's name alone, so it is made once: those of exact names are kept as long as the table,
those of names that clients made up (prefixes, the default upstream) up to MADE_UP_PLANS, then all of them are
dropped: making one again costs microseconds. The length of names is the caller's to bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_CANDIDATES = 16
MADE_UP_PLANS = 1024
DEFAULT_NAME = "*default"
"""The name of the default upstream's entry, which no model or pattern can have."""


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
    """All models of a snapshot; immutable but for the plans it remembers."""

    __slots__ = ("_default", "_exact", "_made_up", "_plans", "_prefix_lengths", "_prefixes")

    def __init__(self, entries: Sequence[ModelEntry], default: tuple[str, str] | None) -> None:
        """Where two entries have one name, the first has it. `default` is (route, upstream id) of the default
        upstream."""
        self._exact: dict[str, ModelEntry] = {}
        self._prefixes: dict[str, ModelEntry] = {}
        for entry in entries:
            if entry.name.endswith("*"):
                self._prefixes.setdefault(entry.name[:-1], entry)
            else:
                self._exact.setdefault(entry.name, entry)
        self._prefix_lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}, reverse=True))
        self._default: ModelEntry | None = None
        if default is not None:
            route, upstream = default
            self._default = ModelEntry(DEFAULT_NAME, route, (Target(upstream, None, 1),), (), 1, 0.0)
        self._plans: dict[str, tuple[Candidate, ...]] = {}
        self._made_up = 0

    def find(self, model: str) -> ModelEntry | None:
        """The entry that serves `model`."""
        return self._exact.get(model) or self._by_prefix(model) or self._default

    def plan(self, model: str) -> tuple[Candidate, ...]:
        """The candidates for `model`, best first; () where nothing serves it."""
        plan = self._plans.get(model)
        return self._remember(model) if plan is None else plan

    def models(self) -> tuple[str, ...]:
        """The exact names, sorted."""
        return tuple(sorted(self._exact))

    def _by_prefix(self, model: str) -> ModelEntry | None:
        # One look per length that occurs, not per prefix: a thousand prefixes have a dozen lengths.
        for length in self._prefix_lengths:
            if length <= len(model):
                entry = self._prefixes.get(model[:length])
                if entry is not None:
                    return entry
        return None

    def _remember(self, model: str) -> tuple[Candidate, ...]:
        plan = self._make(model)
        if not plan:
            return plan
        if model not in self._exact:
            if self._made_up >= MADE_UP_PLANS:
                self._plans = {name: kept for name, kept in self._plans.items() if name in self._exact}
                self._made_up = 0
            self._made_up += 1
        self._plans[model] = plan
        return plan

    def _make(self, model: str) -> tuple[Candidate, ...]:
        candidates: list[Candidate] = []
        planned: set[str] = set()
        pending = [model]
        while pending and len(candidates) < MAX_CANDIDATES:
            name = pending.pop()
            entry = self.find(name)
            if entry is None or name in planned or (entry is self._default and name != model):
                continue
            planned.add(name)
            candidates += [
                Candidate(name, entry, target.upstream, target.model or name, name != model)
                for target in sorted(entry.targets, key=_comes_last)
            ]
            pending += reversed(entry.fallbacks)
        return tuple(candidates[:MAX_CANDIDATES])


def _comes_last(target: Target) -> bool:
    return target.weight == 0

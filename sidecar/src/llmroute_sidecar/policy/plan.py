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
- A model's targets stand by weight, those of one weight as they are listed.
- A plan holds at most MAX_CANDIDATES.

*Choosing.* Where two or more targets of a model have a weight, `in_turn` says anew for each call which comes first
(turns.py): by the model's wheel, or by the value of its sticky header. Then its siblings: the one that stands in, the
rest by weight (of a sticky call all by score), those of weight 0 last. Whose turn it is gets asked when the call comes
to that model and no sooner, so that a fallback's turns are used up by the calls that reach it alone.

A plan depends on the model's name alone, so it is made once: those of exact names are kept as long as the table,
those of names that clients made up (prefixes, the default upstream) up to MADE_UP_PLANS, then all of them are
dropped: making one again costs microseconds. The length of names is the caller's to bound.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmroute_sidecar.policy.turns import Turns, by_score

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
    sticky_header: str | None = None
    """In lower case."""
    keep_alive: tuple[float, float] | None = None
    """Seconds until a silent stream is begun with a sign of life, and between further ones."""

    @property
    def shares(self) -> bool:
        """Whether there is a choice of targets."""
        return sum(target.weight > 0 for target in self.targets) > 1


@dataclass(frozen=True, slots=True)
class Candidate:
    model: str
    """As the client asked, or the fallback's name."""
    entry: ModelEntry
    upstream: str
    upstream_model: str
    is_fallback: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One model's candidates within a plan, by weight."""

    entry: ModelEntry
    candidates: tuple[Candidate, ...]
    weights: tuple[int, ...]
    """Of those that have one: they come first. Below two there is nothing to choose."""
    names: tuple[bytes, ...]
    """What tells those apart, for scores."""


@dataclass(frozen=True, slots=True)
class Plan:
    candidates: tuple[Candidate, ...]
    """All, as they stand."""
    parts: tuple[Part, ...]
    """() where nothing is to be chosen: the candidates are tried as they stand."""


NOWHERE = Plan((), ())


class ModelTable:
    """All models of a snapshot; immutable but for the plans it remembers."""

    __slots__ = ("_default", "_exact", "_made_up", "_plans", "_prefix_lengths", "_prefixes")

    def __init__(
        self, entries: Sequence[ModelEntry], default: tuple[str, str] | None, default_model: str | None = None
    ) -> None:
        """Where two entries have one name, the first has it. `default` is (route, upstream id) of the default
        upstream, `default_model` the model that it serves whatever is asked for, where its URL names one."""
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
            self._default = ModelEntry(DEFAULT_NAME, route, (Target(upstream, default_model, 1),), (), 1, 0.0)
        self._plans: dict[str, Plan] = {}
        self._made_up = 0

    def find(self, model: str) -> ModelEntry | None:
        """The entry that serves `model`."""
        return self._exact.get(model) or self._by_prefix(model) or self._default

    def plan(self, model: str) -> Plan:
        """The plan for `model`; NOWHERE where nothing serves it."""
        plan = self._plans.get(model)
        return self._remember(model) if plan is None else plan

    def models(self) -> tuple[str, ...]:
        """The exact names, sorted."""
        return tuple(sorted(self._exact))

    def entries(self) -> tuple[ModelEntry, ...]:
        """All of them: exact names, sorted, then prefixes, and the default upstream's (DEFAULT_NAME) last."""
        exact = (self._exact[name] for name in self.models())
        prefixes = (self._prefixes[prefix] for prefix in sorted(self._prefixes))
        return (*exact, *prefixes, *([] if self._default is None else [self._default]))

    def turns(self, before: Mapping[str, Turns]) -> dict[str, Turns]:
        """The turns of each entry that shares its traffic, by its name; those of `before` where its targets are the
        same."""
        found: dict[str, Turns] = {}
        for entry in (*self._exact.values(), *self._prefixes.values()):
            if entry.shares:
                old = before.get(entry.name)
                key = (entry.route, entry.targets)
                weights = [target.weight for target in _by_weight(entry.targets) if target.weight]
                found[entry.name] = old if old is not None and old.key == key else Turns(key, weights)
        return found

    def _by_prefix(self, model: str) -> ModelEntry | None:
        # One look per length that occurs, not per prefix: a thousand prefixes have a dozen lengths.
        for length in self._prefix_lengths:
            if length <= len(model):
                entry = self._prefixes.get(model[:length])
                if entry is not None:
                    return entry
        return None

    def _remember(self, model: str) -> Plan:
        plan = self._make(model)
        if plan is NOWHERE:
            return plan
        if model not in self._exact:
            if self._made_up >= MADE_UP_PLANS:
                self._plans = {name: kept for name, kept in self._plans.items() if name in self._exact}
                self._made_up = 0
            self._made_up += 1
        self._plans[model] = plan
        return plan

    def _make(self, model: str) -> Plan:
        parts: list[Part] = []
        candidates: list[Candidate] = []
        planned: set[str] = set()
        pending = [model]
        while pending and len(candidates) < MAX_CANDIDATES:
            name = pending.pop()
            entry = self.find(name)
            if entry is None or name in planned or (entry is self._default and name != model):
                continue
            planned.add(name)
            part = _part(name, entry, name != model)
            parts.append(part)
            candidates += part.candidates
            pending += reversed(entry.fallbacks)
        if not candidates:
            return NOWHERE
        choosing = any(len(part.weights) > 1 for part in parts)
        return Plan(tuple(candidates[:MAX_CANDIDATES]), tuple(parts) if choosing else ())


def _part(name: str, entry: ModelEntry, is_fallback: bool) -> Part:
    targets = _by_weight(entry.targets)
    candidates = tuple(Candidate(name, entry, target.upstream, target.model or name, is_fallback) for target in targets)
    shared = [target for target in targets if target.weight]
    weights = tuple(target.weight for target in shared)
    names = tuple(f"{target.upstream} {target.model or ''}".encode() for target in shared)
    return Part(entry, candidates, weights, names)


def _by_weight(targets: Sequence[Target]) -> list[Target]:
    return sorted(targets, key=lambda target: -target.weight)


def in_turn(
    plan: Plan,
    turns: Mapping[str, Turns],
    header: Callable[[str], bytes | None],
    able: Callable[[Candidate], bool],
) -> Iterator[Candidate]:
    """The candidates of a plan with something to choose, each chosen when it is asked for: asking on says that those
    before did not serve. `header` reads the call's headers, `able` says whether a candidate can serve just now."""
    left = MAX_CANDIDATES
    for part in plan.parts:
        for candidate in _chosen(part, turns, header, able):
            yield candidate
            left -= 1
            if not left:
                return


def _chosen(
    part: Part,
    turns: Mapping[str, Turns],
    header: Callable[[str], bytes | None],
    able: Callable[[Candidate], bool],
) -> Iterator[Candidate]:
    entry, candidates, shared = part.entry, part.candidates, len(part.weights)
    if shared < 2:
        yield from candidates
        return
    value = header(entry.sticky_header) if entry.sticky_header is not None else None
    if value is not None:
        for index in by_score(value, part.names, part.weights):
            yield candidates[index]
    else:
        its = turns[entry.name]
        first = its.first()
        yield candidates[first]
        second = its.stand_in(first, lambda index: able(candidates[index]))
        if second is not None:
            yield candidates[second]
        for index in range(shared):
            if index not in (first, second):
                yield candidates[index]
    yield from candidates[shared:]

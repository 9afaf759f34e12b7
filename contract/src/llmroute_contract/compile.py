"""compile(routes) -> the configuration of one gateway, and a verdict on each route. Pure and order-free.

Theory of operation
===================

Routes are ranked by age: creation time, then name. Each has up to two forms: its new generation, and the one last
accepted, which is served instead where the new one is refused, byte for byte. Then, until nothing more is refused:

1. *References.* A new generation that does not hold in itself is refused. So is one whose fallback no served model
   fits: refusing one route takes its models away, which may leave another's fallback unknown. Where fallbacks lead
   round in a circle, the route that closed it is refused: steps that were accepted before come first, then new ones,
   the older routes' before the younger's.
2. *Conflicts.* Of two routes that name the same model (or both a default upstream) the older keeps it; the other is
   served without it, and told so. This settles the last accepted forms too.
3. *Size.* What was accepted before keeps its place in the ConfigMap; the room that is left goes to new generations,
   older routes first. One that does not fit is refused, and 1 and 2 are looked at anew.
4. *Second look.* A refusal may have put back a model that another route was refused for before; that one has a second
   chance, once. So a broken edit to one route does not make the accepted ones beside it look bad. (There is no such
   look at circles: one that only a refused generation closed is told until that is mended; all of it is served on.)

Each round refuses a new generation that was not refused before, or is a draft's one second look, so it ends; all that
is iterated over is sorted by rank, so that the same routes make the same bytes, whatever their order. What was accepted
names only what is served; a last accepted form may name a model that has gone since, and a gateway passes over such a
fallback.

What was refused may fit beside what has been accepted now. So all of this is done again with its own outcome as what
was last accepted, until that changes nothing: compiling what was written gives what was written, and a controller that
looks at its own ConfigMap finds nothing to do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from llmroute_contract import compiled as c
from llmroute_contract.compile_one import compile_route, inactive_fields
from llmroute_contract.draft import Draft, RouteSource, owners_of
from llmroute_contract.fallbacks import look_again, refuse_bad_fallbacks
from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.prices import Prices, known_prices
from llmroute_contract.problem import TOLD_MAX, Problem
from llmroute_contract.references import ServedNames, check_route, unknown_models
from llmroute_contract.shares import are_shared_out


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one route."""

    accepted: bool
    """Whether all of the new generation is served."""
    problems: tuple[Problem, ...]
    """At most TOLD_MAX. An accepted route has those that it works with all the same (UnknownModel)."""
    serving: int | None
    """The generation in the configuration; None where the route is not in it."""
    inactive: tuple[str, ...] = ()
    """Fields that this version carries but does not act on yet, each with why; at most TOLD_MAX."""


@dataclass(frozen=True, slots=True)
class Compilation:
    revision: str
    files: Mapping[str, bytes]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    shares: c.CompiledShares | None = None
    """Where limits are shared out."""


@dataclass(slots=True)
class _Settled:
    """A draft's route without what belongs to older ones. `told` are problems that do not keep it from being served."""

    draft: Draft
    route: c.CompiledRoute
    told: list[Problem]
    data: bytes

    @property
    def size(self) -> int:
        return c.size_of(self.route, self.data)


@dataclass(frozen=True, slots=True)
class _Shared:
    """How pods share limits: through a server, or each by its part."""

    state: c.CompiledSharedState | msgspec.UnsetType
    shares: c.CompiledShares | msgspec.UnsetType


@dataclass(frozen=True, slots=True)
class _Pass:
    """What comes of one look at all drafts."""

    drafts: Sequence[Draft]
    settled: Sequence[_Settled]
    served: Sequence[_Settled]
    index: c.CompiledGateway
    files: Mapping[str, bytes]

    @property
    def may_change(self) -> bool:
        """Whether a refusal hangs on other routes, and these may have changed since."""
        return any(draft.refusals and draft.fresh is not None for draft in self.drafts)


def compile_gateway(
    namespace: str,
    gateway: str,
    sources: Iterable[RouteSource],
    prices: Prices | None = None,
    shared_state: c.CompiledSharedState | None = None,
    shares: c.CompiledShares | None = None,
) -> Compilation:
    """The files of `gateway` and a verdict on each of `sources` (all of its routes, in any order). `prices` are those
    of models whose price a route does not state; the table of known ones by default. `shares` are for limits of scope
    Gateway, where there are any and no shared state."""
    known = known_prices() if prices is None else prices
    shared = _Shared(shared_state or msgspec.UNSET, (None if shared_state else shares) or msgspec.UNSET)
    drafts = sorted((_draft(namespace, gateway, source, known) for source in sources), key=lambda draft: draft.rank)
    done = _pass(namespace, gateway, drafts, shared)
    # A route that is served as it is now stays so in the next pass, be it as what was last accepted: hence no more
    # passes than routes. There is mostly one, and one more where something is refused.
    for _ in drafts:
        if not done.may_change:
            break
        before, done = done, _pass(namespace, gateway, _again(done), shared)
        if done.files == before.files:
            break
    _tell_unknown_models(done.served)
    found = done.index.shares or None
    verdicts = _verdicts(done, known, shared_state=shared_state is not None, shares=found)
    return Compilation(done.index.revision, done.files, verdicts, found)


def _pass(namespace: str, gateway: str, drafts: Sequence[Draft], shared: _Shared) -> _Pass:
    room = c.CONFIGMAP_MAX_BYTES - len(c.encode(c.index_of(namespace, gateway, (), shared.state, shared.shares)))
    while True:
        refuse_bad_fallbacks(drafts)
        settled = _settle_conflicts(drafts)
        if not _refuse_what_does_not_fit(settled, room) and not look_again(drafts):
            break
    served = _within_size(settled, room)
    shares = shared.shares if are_shared_out(one.route for one in served) else msgspec.UNSET
    routes = [(one.route, one.data) for one in served]
    index, files = c.gateway_files(namespace, gateway, routes, shared.state, shares)
    return _Pass(drafts, settled, served, index, files)


def _again(done: _Pass) -> list[Draft]:
    """The same drafts, with what is accepted now as what was last accepted."""
    served = {one.draft.name: one.route for one in done.served if not one.draft.refusals}
    return [
        Draft(
            replace(draft.source, last_accepted=served.get(draft.name, draft.source.last_accepted)),
            draft.fresh,
            [] if draft.fresh is not None else draft.refusals,
        )
        for draft in done.drafts
    ]


def _draft(namespace: str, gateway: str, source: RouteSource, known: Prices) -> Draft:
    problems = source.spec if isinstance(source.spec, tuple) else check_route(source.spec)
    if problems or isinstance(source.spec, tuple):
        return Draft(source, None, list(problems))
    return Draft(source, compile_route(namespace, gateway, source.name, source.generation, source.spec, known), [])


def _verdicts(
    done: _Pass, known: Prices, *, shared_state: bool, shares: c.CompiledShares | None
) -> Mapping[str, Verdict]:
    told = {one.draft.name: one.told for one in done.settled}
    serving = {one.draft.name: one.route.generation for one in done.served}
    verdicts = {}
    for draft in done.drafts:
        problems = (*draft.refusals, *told.get(draft.name, ()))
        spec = draft.source.spec
        verdicts[draft.name] = Verdict(
            accepted=all(problem.reason == "UnknownModel" for problem in problems),
            problems=problems[:TOLD_MAX],
            serving=serving.get(draft.name),
            inactive=()
            if draft.refusals or isinstance(spec, tuple)
            else inactive_fields(spec, known, shared_state=shared_state, shares=shares)[:TOLD_MAX],
        )
    return verdicts


# --- conflicts


def _settle_conflicts(drafts: Sequence[Draft]) -> list[_Settled]:
    owners = owners_of(drafts)
    default_owner: str | None = None
    settled = []
    for draft in drafts:
        route = draft.route
        if route is None:
            continue
        kept, told = [], []
        for index, model in enumerate(route.models):
            owner = owners[model.name].draft
            if owner is draft:
                kept.append(model)
            else:
                told.append(_model_conflict(index, model.name, owner.name))
        default = route.default_upstream
        if default is not None and default_owner is not None:
            told.append(_default_conflict(default_owner))
            default = None
        elif default is not None:
            default_owner = draft.name
        if told:
            route = msgspec.structs.replace(route, models=tuple(kept), default_upstream=default)
        # Of a last accepted form nothing is told: its fields are not those that a person sees in the spec.
        settled.append(_Settled(draft, route, [] if draft.refusals else told, c.encode(route)))
    return settled


def _model_conflict(index: int, model: str, owner: str) -> Problem:
    return Problem(
        f"spec.models[{index}].name",
        "ModelConflict",
        f"model {model!r} belongs to the older route {owner!r}; the other models of this route are served",
    )


def _default_conflict(owner: str) -> Problem:
    return Problem(
        "spec.defaultUpstream",
        "DefaultUpstreamConflict",
        f"the default upstream is set by the older route {owner!r}; the models of this route are served",
    )


# --- size


def _refuse_what_does_not_fit(settled: Sequence[_Settled], room: int) -> bool:
    """Whether any was refused."""
    if sum(one.size for one in settled) <= room:
        return False
    # What was accepted before has its place; a new generation that is smaller gives some of it away.
    growth = [one.size - _size_before(one.draft) for one in settled]
    room -= sum(one.size if grown < 0 else one.size - grown for one, grown in zip(settled, growth, strict=True))
    refused = False
    for one, grown in zip(settled, growth, strict=True):
        if one.draft.refusals or grown <= 0:
            continue
        if grown <= room:
            room -= grown
        else:
            one.draft.refusals.append(_too_large(one, grown - max(room, 0)))
            refused = True
    return refused


def _size_before(draft: Draft) -> int:
    before = draft.source.last_accepted
    return c.size_of(before, c.encode(before)) if before is not None else 0


def _too_large(one: _Settled, too_much: int) -> Problem:
    return Problem(
        "spec",
        "ConfigMapTooLarge",
        f"compiles to {len(one.data)} bytes, {too_much} more than the ConfigMap of gateway {one.route.gateway!r} "
        "has room for; split the route over several gateways",
    )


def _within_size(settled: Sequence[_Settled], room: int) -> list[_Settled]:
    """All, but for the case that what was last accepted is itself too much (of a version with a larger bound, say)."""
    served = []
    for one in settled:
        if one.size <= room:
            room -= one.size
            served.append(one)
        else:
            one.told.append(_too_large(one, one.size - room))
    return served


# --- what is told beside


def _tell_unknown_models(served: Sequence[_Settled]) -> None:
    """Told, not refused: the route works, and the model may come yet."""
    if any(one.route.default_upstream is not None for one in served):
        return  # any name reaches the default upstream
    names = ServedNames([model.name for one in served for model in one.route.models])
    for one in served:
        spec = one.draft.source.spec
        if not one.draft.refusals and isinstance(spec, LLMRouteSpec):
            one.told += unknown_models(spec, names)


__all__ = [
    "Compilation",
    "RouteSource",
    "Verdict",
    "compile_gateway",
    "compile_route",
    "inactive_fields",
]

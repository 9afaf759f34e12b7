"""What models cost: the table of known ones, and what a compiled route takes of it.

A route carries the prices that its targets can need, and no more: those it states itself (`spec.prices`), and of known
models those that its own do not cover. Which they are depends on nothing but the route and the table, so the same
routes make the same bytes until the table is another one.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.price_table import TEXT

Prices = Mapping[str, tuple[str, str]]
"""Model, or a prefix with a trailing `*` -> dollars for a million tokens, in and out, as `Usd` texts."""


@cache
def known_prices() -> Prices:
    lines = (line.split() for line in TEXT.splitlines())
    return {model: (given, made) for model, given, made in lines}


def prices_of(spec: LLMRouteSpec, known: Prices) -> dict[str, tuple[str, str]]:
    """The prices that a compiled route carries."""
    own = {price.model: (price.input_per_million, price.output_per_million) for price in spec.prices or ()}
    own_prefixes = _prefixes(own)
    known_prefixes = _prefixes(known)
    found = dict(own)
    for asked in {name for _, name in _asked_of_upstreams(spec)}:
        for model in _candidates(asked, known, known_prefixes):
            if model not in own and not model.removesuffix("*").startswith(own_prefixes):
                found[model] = known[model]
    return found


def unpriced_models(spec: LLMRouteSpec, known: Prices) -> list[tuple[str, str]]:
    """The field and name of each target's model whose price nobody states. Of names that clients choose nothing can
    be said."""
    prices = prices_of(spec, known)
    prefixes = _prefixes(prices)
    told: dict[str, str] = {}
    for field, name in _asked_of_upstreams(spec):
        if not name.endswith("*") and name not in prices and not name.startswith(prefixes):
            told.setdefault(name, field)
    return [(field, name) for name, field in told.items()]


def _asked_of_upstreams(spec: LLMRouteSpec) -> Iterator[tuple[str, str]]:
    """Which models the route's targets ask upstreams for, with the fields that say so; with a trailing `*` where
    clients choose the name."""
    own = {upstream.name: _own_model(upstream.url) for upstream in spec.upstreams}
    for index, model in enumerate(spec.models or ()):
        for place, target in enumerate(model.targets):
            if target.model is not None:
                yield f"spec.models[{index}].targets[{place}].model", target.model
            elif named := own.get(target.upstream):
                yield f"spec.models[{index}].targets[{place}].upstream", named
            else:
                yield f"spec.models[{index}].name", model.name
    if spec.default_upstream is not None:
        yield "spec.defaultUpstream", "*"


def _own_model(url: str) -> str:
    """The model that an upstream's URL names itself, as `litellm://provider/model` does; else nothing."""
    return url.removeprefix("litellm://").partition("/")[2] if url.startswith("litellm://") else ""


def _candidates(asked: str, known: Prices, known_prefixes: tuple[str, ...]) -> list[str]:
    """The entries of the table that may give the price of what is asked for."""
    if asked in known:
        return [asked]
    stem = asked.removesuffix("*")
    wider = [f"{prefix}*" for prefix in known_prefixes if stem.startswith(prefix)]
    return [*wider, *(model for model in known if model.startswith(stem))] if asked.endswith("*") else wider


def _prefixes(prices: Prices) -> tuple[str, ...]:
    return tuple(model[:-1] for model in prices if model.endswith("*"))

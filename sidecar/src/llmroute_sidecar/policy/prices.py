"""What a token costs. Sans-IO; the prices come compiled with each route.

A price stands for a model as the upstream names it, exactly or with a trailing `*` for a prefix; the exact one counts,
else that of the longest prefix.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars for a token: what a million costs in microdollars."""

    input: int
    output: int

    def cost(self, given: int, made: int) -> int:
        """Picodollars of a call with so many tokens in and out."""
        return given * self.input + made * self.output


class PriceList:
    """Immutable."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._exact = {model: price for model, price in prices.items() if not model.endswith("*")}
        prefixes = [(model[:-1], price) for model, price in prices.items() if model.endswith("*")]
        self._prefixes = sorted(prefixes, key=lambda each: -len(each[0]))

    def find(self, model: str) -> Price | None:
        """None where the price is not known."""
        price = self._exact.get(model)
        if price is None and self._prefixes:
            price = next((price for prefix, price in self._prefixes if model.startswith(prefix)), None)
        return price


NO_PRICES = PriceList({})

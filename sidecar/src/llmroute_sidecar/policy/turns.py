"""Whose turn it is: sharing a model's traffic among its targets by weight, or by a header that calls have in common.

Theory of operation
===================

*The wheel* is nginx's smooth weighted round robin. At each turn every target gains its weight; the one that has most
is chosen and pays the sum of all weights:

    weights 5, 1, 1    a a b a c a a    and so on: never more than is due, never five in a row where it can be helped

What all have sums to nothing, and after sum(weights) turns each has nothing again: the sequence repeats. So in any
run of sum(weights) turns, wherever it begins, each target has had exactly its weight.

*A target that cannot serve* (its breaker is open, it rests, its limit is used up, or it failed just now) keeps its
turn, and a second wheel says who stands in: it turns among the siblings that can serve, by their weights. So the first
wheel's shares are exact whatever happens; what a lost target would have had is spread smoothly over those that are
left, not poured on one; and a target that comes back gets its own share, not what it missed.

*Sticky* calls share a value (of a header). Each target has a score from a hash of the value and the target's name,
stretched by its weight (weighted rendezvous hashing); the highest serves, the others stand in from high to low. It
needs no memory and is the same in every process. A score depends on its own target alone, so a new target takes over
just what it now has the highest score for, and a lost one's callers spread over the rest.

A model's wheels live on over a reload that leaves its targets alone (`key`). Several processes each turn their own:
the shares are exact in each.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b

Able = Callable[[int], bool]
"""Whether the target of that index can serve now."""


class Wheel:
    """Smooth weighted round robin over indexes. Weights are positive."""

    __slots__ = ("_due", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._due = [0] * len(self._weights)

    def next(self, among: Iterable[int] | None = None) -> int:
        """The index whose turn it is; `among` lets the others sit out. There must be one."""
        due, weights = self._due, self._weights
        chosen, most, total = -1, 0, 0
        for index in range(len(weights)) if among is None else among:
            weight = weights[index]
            has = due[index] = due[index] + weight
            total += weight
            if chosen < 0 or has > most:
                chosen, most = index, has
        due[chosen] -= total
        return chosen


class Turns:
    """The turns of one model's targets, `key` telling which these are. Targets of weight 0 have none."""

    __slots__ = ("_count", "_main", "_stand_in", "key")

    def __init__(self, key: Hashable, weights: Sequence[int]) -> None:
        self.key = key
        self._count = len(weights)
        self._main = Wheel(weights)
        self._stand_in = Wheel(weights)

    def first(self) -> int:
        """Whose turn it is. It may turn out to be unable: then ask `stand_in`."""
        return self._main.next()

    def stand_in(self, first: int, able: Able) -> int | None:
        """Who serves instead of `first`; None where no other can."""
        others = [index for index in range(self._count) if index != first and able(index)]
        return self._stand_in.next(others) if others else None


def by_score(value: bytes, names: Sequence[bytes], weights: Sequence[int]) -> list[int]:
    """The indexes of targets, highest score first. Weights are positive."""
    scores = [weight / -math.log(_fraction(value, name)) for name, weight in zip(names, weights, strict=True)]
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def _fraction(value: bytes, name: bytes) -> float:
    """Spread evenly over (0, 1), both ends left out: 52 bits, so that adding the half loses nothing."""
    digest = blake2b(b"%d:" % len(name) + name + value, digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / (1 << 52)

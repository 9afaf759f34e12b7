"""How much of an upstream's traffic may be retries.

Theory of operation
===================

An upstream in trouble is hurt most by being asked again: with three tries per call, one that fails has three times its
traffic just then. So each upstream has a budget. A first try of a call at a target pays in `percent` hundredths of a
retry, a retry takes one whole, and the purse holds `burst` at most, which it begins with (but for a `burst` of 0: one,
or it could never hold what was paid in). Hence, of any run of tries, whenever it begins:

    retries <= burst + percent/100 x first tries in it

and an upstream's traffic is at most (1 + percent/100) times what its callers sent, but for the burst.

*What counts as a retry*: a call's further try at a target (the same upstream and the same model there) that it has
tried before. Moving on to a sibling or a fallback is a first try there: it is not the same thing asked again, other
upstreams would be refused for the trouble of one, and a model that falls back to a smaller one of the same provider
would stop doing so just when that is needed. What keeps it from becoming a storm is that a call tries each target of
its plan once, and that a breaker closes the whole upstream after some failures in a row.

A retry that the budget refuses is no error of its own: the call moves on to its next candidate. Whole numbers all
through, so that nothing is lost in rounding.
"""


class RetryBudget:
    __slots__ = ("_hundredths", "_most", "_percent")

    def __init__(self, percent: int, burst: int) -> None:
        self._percent = percent
        self._most = max(burst, 1) * 100
        self._hundredths = burst * 100

    def reconfigure(self, percent: int, burst: int) -> None:
        """New numbers from a reload. What is in the purse stays, as far as it holds it now."""
        self._percent = percent
        self._most = max(burst, 1) * 100
        self._hundredths = min(self._hundredths, self._most)

    def first_try(self) -> None:
        """A call tries a target for the first time."""
        self._hundredths = min(self._hundredths + self._percent, self._most)

    def take(self) -> bool:
        """Whether a retry may be made; it is then counted as made."""
        if self._hundredths < 100:
            return False
        self._hundredths -= 100
        return True

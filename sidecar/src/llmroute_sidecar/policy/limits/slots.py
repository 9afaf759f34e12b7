"""Limits on calls at once: a slot is held from a call's admission to its end, and there may be a line for it.

Theory of operation
===================

    take:       a slot is free and nobody waits     held += 1
    queue:      none is free, the line has room     a Ticket, last in line
    give back:  somebody waits                      the first in line has the slot, in the same step
                nobody                              held -= 1
    leave:      a ticket that waits                 out of the line
                a ticket that was granted           its slot is given back

A slot goes from hand to hand, so none is free while anybody waits, and who comes later never overtakes (FIFO). A
ticket that is granted in the moment its owner leaves is given back by `leave`: each path ends in exactly one
`give_back` or `leave`. `Ticket.on_grant` is called back from within `give_back` and `keep_only`, and must not call in
again.

*Memory*: a key is there while a slot is held or waited for, so there are no more than calls in flight.

*Reload*: state belongs to a rule's id. A higher number grants at once, a lower one admits nobody until enough have
ended. Of a rule that is gone all who wait are let through.
"""

from collections.abc import Callable, Iterable

from llmroute_sidecar.policy.limits.rules import ConcurrencyLimit, Refused, Standing

RETRY_SECONDS = 1.0
"""What a refused call is told to wait: when a slot comes free nobody can know."""
_ENDLESS = 2**63


class _Place:
    """Slots of one rule and key."""

    __slots__ = ("held", "key", "line", "number", "of")

    def __init__(self, number: int, key: str, of: dict[str, "_Place"]) -> None:
        self.number = number
        self.held = 0
        self.line: dict[Ticket, None] = {}
        """Who waits, in order; a dict, for who leaves from its middle."""
        self.key = key
        self.of = of
        """The dict of its rule, which it leaves when it is empty."""

    def grant(self) -> None:
        while self.line and self.held < self.number:
            ticket = next(iter(self.line))
            del self.line[ticket]
            self.held += 1
            ticket.granted = True
            if ticket.on_grant is not None:
                ticket.on_grant()

    def tidy(self) -> None:
        if self.held == 0 and not self.line and self.of.get(self.key) is self:
            del self.of[self.key]


class Slot:
    """A slot that is held. Given back once."""

    __slots__ = ("_place", "rule")

    def __init__(self, rule: ConcurrencyLimit, place: _Place) -> None:
        self.rule = rule
        self._place = place

    def give_back(self) -> None:
        place = self._place
        place.held -= 1
        place.grant()
        place.tidy()


class Ticket:
    """A place in line."""

    __slots__ = ("_place", "granted", "on_grant", "rule")

    def __init__(self, rule: ConcurrencyLimit, place: _Place) -> None:
        self.rule = rule
        self._place = place
        self.granted = False
        self.on_grant: Callable[[], None] | None = None

    def slot(self) -> Slot:
        """The slot that was granted."""
        assert self.granted
        return Slot(self.rule, self._place)

    def refusal(self) -> Refused:
        """Of a call that has waited for too long."""
        return no_slot(self.rule, self._place.number)

    def leave(self) -> None:
        """Gives up waiting, or the slot, if it came meanwhile."""
        if self.granted:
            self.slot().give_back()
        else:
            del self._place.line[self]
            self._place.tidy()


class Slots:
    """All slots of this process."""

    __slots__ = ("_numbers", "_places")

    def __init__(self) -> None:
        self._places: dict[str, dict[str, _Place]] = {}
        """By rule id and key."""
        self._numbers: dict[str, int] = {}
        """By rule id, of the newest configuration: calls in flight may come with an older one."""

    def free(self, rule: ConcurrencyLimit, key: str) -> bool:
        place = self._places.get(rule.id, {}).get(key)
        number = self._numbers.get(rule.id, rule.concurrency)
        return number > 0 if place is None else not place.line and place.held < number

    def line_has_room(self, rule: ConcurrencyLimit, key: str) -> bool:
        place = self._places.get(rule.id, {}).get(key)
        return rule.queue_size > (0 if place is None else len(place.line))

    def take(self, rule: ConcurrencyLimit, key: str) -> Slot:
        """A slot that `free` has found."""
        place = self._place(rule, key)
        place.held += 1
        return Slot(rule, place)

    def queue(self, rule: ConcurrencyLimit, key: str) -> Ticket:
        """A place in the line that `line_has_room` has found."""
        place = self._place(rule, key)
        ticket = Ticket(rule, place)
        place.line[ticket] = None
        return ticket

    def refusal(self, rule: ConcurrencyLimit) -> Refused:
        """Of a call that found no slot, nor a place in line."""
        return no_slot(rule, self._numbers.get(rule.id, rule.concurrency))

    def keep_only(self, rules: Iterable[ConcurrencyLimit]) -> None:
        """Takes over the numbers of `rules`, and forgets all others."""
        self._numbers = {rule.id: rule.concurrency for rule in rules}
        for id_, places in list(self._places.items()):
            number = self._numbers.get(id_)
            if number is None:
                del self._places[id_]
            for place in list(places.values()):
                place.number = _ENDLESS if number is None else number
                place.grant()

    def remaining(self, rule: ConcurrencyLimit) -> int:
        """Slots left to the key that has the fewest."""
        places = self._places.get(rule.id, {})
        number = self._numbers.get(rule.id, rule.concurrency)
        return max(0, number - max((place.held for place in places.values()), default=0))

    def waiting(self, rule: ConcurrencyLimit) -> int:
        """Calls in line, of all keys."""
        return sum(len(place.line) for place in self._places.get(rule.id, {}).values())

    def _place(self, rule: ConcurrencyLimit, key: str) -> _Place:
        places = self._places.setdefault(rule.id, {})
        place = places.get(key)
        if place is None:
            place = places[key] = _Place(self._numbers.get(rule.id, rule.concurrency), key, places)
        return place


def no_slot(rule: ConcurrencyLimit, number: int) -> Refused:
    return Refused(Standing(rule.name, number, 0, RETRY_SECONDS, "concurrency"), RETRY_SECONDS)

"""Limits on calls at once, and the line for a slot."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmroute_sidecar.policy.limits.rules import ConcurrencyLimit
from llmroute_sidecar.policy.limits.slots import Slot, Slots, Ticket


def limit(concurrency: int, queue: int = 0, name: str = "slots") -> ConcurrencyLimit:
    return ConcurrencyLimit(f"route/{name}", name, "Client", concurrency, queue, 1.0)


def test_a_slot_goes_to_the_first_in_line() -> None:
    slots, one = Slots(), limit(1, queue=2)
    assert slots.free(one, "web")
    slot = slots.take(one, "web")
    assert not slots.free(one, "web")
    tickets = [slots.queue(one, "web") for _ in range(2)]
    assert not slots.line_has_room(one, "web")
    slot.give_back()
    assert [ticket.granted for ticket in tickets] == [True, False]
    assert not slots.free(one, "web")  # from hand to hand
    tickets[0].slot().give_back()
    assert tickets[1].granted
    tickets[1].leave()
    assert slots.free(one, "web")
    assert slots._places == {one.id: {}}


def test_who_leaves_the_line_makes_room_in_it() -> None:
    slots, one = Slots(), limit(1, queue=1)
    slot = slots.take(one, "web")
    slots.queue(one, "web").leave()
    ticket = slots.queue(one, "web")
    slot.give_back()
    assert ticket.granted


def test_a_higher_number_grants_at_once_and_a_lower_one_waits_for_the_ends() -> None:
    slots, one = Slots(), limit(1, queue=5)
    held = [slots.take(one, "web")]
    tickets = [slots.queue(one, "web") for _ in range(3)]
    slots.keep_only([limit(3, queue=5)])
    assert [ticket.granted for ticket in tickets] == [True, True, False]
    slots.keep_only([limit(1, queue=5)])
    held[0].give_back()
    tickets[0].slot().give_back()
    assert not tickets[2].granted
    tickets[1].slot().give_back()
    assert tickets[2].granted


def test_of_a_limit_that_is_gone_all_who_wait_are_let_through() -> None:
    slots, one = Slots(), limit(1, queue=5)
    slot = slots.take(one, "web")
    tickets = [slots.queue(one, "web") for _ in range(3)]
    slots.keep_only([])
    assert all(ticket.granted for ticket in tickets)
    again = slots.take(one, "web")  # the limit is back
    slot.give_back()
    for ticket in tickets:
        ticket.leave()
    assert not slots.free(one, "web")
    again.give_back()
    assert slots.free(one, "web")


KEYS = st.sampled_from(["a", "b"])


class Line(RuleBasedStateMachine):
    """Beside a model: who holds, who waits in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.limit = limit(2, queue=3)
        self.slots.keep_only([self.limit])
        self.held: list[tuple[str, Slot]] = []
        self.waiting: list[tuple[str, Ticket]] = []

    @rule(key=KEYS)
    def arrive(self, key: str) -> None:
        holds = sum(each == key for each, _ in self.held)
        waits = sum(each == key for each, _ in self.waiting)
        assert self.slots.free(self.limit, key) == (waits == 0 and holds < self.limit.concurrency)
        if self.slots.free(self.limit, key):
            self.held.append((key, self.slots.take(self.limit, key)))
        elif self.slots.line_has_room(self.limit, key):
            assert waits < 3
            self.waiting.append((key, self.slots.queue(self.limit, key)))
        else:
            assert waits >= 3

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        _, slot = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        slot.give_back()
        self.see_grants()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        _, ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        ticket.leave()
        self.see_grants()

    @rule(number=st.integers(1, 4))
    def reload(self, number: int) -> None:
        self.limit = limit(number, queue=3)
        self.slots.keep_only([self.limit])
        self.see_grants()

    def see_grants(self) -> None:
        for key in ("a", "b"):
            line = [ticket for each, ticket in self.waiting if each == key]
            granted = [ticket.granted for ticket in line]
            assert granted == sorted(granted, reverse=True), "first come, first served"
        self.held += [(key, ticket.slot()) for key, ticket in self.waiting if ticket.granted]
        self.waiting = [(key, ticket) for key, ticket in self.waiting if not ticket.granted]

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        for key in {key for key, _ in self.waiting}:
            assert sum(each == key for each, _ in self.held) >= self.limit.concurrency

    @invariant()
    def it_counts_what_is_held_and_no_more(self) -> None:
        places = self.slots._places.get(self.limit.id, {})
        assert {key: place.held for key, place in places.items() if place.held} == {
            key: count for key in ("a", "b") if (count := sum(each == key for each, _ in self.held))
        }
        assert set(places) == {key for key, _ in (*self.held, *self.waiting)}


Line.TestCase.settings = settings(max_examples=200, deadline=None, stateful_step_count=40)
TestLine = Line.TestCase

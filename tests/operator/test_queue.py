"""The work queue's rules, one by one, and as a state machine against a plain model."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmroute_operator.controller.backoff import FIRST_SECONDS, MOST_SECONDS, backoff
from llmroute_operator.controller.queue import WorkQueue


def queue() -> WorkQueue[str]:
    return WorkQueue(lambda: 0.0)


def test_a_key_added_twice_is_taken_once() -> None:
    work = queue()
    work.add("a", 0)
    work.add("a", 0)
    assert work.take(0) == "a"
    work.done("a")
    assert work.take(0) is None


def test_keys_are_taken_in_the_order_in_which_they_came() -> None:
    work = queue()
    for key in "cab":
        work.add(key, 0)
    assert [work.take(0), work.take(0), work.take(0)] == ["c", "a", "b"]


def test_a_key_in_work_is_not_taken_by_another_worker_but_looked_at_again_afterwards() -> None:
    work = queue()
    work.add("a", 0)
    assert work.take(0) == "a"
    work.add("a", 1)
    assert work.take(1) is None
    work.done("a")
    assert work.take(1) == "a"


def test_a_change_while_a_key_is_in_work_outdoes_its_own_wish_for_later() -> None:
    work = queue()
    work.add("a", 0)
    work.take(0)
    work.add("a", 1)
    work.done("a", again=300)
    assert work.next_due() == 1


def test_a_key_that_waits_for_later_is_taken_at_once_when_something_changes() -> None:
    work = queue()
    work.add("a", 300)
    assert work.take(10) is None
    work.add("a", 10)
    assert work.take(10) == "a"
    work.done("a")
    assert work.next_due() is None


def test_a_failed_key_rests_longer_each_time_and_one_success_forgets_it() -> None:
    work = queue()
    rests = []
    now = 0.0
    for _ in range(4):
        work.add("a", now)
        assert work.take(now) == "a"
        rests.append(work.failed("a", now))
        assert work.take(now) is None
        now += rests[-1]
    assert rests == [FIRST_SECONDS, FIRST_SECONDS * 2, FIRST_SECONDS * 4, FIRST_SECONDS * 8]
    assert work.take(now) == "a"
    work.done("a")
    work.add("a", now)
    work.take(now)
    assert work.failed("a", now) == FIRST_SECONDS


def test_the_depth_counts_what_is_due_and_not_in_work() -> None:
    work = queue()
    for key, due in (("a", 0), ("b", 0), ("c", 100)):
        work.add(key, due)
    assert work.depth(0) == 2
    work.take(0)
    assert (work.depth(0), work.running) == (1, 1)
    assert work.depth(100) == 2


@pytest.mark.parametrize("failures", [0, 1, 2, 10, 1000, 10**9])
@pytest.mark.parametrize("dice", [0.0, 0.5, 1.0])
def test_a_backoff_is_bounded_whatever_happens(failures: int, dice: float) -> None:
    assert FIRST_SECONDS / 2 <= backoff(failures, dice) <= MOST_SECONDS


KEYS = st.sampled_from("abc")


class QueueMachine(RuleBasedStateMachine):
    """Against a model: when each key wants to be looked at, and who is in work."""

    def __init__(self) -> None:
        super().__init__()
        self.work = queue()
        self.now = 0.0
        self.due: dict[str, float] = {}
        self.running: set[str] = set()

    def _want(self, key: str, due: float) -> None:
        self.due[key] = min(due, self.due.get(key, due))

    @rule(key=KEYS, later=st.integers(0, 5))
    def add(self, key: str, later: int) -> None:
        self.work.add(key, self.now + later)
        self._want(key, self.now + later)

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        ready = {key for key, due in self.due.items() if due <= self.now and key not in self.running}
        key = self.work.take(self.now)
        assert (key in ready) if ready else key is None
        if key is not None:
            assert self.due[key] == min(self.due[other] for other in ready)
            del self.due[key]
            self.running.add(key)

    @rule(key=KEYS, again=st.none() | st.integers(0, 5))
    def done(self, key: str, again: int | None) -> None:
        if key in self.running:
            self.work.done(key, None if again is None else self.now + again)
            self.running.discard(key)
            if again is not None:
                self._want(key, self.now + again)

    @rule(key=KEYS)
    def fail(self, key: str) -> None:
        if key in self.running:
            self._want(key, self.now + self.work.failed(key, self.now))
            self.running.discard(key)

    @invariant()
    def next_due_is_the_earliest_that_can_be_taken(self) -> None:
        waiting = [due for key, due in self.due.items() if key not in self.running]
        assert self.work.next_due() == (min(waiting) if waiting else None)

    @invariant()
    def depth_is_what_could_be_taken_now(self) -> None:
        ready = sum(due <= self.now and key not in self.running for key, due in self.due.items())
        assert self.work.depth(self.now) == ready


QueueMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase

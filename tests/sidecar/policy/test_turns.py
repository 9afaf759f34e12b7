"""Turns: exact in every window, smooth, and undisturbed by targets that cannot serve; scores that move only what they
must."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.turns import Turns, Wheel, by_score

WEIGHTS = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def test_the_wheel_is_nginx_s() -> None:
    wheel = Wheel([5, 1, 1])
    assert "".join("abc"[wheel.next()] for _ in range(14)) == "aabacaa" * 2


@given(WEIGHTS, st.integers(0, 60))
@settings(deadline=None)
def test_any_window_of_the_sum_of_weights_has_each_target_as_often_as_its_weight(weights: list[int], skip: int) -> None:
    wheel = Wheel(weights)
    for _ in range(skip):
        wheel.next()
    assert Counter(wheel.next() for _ in range(sum(weights))) == Counter(dict(enumerate(weights)))


@given(WEIGHTS, st.integers(1, 80))
@settings(deadline=None)
def test_no_target_is_ever_a_whole_round_ahead_or_behind_of_what_is_due(weights: list[int], turns: int) -> None:
    wheel, had = Wheel(weights), Counter[int]()
    for turn in range(1, turns + 1):
        had[wheel.next()] += 1
        for index, weight in enumerate(weights):
            assert abs(had[index] - turn * weight / sum(weights)) <= len(weights)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.data())
@settings(deadline=None)
def test_whoever_cannot_serve_the_first_wheel_stays_exact_and_stand_ins_share_by_weight(
    weights: list[int], data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, len(weights) - 1))
    turns, first, instead = Turns("key", weights), Counter[int](), Counter[int]()
    rest = sum(weights) - weights[lost]
    for _ in range(sum(weights) * rest):
        chosen = turns.first()
        first[chosen] += 1
        if chosen == lost:
            other = turns.stand_in(chosen, lambda index: index != lost)
            assert other is not None
            instead[other] += 1
    assert first == Counter({index: weight * rest for index, weight in enumerate(weights)})
    assert instead == Counter({i: weights[lost] * weight for i, weight in enumerate(weights) if i != lost})


def test_where_no_other_can_serve_nobody_stands_in() -> None:
    turns = Turns("key", [1, 1])
    assert turns.stand_in(0, lambda _: False) is None


# -- scores ------------------------------------------------------------------------------------------------------------

NAMES = [b"r/a x", b"r/b x", b"r/c x", b"r/d x"]
VALUES = [b"session-%d" % number for number in range(4000)]


def first_of(value: bytes, names: list[bytes], weights: list[int]) -> bytes:
    return names[by_score(value, names, weights)[0]]


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [4, 3, 2, 1], [97, 1, 1, 1]])
def test_values_are_shared_out_by_weight(weights: list[int]) -> None:
    had = Counter(first_of(value, NAMES, weights) for value in VALUES)
    for name, weight in zip(NAMES, weights, strict=True):
        due = len(VALUES) * weight / sum(weights)
        assert abs(had[name] - due) < 5 * due**0.5, had  # five deviations, and the hash is the same in every run


@given(st.binary(max_size=40), st.lists(st.integers(1, 1000), min_size=2, max_size=4))
def test_a_new_target_takes_over_its_own_and_moves_nobody_else(value: bytes, weights: list[int]) -> None:
    names = NAMES[: len(weights)]
    before = [names[index] for index in by_score(value, names[:-1], weights[:-1])]
    after = [names[index] for index in by_score(value, names, weights)]
    assert [name for name in after if name != names[-1]] == before


@given(st.binary(max_size=40), st.lists(st.integers(1, 500), min_size=2, max_size=4), st.data())
def test_more_weight_brings_more_and_takes_nothing_from_a_target_but_for_itself(
    value: bytes, weights: list[int], data: st.DataObject
) -> None:
    names = NAMES[: len(weights)]
    index = data.draw(st.integers(0, len(weights) - 1))
    more = [weight * 2 if place == index else weight for place, weight in enumerate(weights)]
    assert first_of(value, names, more) in (first_of(value, names, weights), names[index])


@given(st.binary(max_size=40))
def test_one_name_and_value_are_not_taken_for_another_cut_elsewhere(value: bytes) -> None:
    assume(value)
    assert by_score(value, [b"ab", b"abc"], [1, 1]) == by_score(value, [b"ab", b"abc"], [1, 1])
    same = by_score(value[1:], [b"a" + value[:1], b"b"], [1, 1])
    assert same in ([0, 1], [1, 0])

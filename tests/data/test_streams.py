"""Sets of one domain drawn by weight: exact shares over time, and each sample once in its set's turn."""

from collections import Counter
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcnseg.data.bgc import BalancedBatchSampler, PooledBatchSampler
from fcnseg.data.streams import LONGEST, SampleRef, Stream, fair_order, whole_weights

weights = st.lists(st.integers(1, 9), min_size=1, max_size=4)
parts = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 5)), min_size=1, max_size=4)
"""(samples, weight) of one to four sets."""


def sampler(real: list[tuple[int, int]], batch_size: int, **options: object) -> BalancedBatchSampler:
    """Batches of a domain of several sets, beside one of 7 samples."""
    lengths = {"real": sum(length for length, _ in real), "synthetic": 7}
    return BalancedBatchSampler(
        lengths, {"real": 6, "synthetic": 4}, batch_size, parts={"real": real}, seed=3, **options
    )  # type: ignore[arg-type]


def part_of(real: list[tuple[int, int]], index: int) -> int:
    return int(np.searchsorted(np.cumsum([length for length, _ in real]), index, side="right"))


def key(draw: SampleRef) -> tuple[int, int, int]:
    return draw.domain, draw.index, draw.count


@given(weights)
def test_each_part_has_its_share_at_any_time_to_less_than_one(of: list[int]) -> None:
    """Tijdeman's bound, which no order betters for some weights."""
    order, counts = fair_order(of), Counter[int]()
    bound = 1 - Fraction(1, 2 * len(of) - 2) if len(of) > 1 else Fraction(0)
    for place, part in enumerate(order.tolist(), 1):
        counts[part] += 1
        for i, weight in enumerate(of):
            assert abs(Fraction(place * weight, sum(of)) - counts[i]) <= bound
    assert [counts[i] for i in range(len(of))] == of


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30))
def test_any_run_of_two_parts_holds_their_shares_rounded_up_or_down(one: int, other: int, length: int) -> None:
    """So that a batch has as much of each as whole numbers allow."""
    order = np.tile(fair_order([one, other]), 1 + -(-length // (one + other)) * 2)
    exact = Fraction(length * one, one + other)
    for start in range(one + other):
        assert abs(int((order[start : start + length] == 0).sum()) - exact) < 1


@pytest.mark.parametrize(
    ("of", "whole"),
    [
        ([1, 1], [1, 1]), ([0.6, 0.4], [3, 2]), ([367, 200], [367, 200]), ([2975, 500, 25], [119, 20, 1]),
        ([0.1, 0.2, 0.7], [1, 2, 7]), ([5], [1]),
    ],
)  # fmt: skip
def test_weights_are_the_smallest_whole_numbers_of_their_ratio(of: list[float], whole: list[int]) -> None:
    assert whole_weights(of) == whole


def test_weights_in_no_simple_ratio_are_rounded() -> None:
    found = whole_weights([np.pi, 1.0])
    assert sum(found) == LONGEST
    assert found[0] / LONGEST == pytest.approx(np.pi / (1 + np.pi), abs=1e-4)
    assert whole_weights([1e-9, 1.0])[0] == 1, "the smallest is still drawn"


@settings(max_examples=50)
@given(parts, st.integers(4, 20), st.integers(1, 12))
def test_sets_have_their_share_over_the_batches_and_each_sample_its_turn(real, batch_size, steps) -> None:
    batches = sampler(real, batch_size, steps=steps)
    drawn = [draw for draw in chain(*batches) if draw.domain == 0]
    assert sorted(draw.count for draw in drawn) == list(range(len(drawn))), "none shares an augmentation"
    in_order = sorted(drawn, key=lambda draw: draw.count)
    total = sum(weight for _, weight in real)
    start = 0
    for part, (length, weight) in enumerate(real):
        stream = [draw.index - start for draw in in_order if part_of(real, draw.index) == part]
        assert abs(len(stream) - Fraction(len(drawn) * weight, total)) < 1
        for turn in range(0, len(stream) - length + 1, length):
            assert sorted(stream[turn : turn + length]) == list(range(length))
        start += length


@settings(max_examples=50)
@given(parts, st.sampled_from([1, 2, 5]), st.integers(0, 30))
def test_any_number_of_processes_draws_the_same_batches_from_any_step_on(real, world, begun) -> None:
    whole = [sampler(real, 10).global_batch(step) for step in range(begun, begun + 4)]
    ranks = [
        list(sampler(real, 10, steps=4, num_replicas=world, rank=rank, done=lambda: begun)) for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        shared = [rank[step] for rank in ranks]
        assert sorted(map(key, chain(*shared))) == sorted(map(key, batch))
        for part in range(len(real)):
            counts = [sum(d.domain == 0 and part_of(real, d.index) == part for d in piece) for piece in shared]
            assert max(counts) - min(counts) <= 1, "processes share each set as evenly as whole numbers allow"


def test_a_small_set_is_drawn_as_often_as_its_weight_says() -> None:
    """Ten images beside a thousand, half of each batch."""
    batches = sampler([(10, 1), (1000, 1)], 10, steps=100)
    counts = Counter(part_of([(10, 1), (1000, 1)], draw.index) for draw in chain(*batches) if draw.domain == 0)
    assert counts == {0: 300, 1: 300}
    batches = sampler([(10, 1), (1000, 2)], 10)
    held = [
        sum(draw.domain == 0 and draw.index < 10 for draw in batches.global_batch(step)) for step in range(20)
    ]  # fmt: skip
    assert set(held) == {2}


def test_parts_and_turns_have_orders_of_their_own() -> None:
    """Also where two sets are of one size: the seed of each has its number in it."""
    stream = Stream([(20, 1), (20, 1)], (0, 0))
    orders = {tuple(stream.permutation(part, turn)) for part in (0, 1) for turn in range(3)}
    orders |= {tuple(Stream([(20, 1)], (0, domain)).permutation(0, turn)) for domain in (0, 1) for turn in range(3)}
    assert len(orders) == 12


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 3), st.integers(0, 99))
def test_a_domain_of_one_set_is_read_in_the_order_that_it_always_was(length, seed, domain, position) -> None:
    """Runs that were begun before there were weights go on with the batches that they would have seen."""
    assume(position < 3 * length)
    turn, place = divmod(position, length)
    expected = np.random.default_rng([seed, domain, turn]).permutation(length)[place]
    assert Stream([(length, 1.0)], (seed, domain)).sample(position) == expected


def test_pooled_batches_know_no_weights() -> None:
    batches = PooledBatchSampler({"real": 30, "synthetic": 7}, 10, seed=3)
    assert Counter((d.domain, d.index) for s in range(37) for d in batches.global_batch(s)).total() == 370
    assert set(Counter((d.domain, d.index) for s in range(37) for d in batches.global_batch(s)).values()) == {10}

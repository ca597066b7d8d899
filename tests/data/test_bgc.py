"""Balanced batches: exact shares, every sample as often as any other, and nothing but the seed decides."""

import math
from collections import Counter
from fractions import Fraction
from itertools import chain

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcnseg.data.bgc import BalancedBatchSampler, PooledBatchSampler, shares
from fcnseg.data.streams import SampleRef, apportion
from fcnseg.errors import InputError

NAMES = "real", "synthetic", "rendered"

domains = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 10)), min_size=1, max_size=3)
"""(length, share in the ratio) of one to three domains."""


def sampler(of: list[tuple[int, int]], batch_size: int, **options: int) -> BalancedBatchSampler:
    assume(all(math.floor(Fraction(batch_size * share, sum(s for _, s in of))) > 0 for _, share in of))
    lengths = {name: length for name, (length, _) in zip(NAMES, of, strict=False)}
    ratio = {name: share for name, (_, share) in zip(NAMES, of, strict=False)}
    return BalancedBatchSampler(lengths, ratio, batch_size, **options)


def pool(of: list[tuple[int, int]], batch_size: int, **options: int) -> PooledBatchSampler:
    return PooledBatchSampler(
        {name: length for name, (length, _) in zip(NAMES, of, strict=False)}, batch_size, **options
    )


def key(draw: SampleRef) -> tuple[int, int, int]:
    return draw.domain, draw.index, draw.count


def epochs(batches: BalancedBatchSampler, count: int) -> list[list[SampleRef]]:
    result = []
    for epoch in range(count):
        batches.set_epoch(epoch)
        result += list(batches)
    return result


# Shares


@pytest.mark.parametrize(
    ("ratio", "batch_size", "expected"),
    [
        ((6, 4), 10, (6, 4)),  # the SYNTHIA paper's
        ((6, 4), 5, (3, 2)),
        ((0.6, 0.4), 10, (6, 4)),
        ((1,), 7, (7,)),
        ((1, 1, 1), 9, (3, 3, 3)),
        ((6, 4), 8, (5, 3)),  # 4.8 and 3.2
        ((6, 4), 7, (4, 3)),  # 4.2 and 2.8
        ((5, 3, 1), 10, (6, 3, 1)),  # 5.56, 3.33 and 1.11
        ((5, 5, 2), 10, (4, 4, 2)),  # 4.17, 4.17 and 1.67
    ],
)
def test_shares_by_hand(ratio: tuple[float, ...], batch_size: int, expected: tuple[int, ...]) -> None:
    counts = shares(dict(zip(NAMES, ratio, strict=False)), batch_size)
    assert counts == dict(zip(NAMES, expected, strict=False))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 20), st.sampled_from([1, 0.1, 1 / 3, 7.7]))
def test_shares_are_the_exact_ratio_where_it_divides(ratio: list[int], times: int, unit: float) -> None:
    """0.6 to 0.4 is 6 to 4, whatever floating point makes of it."""
    counts = shares({name: unit * share for name, share in zip(NAMES, ratio, strict=False)}, times * sum(ratio))
    assert list(counts.values()) == [times * share for share in ratio]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 60))
def test_shares_round_the_largest_remainders_up(ratio: list[int], batch_size: int) -> None:
    exact = [Fraction(batch_size * share, sum(ratio)) for share in ratio]
    assume(min(exact) >= 1)
    counts = list(shares(dict(zip(NAMES, ratio, strict=False)), batch_size).values())
    assert sum(counts) == batch_size
    assert all(count in (math.floor(e), math.floor(e) + 1) for count, e in zip(counts, exact, strict=True))
    up = [e % 1 for count, e in zip(counts, exact, strict=True) if count > e]
    down = [e % 1 for count, e in zip(counts, exact, strict=True) if count <= e]
    assert not up or min(up) >= max(down, default=0)


@pytest.mark.parametrize("ratio", [{}, {"a": 0}, {"a": 1, "b": -1}])
def test_shares_that_are_not_positive_are_refused(ratio: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a positive share for every domain"):
        shares(ratio, 10)


def test_a_domain_without_a_sample_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size 4 leaves no sample for domain 'synthetic'"):
        shares({"real": 9, "synthetic": 1}, 4)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=3), st.integers(1, 9))
def test_a_number_is_divided_without_loss_also_where_a_share_gets_nothing(ratio: list[int], total: int) -> None:
    counts = apportion(dict(zip(NAMES, ratio, strict=False)), total)
    assert sum(counts.values()) == total
    exact = [Fraction(total * share, sum(ratio)) for share in ratio]
    assert all(abs(count - e) < 1 for count, e in zip(counts.values(), exact, strict=True))


# Batches


@given(domains, st.integers(1, 30), st.integers(0, 9), st.integers(0, 1000))
def test_every_global_batch_holds_the_exact_shares(
    of: list[tuple[int, int]], batch_size: int, seed: int, step: int
) -> None:
    batch = sampler(of, batch_size, seed=seed).global_batch(step)
    expected = shares(dict(zip(NAMES, (share for _, share in of), strict=False)), batch_size)
    counted = Counter(draw.domain for draw in batch)
    assert [counted[i] for i in range(len(of))] == list(expected.values())
    assert all(0 <= draw.index < of[draw.domain][0] for draw in batch)


@given(domains, st.integers(1, 30), st.integers(1, 8), st.randoms(use_true_random=False))
def test_ranks_share_every_global_batch_without_loss_or_overlap(of, batch_size, world, random) -> None:
    assume(world <= batch_size)
    whole = epochs(sampler(of, batch_size, steps=3), 2)
    ranks = list(range(world))
    random.shuffle(ranks)
    parts = [epochs(sampler(of, batch_size, steps=3, num_replicas=world, rank=rank), 2) for rank in ranks]
    for step, batch in enumerate(whole):
        slices = [part[step] for part in parts]
        assert sorted(map(key, chain(*slices))) == sorted(map(key, batch))
        sizes = [len(piece) for piece in slices]
        assert max(sizes) - min(sizes) <= 1
        for domain in range(len(of)):
            counts = [sum(draw.domain == domain for draw in piece) for piece in slices]
            assert max(counts) - min(counts) <= 1


@settings(max_examples=60)
@given(domains, st.integers(1, 20), st.integers(0, 9))
def test_each_pass_through_a_domain_shows_every_sample_once(of, batch_size, seed) -> None:
    draws = list(chain(*epochs(sampler(of, batch_size, seed=seed, steps=40), 2)))
    for domain, (length, _) in enumerate(of):
        stream = [draw for draw in draws if draw.domain == domain]
        assert [draw.count for draw in stream] == list(range(len(stream)))
        for start in range(0, len(stream) - length + 1, length):
            assert sorted(draw.index for draw in stream[start : start + length]) == list(range(length))


@pytest.mark.parametrize("length", [6, 7, 20, 100])
def test_successive_passes_differ(length: int) -> None:
    batches = BalancedBatchSampler({"a": length, "b": length}, {"a": 1, "b": 1}, 2, steps=length, seed=0)
    passes = []
    for epoch in range(5):
        batches.set_epoch(epoch)
        draws = list(chain(*batches))
        passes += [tuple(draw.index for draw in draws if draw.domain == domain) for domain in (0, 1)]
    assert len(set(passes)) == 10  # domains of one length differ as well


@given(domains, st.integers(2, 20), st.integers(0, 99))
def test_the_sequence_depends_on_the_seed_alone(of, batch_size, seed) -> None:
    one = sampler(of, batch_size, seed=seed, steps=7)
    other = sampler(of, batch_size, seed=seed, steps=3, num_replicas=2, rank=1)
    backwards = [other.global_batch(step) for step in reversed(range(20))][::-1]
    assert [one.global_batch(step) for step in range(20)] == backwards


def test_seeds_differ() -> None:
    orders = {
        tuple(draw.index for draw in BalancedBatchSampler({"a": 20}, {"a": 1}, 20, seed=seed).global_batch(0))
        for seed in range(50)
    }
    assert len(orders) == 50


@given(domains, st.integers(1, 20), st.integers(1, 9))
def test_epochs_continue_where_the_one_before_ended(of, batch_size, steps) -> None:
    batches = sampler(of, batch_size, steps=steps)
    assert len(batches) == steps
    assert epochs(batches, 3) == [batches.global_batch(step) for step in range(3 * steps)]
    # Resuming in a new process at epoch 2 needs no epochs before it.
    resumed = sampler(of, batch_size, steps=steps)
    resumed.set_epoch(2)
    assert list(resumed) == epochs(batches, 3)[2 * steps :]


@pytest.mark.parametrize(("length", "batch_size", "steps"), [(367, 10, 61), (60, 10, 10), (3, 10, 1)])
def test_an_epoch_is_one_pass_over_the_first_domain(length: int, batch_size: int, steps: int) -> None:
    lengths = {"real": length, "synthetic": 9000}
    assert len(BalancedBatchSampler(lengths, {"synthetic": 4, "real": 6}, batch_size)) == steps


def test_the_ratio_goes_by_names_and_not_by_their_order() -> None:
    batch = BalancedBatchSampler({"real": 50, "synthetic": 50}, {"synthetic": 4, "real": 6}, 10).global_batch(0)
    assert [draw.domain for draw in batch] == [0] * 6 + [1] * 4


def test_names_and_batch_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="ratio names real, fake; expected the domains real, synthetic"):
        BalancedBatchSampler({"real": 5, "synthetic": 5}, {"real": 6, "fake": 4}, 10)
    with pytest.raises(InputError, match="batch_size 3 is the global batch; expected at least 4, one per process"):
        BalancedBatchSampler({"real": 5}, {"real": 1}, 3, num_replicas=4)


# Pooled batches


@settings(max_examples=60)
@given(domains, st.integers(1, 20), st.integers(0, 9))
def test_each_pass_through_the_pool_shows_every_sample_of_every_domain_once(of, batch_size, seed) -> None:
    draws = list(chain(*epochs(pool(of, batch_size, seed=seed, steps=40), 2)))
    assert [draw.count for draw in draws] == list(range(80 * batch_size)), "so that no two augmentations are alike"
    everything = [(domain, index) for domain, (length, _) in enumerate(of) for index in range(length)]
    size = len(everything)
    for start in range(0, len(draws) - size + 1, size):
        assert sorted((draw.domain, draw.index) for draw in draws[start : start + size]) == everything


@given(domains, st.integers(1, 20), st.integers(1, 9), st.integers(0, 99))
def test_a_pool_is_read_in_an_order_that_the_seed_alone_decides(of, batch_size, steps, seed) -> None:
    whole = epochs(pool(of, batch_size, steps=steps, seed=seed), 3)
    backwards = pool(of, batch_size, steps=1, seed=seed)
    assert [backwards.global_batch(step) for step in reversed(range(3 * steps))][::-1] == whole
    resumed = pool(of, batch_size, steps=steps, seed=seed, done=lambda: 2 * steps)
    assert list(resumed) == whole[2 * steps :]


@given(domains, st.integers(1, 20), st.integers(1, 8))
def test_ranks_share_every_batch_of_a_pool(of, batch_size, world) -> None:
    assume(world <= batch_size)
    ranks = [epochs(pool(of, batch_size, steps=3, num_replicas=world, rank=rank), 2) for rank in range(world)]
    for step, batch in enumerate(epochs(pool(of, batch_size, steps=3), 2)):
        assert sorted(map(key, chain(*(rank[step] for rank in ranks)))) == sorted(map(key, batch))
        assert {len(rank[step]) for rank in ranks} <= {batch_size // world, -(-batch_size // world)}


def test_a_pool_is_shuffled_anew_for_every_pass_and_every_seed() -> None:
    orders = set()
    for seed in range(20):
        batches = PooledBatchSampler({"real": 9, "synthetic": 11}, 20, seed=seed)
        orders |= {tuple(map(key, batches.global_batch(step)))[:9] for step in range(3)}
        assert len({draw.domain for draw in batches.global_batch(0)[:9]}) == 2, "the domains lie among each other"
    assert len({tuple((domain, index) for domain, index, _ in order) for order in orders}) == 60


@pytest.mark.parametrize(("batch_size", "steps"), [(10, 40), (7, 58), (600, 1)])
def test_an_epoch_is_one_pass_over_the_pool(batch_size: int, steps: int) -> None:
    assert len(PooledBatchSampler({"real": 367, "synthetic": 42}, batch_size)) == steps


# How much was seen


@pytest.mark.parametrize("kind", [sampler, pool])
@given(of=domains, batch_size=st.integers(1, 20), steps=st.integers(0, 25), seed=st.integers(0, 9))
def test_what_was_seen_is_what_the_batches_held(kind, of, batch_size, steps, seed) -> None:
    batches = kind(of, batch_size, seed=seed)
    held = Counter(draw.domain for step in range(steps) for draw in batches.global_batch(step))
    assert batches.seen(steps) == {name: held[i] for i, name in enumerate(NAMES[: len(of)])}


def test_what_a_batch_holds_in_words() -> None:
    lengths = {"real": 30, "synthetic": 90}
    assert str(BalancedBatchSampler(lengths, {"real": 6, "synthetic": 4}, 10)) == "6 real, 4 synthetic"
    assert str(PooledBatchSampler(lengths, 10)) == "10 of all, shuffled together"

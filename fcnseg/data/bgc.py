"""Balanced gradient contribution: batches that hold every domain in a fixed share.

Ros et al., "The SYNTHIA dataset" (CVPR 2016, section 4), and "Training constrained deconvolutional
networks for road scene semantic segmentation" (arXiv 1604.01545), which names the method. One domain
alone is the case of a single share.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fcnseg.errors import InputError


@dataclass(frozen=True)
class Draw:
    """One sample of a batch.

    Attributes:
        domain: position of the domain among the named domains.
        index: the sample within its domain.
        count: how many samples this domain had given before: unique, so it seeds the augmentation.
    """

    domain: int
    index: int
    count: int


def shares(ratio: Mapping[str, float], batch_size: int) -> dict[str, int]:
    """Samples of each domain in a global batch: the ratio, rounded by largest remainders.

    Raises:
        InputError: when a share is not positive, or a domain would get no sample.
    """
    if not ratio or min(ratio.values()) <= 0:
        raise InputError(f"ratio {dict(ratio)}: expected a positive share for every domain")
    exact = {name: batch_size * share / sum(ratio.values()) for name, share in ratio.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(ratio, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: batch_size - sum(counts.values())]:
        counts[name] += 1
    if empty := [name for name, count in counts.items() if count == 0]:
        raise InputError(f"batch_size {batch_size} leaves no sample for domain {empty[0]!r} at ratio {dict(ratio)}")
    return counts


class BalancedBatchSampler:
    """Batches with each domain's exact share in every global batch.

    Each domain is an endless stream of fresh permutations. The sequence of global batches depends on
    the seed alone; a rank takes every `num_replicas`-th sample, which gives all ranks the ratio as
    evenly as the integers allow.

    Args:
        lengths: number of samples of each domain, by name.
        ratio: share of each domain, by the same names.
        batch_size: samples of a global batch, over all ranks.
        steps: batches per epoch; by default one pass over the first domain.
        seed: of the permutations.
        num_replicas, rank: how many processes share a batch, and which one this is.
        done: tells how many batches were trained on; an iteration begins after them, also in the midst of an
            epoch. By default it begins where the epoch of `set_epoch` does.

    Raises:
        InputError: when names, ratio and batch size do not fit.
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        ratio: Mapping[str, float],
        batch_size: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        done: Callable[[], int] | None = None,
    ) -> None:
        if set(lengths) != set(ratio):
            raise InputError(f"ratio names {', '.join(ratio)}; expected the domains {', '.join(lengths)}")
        if batch_size < num_replicas:
            raise InputError(
                f"batch_size {batch_size} is the global batch; expected at least {num_replicas}, one per process"
            )
        self.lengths = list(lengths.values())
        by_name = shares({name: ratio[name] for name in lengths}, batch_size)
        self.counts = list(by_name.values())
        self.steps = steps or max(1, self.lengths[0] // self.counts[0])
        self.seed, self.num_replicas, self.rank = seed, num_replicas, rank
        self.epoch = 0
        self.done = done
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}  # the current turn of each domain
        # Lightning tells the epoch to `batch_sampler.sampler`.
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Continue every stream where the given epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        first = self.done() if self.done else self.epoch * self.steps
        for step in range(first, first + self.steps):
            yield self.global_batch(step)[self.rank :: self.num_replicas]

    def global_batch(self, step: int) -> list[Draw]:
        """All samples of optimisation step `step`, counted from the start of training."""
        return [
            Draw(domain, self._stream(domain, position), position)
            for domain, count in enumerate(self.counts)
            for position in range(step * count, (step + 1) * count)
        ]

    def _stream(self, domain: int, position: int) -> int:
        """The sample at a position of a domain's endless stream."""
        turn, place = divmod(position, self.lengths[domain])
        return int(self._permutation(domain, turn)[place])

    def _permutation(self, domain: int, turn: int) -> np.ndarray:
        if domain not in self._permutations or self._permutations[domain][0] != turn:
            order = np.random.default_rng([self.seed, domain, turn]).permutation(self.lengths[domain])
            self._permutations[domain] = turn, order
        return self._permutations[domain][1]

"""Balanced gradient contribution: batches that hold every domain in a fixed share; and plain mixing beside it.

Ros et al., "The SYNTHIA dataset" (CVPR 2016, section 4), and "Training constrained deconvolutional
networks for road scene semantic segmentation" (arXiv 1604.01545), which names the method. One domain
alone is the case of a single share.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fcnseg.data.streams import Parts, SampleRef, Stream, apportion
from fcnseg.errors import InputError


def shares(ratio: Mapping[str, float], batch_size: int) -> dict[str, int]:
    """Samples of each domain in a global batch: the ratio, rounded by largest remainders.

    Raises:
        InputError: when a share is not positive, or a domain would get no sample.
    """
    if not ratio or min(ratio.values()) <= 0:
        raise InputError(f"ratio {dict(ratio)}: expected a positive share for every domain")
    counts = apportion(ratio, batch_size)
    if empty := [name for name, count in counts.items() if count == 0]:
        raise InputError(f"batch_size {batch_size} leaves no sample for domain {empty[0]!r} at ratio {dict(ratio)}")
    return counts


def count_micro_batches(batch_size: int, processes: int, device_batch_size: int | None) -> int:
    """In how many micro-batches each of several processes takes its part of a global batch.

    Args:
        batch_size: samples of a global batch.
        processes: that share it.
        device_batch_size: the most samples that one of them takes at once; None: all of its part.

    Raises:
        InputError: when a process would have no sample for one of them.
    """
    if device_batch_size is None:
        return 1
    count = -(-batch_size // (processes * device_batch_size))
    if count > 1 and count * processes > batch_size:
        raise InputError(
            f"data.device_batch_size={device_batch_size}: a batch of {batch_size} leaves one of {processes} processes "
            f"without a sample in the last of {count} micro-batches; expected a multiple of {processes} as "
            "data.batch_size, or 2 and more at once"
        )
    return count


class BalancedBatchSampler:
    """Batches with each domain's exact share in every global batch.

    Each domain is an endless stream of fresh permutations, or of several parts each of which is one. The sequence of
    global batches depends on the seed alone; a rank takes every `num_replicas`-th sample, which gives all ranks the
    ratio, and the parts of each domain, as evenly as the integers allow. Micro-batches divide the part of a rank in the
    same way: of n ranks with m of them each, one has every (n m)-th sample.

    Args:
        lengths: number of samples of each domain, by name.
        ratio: share of each domain, by the same names.
        batch_size: samples of a global batch, over all ranks.
        steps: batches per epoch; by default one pass over the first domain.
        seed: of the permutations.
        num_replicas, rank: how many processes share a batch, and which one this is.
        done: tells how many batches were trained on; an iteration begins after them, also in the midst of an
            epoch. By default it begins where the epoch of `set_epoch` does.
        parts: of domains that are several sets in a row, by name: each set's number of samples and its weight.
        micro_batches: how many in a row make this rank's part of a global batch.

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
        parts: Mapping[str, Parts] | None = None,
        micro_batches: int = 1,
    ) -> None:
        if set(lengths) != set(ratio):
            raise InputError(f"ratio names {', '.join(ratio)}; expected the domains {', '.join(lengths)}")
        if batch_size < num_replicas:
            raise InputError(
                f"batch_size {batch_size} is the global batch; expected at least {num_replicas}, one per process"
            )
        self.names, self.lengths = list(lengths), list(lengths.values())
        by_name = shares({name: ratio[name] for name in lengths}, batch_size)
        self.counts = list(by_name.values())
        self.steps = steps or max(1, self.lengths[0] // self.counts[0])
        self.seed, self.num_replicas, self.rank = seed, num_replicas, rank
        self.epoch = 0
        self.done, self.micro_batches = done, micro_batches
        self.streams = [
            Stream((parts or {}).get(name, ((length, 1),)), (seed, domain))
            for domain, (name, length) in enumerate(lengths.items())
        ]
        # Lightning tells the epoch to `batch_sampler.sampler`.
        self.sampler = self

    def __str__(self) -> str:
        """What a global batch holds."""
        return ", ".join(f"{count} {name}" for name, count in zip(self.names, self.counts, strict=True))

    def set_epoch(self, epoch: int) -> None:
        """Continue every stream where the given epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.micro_batches

    def __iter__(self) -> Iterator[list[SampleRef]]:
        first = self.done() if self.done else self.epoch * self.steps
        for step in range(first, first + self.steps):
            samples = self.global_batch(step)[self.rank :: self.num_replicas]
            for number in range(self.micro_batches):
                yield samples[number :: self.micro_batches]

    def global_batch(self, step: int) -> list[SampleRef]:
        """All samples of optimisation step `step`, counted from the start of training."""
        return [
            ref
            for domain, count in enumerate(self.counts)
            for ref in self._of_domain(domain, range(step * count, (step + 1) * count))
        ]

    def _of_domain(self, domain: int, positions: Iterable[int]) -> list[SampleRef]:
        """The samples at positions of a domain's stream; those of a part together, for ranks to share them evenly."""
        stream = self.streams[domain]
        return [SampleRef(domain, stream.sample(at), at) for at in sorted(positions, key=stream.part)]

    def seen(self, steps: int) -> dict[str, int]:
        """How many samples of each domain the first `steps` global batches hold."""
        return {name: steps * count for name, count in zip(self.names, self.counts, strict=True)}


class PooledBatchSampler(BalancedBatchSampler):
    """Batches out of one pool of all domains' samples: a domain's share is its share of the samples.

    This is the naive mixing that balanced batches are compared with. The pool is one endless stream of fresh
    permutations, whatever weights the parts of a domain have; everything else is as in balanced batches.

    Args:
        lengths: number of samples of each domain, by name.
        batch_size: samples of a global batch, over all ranks.
        steps: batches per epoch; by default one pass over the pool.
        options: the others of `BalancedBatchSampler`.

    Raises:
        InputError: when the batch size does not fit the ranks.
    """

    def __init__(self, lengths: Mapping[str, int], batch_size: int, **options: Any) -> None:
        super().__init__({"all": sum(lengths.values())}, {"all": 1}, batch_size, **options)
        self.domains = list(lengths)
        self.ends = np.cumsum(list(lengths.values()))  # of the domains, which lie in the pool one after the other

    def __str__(self) -> str:
        return f"{self.counts[0]} of all, shuffled together"

    def global_batch(self, step: int) -> list[SampleRef]:
        """All samples of optimisation step `step`, counted from the start of training."""
        return [self._with_domain(ref) for ref in super().global_batch(step)]

    def seen(self, steps: int) -> dict[str, int]:
        """How many samples of each domain the first `steps` global batches hold."""
        turns, rest = divmod(steps * self.counts[0], self.lengths[0])
        begun = np.searchsorted(np.sort(self.streams[0].permutation(0, turns)[:rest]), self.ends)
        whole = turns * self.ends
        return dict(zip(self.domains, np.diff(whole + begun, prepend=0).tolist(), strict=True))

    def _with_domain(self, ref: SampleRef) -> SampleRef:
        domain = int(np.searchsorted(self.ends, ref.index, side="right"))
        first = int(self.ends[domain - 1]) if domain else 0
        return SampleRef(domain, ref.index - first, ref.count)

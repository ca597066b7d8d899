"""Dropout whose choice of units belongs to the sample, not to the batch or the process that holds it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SampleDropout(nn.Dropout):
    """Dropout that can be seeded for each sample of a batch; without seeds it is torch's own.

    A sample with the same seed loses the same units, whatever other samples stand beside it. Several calls within one
    `seeded` block, such as those after fc6 and fc7, go on in each sample's stream of random numbers.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self._generators: list[torch.Generator] | None = None

    @contextmanager
    def seeded(self, seeds: Sequence[int], device: torch.device) -> Iterator[None]:
        """Draw from the samples' own streams within the block; `seeds` has one for each sample of the batch."""
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        try:
            yield
        finally:
            self._generators = None

    def forward(self, input: Tensor) -> Tensor:
        """(N, ...) values, a share `p` of them zero and the others larger by 1 / (1 - p) in training.

        Raises:
            ValueError: where there is not one seed for each sample.
        """
        if self._generators is None or not self.training or self.p in (0, 1):
            return super().forward(input)
        return self._seeded(input)

    # Generators are new in every step, and would make a compiler begin anew. `torch.compiler.disable` does the same,
    # but imports the compiler at once, for a second in which nothing is compiled.
    @torch._disable_dynamo
    def _seeded(self, input: Tensor) -> Tensor:
        assert self._generators is not None
        if len(self._generators) != len(input):
            raise ValueError(f"{len(self._generators)} seeds for {len(input)} samples")
        kept = torch.empty(input.shape, dtype=torch.bool, device=input.device)
        for sample, generator in zip(kept, self._generators, strict=True):
            sample.bernoulli_(1 - self.p, generator=generator)
        return input * kept / (1 - self.p)

"""Confident predictions where there are no labels."""

import math
from typing import Any

from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.training.adaptation.method import Adaptation
from fcnseg.training.processes import all_reduce_sum


class MinimumEntropy(Adaptation):
    """Adds the mean entropy of the predictions on the samples of a batch that have no labelled pixel.

    Vu et al., "ADVENT" (CVPR 2019), section 3.1, after Grandvalet and Bengio (NIPS 2004): of each pixel
    -sum p log p / log C, from 0 to 1; the mean is over all pixels of all such samples of all processes.

    Args:
        weight: of the mean beside the other loss; the paper's is 0.001.

    Raises:
        InputError: for a weight that is not above 0.
    """

    def __init__(self, weight: float = 0.001) -> None:
        super().__init__()
        if not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise InputError(f"weight={weight!r}: expected a number above 0")
        self.weight = weight

    def loss(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        unlabelled = (batch["mask"] == IGNORE_INDEX).flatten(1).all(1).to(logits.dtype)
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1) / math.log(logits.shape[1])
        count = all_reduce_sum(unlabelled.sum() * entropy[0].numel())
        return self.weight * (entropy.sum((1, 2)) * unlabelled).sum() / count.clamp(min=1)
